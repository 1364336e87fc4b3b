//! Bounds of the wire formats. All are refusals, never truncations.

use std::time::Duration;

/// Largest body of a pushed grant or revocation, in bytes.
pub const MAX_PUSH_BYTES: usize = 64 * 1024;
/// Largest Okta token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Largest JWKS document, in bytes.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;
/// Most keys in a JWKS document.
pub const MAX_JWKS_KEYS: usize = 32;
/// Largest signed revocation list, in bytes.
pub const MAX_REVOCATION_LIST_BYTES: usize = 1024 * 1024;
/// Most endpoints in one grant.
pub const MAX_ENDPOINTS: usize = 64;
/// Most port items in one endpoint.
pub const MAX_PORT_ITEMS: usize = 16;
/// Most selectors in one revocation.
pub const MAX_SELECTORS: usize = 256;
/// Most entries in one signed revocation list.
pub const MAX_REVOCATION_LIST_ENTRIES: usize = 8192;
/// How far another clock may be ahead of ours (`iat`, `nbf`). There is no leeway on `exp`.
pub const MAX_SKEW: Duration = Duration::from_secs(30);
/// How old a grant may be when it is pushed, counted from its `iat`.
pub const MAX_GRANT_AGE: Duration = Duration::from_secs(5 * 60);
/// Age from which a signed revocation list no longer permits new grants.
pub const REVOCATION_LIST_STALE: Duration = Duration::from_secs(2 * 60);
