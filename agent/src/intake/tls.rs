//! TLS material: what the listener proves, and whom it believes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use thiserror::Error;
use zeroize::Zeroizing;

use super::peer::uri_sans;
use crate::clock::Clock;
use crate::config::{FileError, TlsFiles, read_secret, read_trusted};

/// Largest PEM file that is read, in bytes. A revocation list is the longest of them.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// Why TLS material cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or should not be trusted.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{what}: {fault}")]
    Pem {
        /// Which of the files, by its configuration key.
        what: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// The host's certificate is not this host's.
    #[error(
        "control_plane.tls.certificate: its URI subject alternative names are {found:?}, but host_id is \"{host_id}\": \
         have a certificate issued with exactly this URI, or correct host_id"
    )]
    Identity {
        /// The configured identity.
        host_id: String,
        /// What the certificate says.
        found: Vec<String>,
    },
    /// The parts do not fit together (a key of another certificate, for example).
    #[error("control_plane.tls: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The listener's TLS files, as read: all PEM.
pub struct TlsMaterial {
    /// Certificate chain, the host's own first.
    pub certificate: Vec<u8>,
    /// The host's private key (PKCS #8, SEC 1 or PKCS #1).
    pub key: Zeroizing<Vec<u8>>,
    /// The private CA, or several while one replaces another.
    pub client_ca: Vec<u8>,
    /// Revocation lists: for every CA that issues certificates in a peer's chain.
    pub crl: Option<Vec<u8>>,
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

impl TlsMaterial {
    /// Reads the configured files.
    ///
    /// # Errors
    /// [`TlsError::File`] if one cannot be read, or its owner or mode makes it untrustworthy.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let trusted = |path: &Path| read_trusted(path, MAX_PEM_BYTES);
        Ok(Self {
            certificate: trusted(&files.certificate)?,
            key: read_secret(&files.key, MAX_PEM_BYTES)?,
            client_ca: trusted(&files.client_ca)?,
            crl: files.crl.as_deref().map(trusted).transpose()?,
        })
    }

    /// Builds the server's configuration: TLS 1.3 only, client certificate required.
    ///
    /// Where a revocation list is configured it is binding: a peer whose chain it does not cover,
    /// and every peer once the list's `nextUpdate` has passed, is turned away. An old list cannot
    /// say who was revoked since.
    ///
    /// # Errors
    /// [`TlsError`] naming the key of the file at fault.
    pub fn server_config(
        &self,
        host_id: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = certificates("control_plane.tls.certificate", &self.certificate)?;
        let found = chain.first().map(uri_sans).unwrap_or_default();
        if found.len() != 1 || found.first().is_none_or(|uri| uri != host_id) {
            return Err(TlsError::Identity { host_id: host_id.to_owned(), found });
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::Pem {
            what: "control_plane.tls.key",
            fault: "holds no unencrypted PEM private key".to_owned(),
        })?;

        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots()?, Arc::clone(&provider));
        if let Some(crl) = &self.crl {
            verifier = verifier.with_crls(revocation_lists(crl)?).enforce_revocation_expiration();
        }
        let verifier = verifier.build().map_err(|error| TlsError::Pem {
            what: "control_plane.tls.crl",
            fault: error.to_string(),
        })?;

        let mut config = ServerConfig::builder_with_details(provider, Arc::new(WallClock(clock)))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would skip the revocation list.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let what = "control_plane.tls.client_ca";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(what, &self.client_ca)? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::Pem { what, fault: error.to_string() })?;
        }
        Ok(Arc::new(roots))
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Pem { what, fault: "holds no PEM certificate".to_owned() }),
        Err(error) => Err(TlsError::Pem { what, fault: format!("is not PEM: {error}") }),
    }
}

fn revocation_lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let what = "control_plane.tls.crl";
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Pem { what, fault: "holds no PEM revocation list".to_owned() }),
        Err(error) => Err(TlsError::Pem { what, fault: format!("is not PEM: {error}") }),
    }
}

/// The daemon's clock, as rustls asks for it.
struct WallClock(Arc<dyn Clock>);

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.now().unix().0;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
