//! Key sets: the pinned keys of the control plane, and the published keys of the token issuer.

mod control_plane;
mod okta;

pub use self::control_plane::{ControlPlaneKey, ControlPlaneKeys};
pub use self::okta::OktaKeys;
pub(crate) use self::okta::RSA_ALGORITHM;

use crate::json::{Fault, Fields, Json};
use crate::limits::{MAX_JWKS_BYTES, MAX_JWKS_KEYS};

/// Why a key set is refused as a whole. The set in use before stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwks {
    /// More than 256 KiB.
    #[error("the key set has {0} bytes, at most {MAX_JWKS_BYTES} are read")]
    TooLarge(usize),
    /// Not `{"keys": [...]}` in strict JSON.
    #[error("not a JWK set: {0}")]
    Malformed(String),
    /// More than 32 keys.
    #[error("the key set has {0} keys, at most {MAX_JWKS_KEYS} are read")]
    TooManyKeys(usize),
    /// Two keys share a `kid`: which one a token means cannot be known.
    #[error("two keys have the kid {0}")]
    DuplicateKid(String),
    /// A pinned key that is not exactly as it must be.
    #[error("key {at}: {problem}")]
    Key {
        /// Position in the set, from 0.
        at: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A pinned set without keys.
    #[error("the key set is empty")]
    Empty,
}

/// The keys of a JWK set (RFC 7517, section 5), with size, count and `kid` uniqueness checked over all
/// of them, usable or not.
fn jwk_objects(document: &[u8]) -> Result<(Fields, Vec<Fields>), InvalidJwks> {
    if document.len() > MAX_JWKS_BYTES {
        return Err(InvalidJwks::TooLarge(document.len()));
    }
    let malformed = |fault: Fault| InvalidJwks::Malformed(fault.to_string());
    let mut fields = Json::parse_object(document).map_err(malformed)?;
    let keys = fields.required("keys", |keys| keys.list_or_empty(usize::MAX, Ok));
    let keys = keys.map_err(malformed)?;
    if keys.len() > MAX_JWKS_KEYS {
        return Err(InvalidJwks::TooManyKeys(keys.len()));
    }
    let keys: Vec<Fields> =
        keys.into_iter().map(Json::object).collect::<Result<_, _>>().map_err(malformed)?;
    let mut seen = std::collections::BTreeSet::new();
    for kid in keys.iter().filter_map(|key| key.peek_text("kid")) {
        if !seen.insert(kid) {
            return Err(InvalidJwks::DuplicateKid(kid.chars().take(128).collect()));
        }
    }
    Ok((fields, keys))
}

/// Private parts of a JWK (RFC 7518, section 6): a set that shows one is not to be relied on.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

fn has_private_part(key: &Fields) -> bool {
    PRIVATE_MEMBERS.iter().any(|member| key.has(member))
}
