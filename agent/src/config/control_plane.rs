//! `[control_plane]`: who may push to this host, and how this host is reached.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use grantd_grant::ids::{Issuer, PeerUri};
use grantd_grant::policy::ControlPlanePolicy;

use super::reader::{Section, Value};
use super::values::absolute_path;

/// Issuer, as a person should write it.
const ISSUER: &str =
    "the `iss` of the control plane's grants, such as \"https://control.example.org\"";

/// The push listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlaneConfig {
    /// Root-owned JWKS file of the pinned signing keys.
    pub keys: PathBuf,
    /// Where the listener binds.
    pub listen: SocketAddr,
    /// What it proves itself with and whom it believes.
    pub tls: TlsFiles,
}

/// PEM files of the push listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The host's certificate chain; its one URI SAN is `host_id`.
    pub certificate: PathBuf,
    /// The host's private key. Not readable by others.
    pub key: PathBuf,
    /// The private CA of the control plane's certificates.
    pub client_ca: PathBuf,
    /// Revocation lists of that CA.
    pub crl: Option<PathBuf>,
}

/// Reads `[control_plane]`. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`.
pub(super) fn read(
    section: &mut Section<'_>,
    credentials: Option<&std::path::Path>,
) -> Option<(ControlPlaneConfig, ControlPlanePolicy)> {
    section.refuse(
        "dial",
        "not supported yet: dialling the control plane arrives with a later release",
        "remove it and write listen = \"ADDRESS:PORT\"",
    );
    let issuer =
        section.required("issuer", ISSUER).and_then(|value| value.parse(ISSUER, Issuer::new));
    let keys = section
        .required("keys", "the path of the JWKS file with the pinned signing keys")
        .and_then(|value| absolute_path(&value));
    let listen = section
        .required("listen", "the address to listen on, such as \"0.0.0.0:7443\"")
        .and_then(|value| listen(&value));
    let peers = section
        .required(
            "peers",
            "the URI SANs that may push, such as [\"spiffe://example.org/control-plane\"]",
        )
        .and_then(|value| peers(&value));
    let tls =
        section.required("tls", "{ certificate = …, key = …, client_ca = … }").and_then(|value| {
            value.table("{ certificate = …, key = …, client_ca = … }", |tls| {
                tls_files(tls, credentials)
            })
        });
    let config = ControlPlaneConfig { keys: keys?, listen: listen?, tls: tls? };
    Some((config, ControlPlanePolicy { issuer: issuer?, pushers: peers? }))
}

fn listen(value: &Value<'_>) -> Option<SocketAddr> {
    let expected = "IP address and port, such as \"0.0.0.0:7443\" or \"[::]:7443\"";
    let address = value.parse(expected, str::parse::<SocketAddr>)?;
    if address.port() == 0 {
        value.fault(
            "port 0 would be another port after every start",
            format!("expected {expected}"),
        );
        return None;
    }
    Some(address)
}

fn peers(value: &Value<'_>) -> Option<BTreeSet<PeerUri>> {
    let expected = "URI SANs, such as [\"spiffe://example.org/control-plane\"]";
    let peers = value.each(expected, |peer| {
        peer.parse("an absolute URI, such as \"spiffe://example.org/control-plane\"", PeerUri::new)
    })?;
    Some(peers.into_iter().collect())
}

fn tls_files(tls: &mut Section<'_>, credentials: Option<&std::path::Path>) -> Option<TlsFiles> {
    let certificate = tls
        .required("certificate", "the path of the host's certificate chain (PEM)")
        .and_then(|value| absolute_path(&value));
    let key = match tls.optional("key") {
        Some(value) => key_file(&value, credentials),
        None => default_key(tls, credentials),
    };
    let client_ca = tls
        .required("client_ca", "the path of the control plane's CA certificate (PEM)")
        .and_then(|value| absolute_path(&value));
    let crl = match tls.optional("crl") {
        Some(value) => absolute_path(&value).map(Some),
        None => Some(None),
    };
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca: client_ca?, crl: crl? })
}

/// Name of the systemd credential that holds the key where the file names none.
const KEY_CREDENTIAL: &str = "tls.key";

fn default_key(tls: &Section<'_>, credentials: Option<&std::path::Path>) -> Option<PathBuf> {
    let key = credentials.map(|directory| directory.join(KEY_CREDENTIAL));
    if key.is_none() {
        tls.missing(
            "key",
            "the path of the host's private key, or start with the systemd credential tls.key (LoadCredential=tls.key:PATH)",
        );
    }
    key
}

/// An absolute path, or `credential:NAME` for a systemd credential.
fn key_file(value: &Value<'_>, credentials: Option<&std::path::Path>) -> Option<PathBuf> {
    let text = value.string("a path, or \"credential:NAME\"")?;
    let Some(name) = text.strip_prefix("credential:") else { return absolute_path(value) };
    let plain = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !plain {
        value.fault("is no credential name", "expected credential:NAME of A-Z a-z 0-9 . _ -");
        return None;
    }
    let Some(directory) = credentials else {
        value.fault(
            "names a systemd credential, but $CREDENTIALS_DIRECTORY is not set",
            format!("add LoadCredential={name}:PATH to the unit, or write the key's path"),
        );
        return None;
    };
    Some(directory.join(name))
}
