//! Who is at the other end of a connection.

use std::net::SocketAddr;

use grantd_grant::PeerUris;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The authenticated other end of one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The URI subject alternative names of its certificate, which chains to the private CA and is
    /// not revoked. May be empty: then nobody is allowed.
    pub uris: PeerUris,
    /// Where it connected from.
    pub address: SocketAddr,
}

/// The URI SANs of a certificate, in its order (RFC 5280, 4.2.1.6).
///
/// A certificate or extension that does not parse has none: it then matches no allow-list.
pub(super) fn uri_sans(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate.as_ref()) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .map(ToOwned::to_owned)
        .collect()
}
