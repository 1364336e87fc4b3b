//! One entry point per parser, for the fuzz targets of `fuzz/` and their smoke test.
//!
//! None may panic, whatever the bytes are; each states what must hold when they are accepted.

use crate::destination::{Destination, HostPattern, PortRange, Protocol};
use crate::keys::{ControlPlaneKeys, OktaKeys};
use crate::push::Push;
use crate::revocation::{RevocationList, RevocationPush};

/// Body of a pushed grant.
pub fn push_body(data: &[u8]) {
    let _ = Push::parse(data);
}

/// A grant: compact form, header, and claims as if the signature were good.
pub fn grant_jws(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(compact) = crate::jose::Compact::parse(text)
    {
        let _ = crate::wire::Header::parse(&compact.header);
        grant_claims(&compact.payload);
    }
}

/// The claims of a grant.
pub fn grant_claims(data: &[u8]) {
    if let Ok((_, claims)) = crate::wire::grant_claims(data) {
        assert!(!claims.destinations.is_empty(), "a grant without destinations was accepted");
        for destination in &claims.destinations {
            assert!(destination.host().check_grantable().is_ok(), "{destination} is grantable");
        }
    }
}

/// An Okta access token: compact form, header, and claims as if the signature were good.
pub fn okta_token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(compact) = crate::jose::Compact::parse(text)
    {
        crate::token::fuzz(&compact.header, &compact.payload);
    }
    crate::token::fuzz(data, data);
}

/// The issuer's key set.
pub fn jwks(data: &[u8]) {
    if let Ok(keys) = OktaKeys::from_jwks(data) {
        assert!(keys.len() + keys.skipped() <= crate::limits::MAX_JWKS_KEYS);
    }
}

/// The control plane's pinned keys.
pub fn control_plane_keys(data: &[u8]) {
    if let Ok(keys) = ControlPlaneKeys::from_jwks(data) {
        assert!(!keys.is_empty(), "an empty set of pinned keys was accepted");
    }
}

/// A pushed revocation: body, and claims as if the signature were good.
pub fn revocation(data: &[u8]) {
    let _ = RevocationPush::parse(data);
    crate::revocation::fuzz(data);
}

/// The signed revocation list.
pub fn revocation_list(data: &[u8]) {
    let _ = RevocationList::parse(data);
    crate::revocation::fuzz(data);
}

/// `host` and `cidr` texts: what is accepted prints as it was read, and covers itself.
pub fn destination(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for pattern in [HostPattern::from_host(text), HostPattern::from_cidr(text)] {
        let Ok(pattern) = pattern else { continue };
        assert_eq!(pattern.to_string(), text, "one spelling per host");
        assert!(pattern.covers(&pattern) && pattern.overlaps(&pattern), "{text} covers itself");
        let all = Destination::new(pattern, [PortRange::ALL], Protocol::Tcp);
        assert!(all.is_ok_and(|d| d.covers(&d)));
    }
}

/// An `endpoints` item.
pub fn endpoint(data: &[u8]) {
    if let Ok(json) = crate::json::Json::parse(data)
        && let Ok(destination) = crate::wire::endpoint(json, Protocol::Udp)
    {
        assert!(destination.covers(&destination));
    }
}
