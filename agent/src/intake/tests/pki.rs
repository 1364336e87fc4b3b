//! Certificates of a private CA, and what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::HOST;
use crate::clock::{Clock, Now};
use crate::intake::TlsMaterial;

/// A wall clock that stands in the middle of 2027 until it is moved.
#[derive(Debug)]
pub(in crate::intake) struct FakeClock(AtomicU64);

impl Default for FakeClock {
    fn default() -> Self {
        Self(AtomicU64::new(1_814_400_000))
    }
}

impl FakeClock {
    pub(in crate::intake) fn set_year(&self, year: i32) {
        let seconds = date_time_ymd(year, 7, 1).unix_timestamp();
        self.0.store(seconds.try_into().expect("after 1970"), Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Now {
        let wall_ns = self.0.load(Ordering::SeqCst) * 1_000_000_000;
        Now { boot_ns: 1, tai_ns: wall_ns, wall_ns }
    }

    fn synchronised(&self) -> bool {
        true
    }
}

/// A certificate chain and its key.
pub(in crate::intake) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    key: KeyPair,
}

impl Identity {
    /// Certificate and key in one text.
    pub(in crate::intake) fn pem(&self) -> String {
        format!("{}{}", self.chain_pem, self.key.serialize_pem())
    }
}

/// One private CA.
pub(in crate::intake) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(in crate::intake) fn new() -> Self {
        Self::named("private CA")
    }

    pub(in crate::intake) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("key");
        Self { ca: CertifiedIssuer::self_signed(params, key).expect("authority") }
    }

    pub(in crate::intake) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// A client certificate with these URI SANs and this serial number.
    pub(in crate::intake) fn client(&self, uris: &[&str], serial: u64) -> Identity {
        self.issue(uris, serial, ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(in crate::intake) fn issue(
        &self,
        uris: &[&str],
        serial: u64,
        usage: ExtendedKeyUsagePurpose,
    ) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("IA5")));
        params.subject_alt_names.extend(uris);
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.ca).expect("certificate");
        Identity { chain: vec![certificate.der().clone()], chain_pem: certificate.pem(), key }
    }

    /// A revocation list of this CA, good from 2026 to the end of 2028.
    pub(in crate::intake) fn crl(&self, revoked: &[u64]) -> Vec<u8> {
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 2, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2029, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.ca).expect("list").pem().expect("pem").into_bytes()
    }

    /// The TLS material of the host under test.
    pub(in crate::intake) fn material(&self, crl: Option<Vec<u8>>) -> TlsMaterial {
        let host = self.issue(&[HOST], 1, ExtendedKeyUsagePurpose::ServerAuth);
        TlsMaterial {
            certificate: host.chain_pem.into_bytes(),
            key: Zeroizing::new(host.key.serialize_pem().into_bytes()),
            client_ca: self.ca.pem().into_bytes(),
            crl,
        }
    }

    /// A client that believes this CA.
    pub(in crate::intake) fn client_config(&self, identity: Option<Identity>) -> ClientConfig {
        self.client_config_for(identity, rustls::DEFAULT_VERSIONS)
    }

    pub(in crate::intake) fn client_config_for(
        &self,
        identity: Option<Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key, .. }) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(chain, key).expect("identity")
            }
        }
    }
}
