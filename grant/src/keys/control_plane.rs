//! The pinned keys of the control plane.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::{InvalidJwks, has_private_part, jwk_objects};
use crate::ids::{KeyId, UnixTime};
use crate::json::{Fault, Fields, Json};
use crate::reason::{Reason, Refusal};

/// One pinned key: one algorithm, one period.
#[derive(Clone)]
pub struct ControlPlaneKey {
    /// The one `alg` that a message signed with it may have.
    alg: String,
    algorithm: Algorithm,
    verifier: DecodingKey,
    not_before: UnixTime,
    expires: UnixTime,
}

impl ControlPlaneKey {
    /// From when it may sign, inclusive.
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// Until when it may sign, exclusive.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    pub(crate) fn verifier(&self) -> &DecodingKey {
        &self.verifier
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// The pinned keys of the control plane, from a root-owned JWKS file.
#[derive(Clone, Default)]
pub struct ControlPlaneKeys {
    keys: BTreeMap<KeyId, ControlPlaneKey>,
}

impl ControlPlaneKeys {
    /// Reads a JWK set in which every key has `kid`, `alg` (EdDSA with `kty` OKP and `crv` Ed25519, or
    /// ES256 with `kty` EC and `crv` P-256), its coordinates, `nbf` and `exp` (seconds since 1970), and
    /// may have `use` sig. Anything else is a mistake in a file that a person keeps, so it is refused.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn from_jwks(document: &[u8]) -> Result<Self, Vec<InvalidJwks>> {
        let (rest, objects) = jwk_objects(document).map_err(|fault| vec![fault])?;
        let mut faults = Vec::new();
        if rest.finish().is_err() {
            faults.push(InvalidJwks::Malformed("the set has fields beside keys".to_owned()));
        }
        if objects.is_empty() {
            faults.push(InvalidJwks::Empty);
        }
        let mut keys = BTreeMap::new();
        for (at, object) in objects.into_iter().enumerate() {
            match pinned_key(object) {
                Ok((kid, key)) => {
                    keys.insert(kid, key);
                }
                Err(fault) => faults.push(InvalidJwks::Key { at, problem: fault.to_string() }),
            }
        }
        if faults.is_empty() { Ok(Self { keys }) } else { Err(faults) }
    }

    /// Whether the set has this key, inside its period or not.
    pub fn contains(&self, kid: &KeyId) -> bool {
        self.keys.contains_key(kid)
    }

    /// All keys with their ids, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &ControlPlaneKey)> {
        self.keys.iter()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Check 5.
    pub(crate) fn usable(
        &self,
        kid: &KeyId,
        alg: &str,
        now: UnixTime,
    ) -> Result<&ControlPlaneKey, Refusal> {
        let refuse = |reason, what: &str| Err(Refusal::new(reason, format!("key {kid} {what}")));
        let Some(key) = self.keys.get(kid) else {
            return refuse(Reason::KeyUnknown, "is not in control_plane.keys of this host");
        };
        if now < key.not_before {
            return refuse(Reason::KeyNotYetValid, "is not valid yet");
        }
        if now >= key.expires {
            return refuse(Reason::KeyExpired, "is no longer valid");
        }
        if alg != key.alg {
            return refuse(Reason::AlgMismatch, "has another alg");
        }
        Ok(key)
    }
}

impl fmt::Debug for ControlPlaneKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

fn pinned_key(mut key: Fields) -> Result<(KeyId, ControlPlaneKey), Fault> {
    if has_private_part(&key) {
        return Err(Fault::expected("a public key; this one holds its private part"));
    }
    let kid: KeyId = key.required("kid", Json::id)?;
    let alg = key.required("alg", Json::plain_text)?;
    let kty = key.required("kty", Json::text)?;
    let crv = key.required("crv", Json::text)?;
    let (algorithm, verifier) = match (alg.as_str(), kty.as_str(), crv.as_str()) {
        ("EdDSA", "OKP", "Ed25519") => {
            let point = key.required("x", coordinate)?;
            check_point(ParsedPublicKey::new(&ED25519, point).is_ok())?;
            (Algorithm::EdDSA, DecodingKey::from_ed_der(&point))
        }
        ("ES256", "EC", "P-256") => {
            let (x, y) = (key.required("x", coordinate)?, key.required("y", coordinate)?);
            // Uncompressed point (SEC 1, section 2.3.3).
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            check_point(ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).is_ok())?;
            (Algorithm::ES256, DecodingKey::from_ec_der(&point))
        }
        _ => return Err(Fault::expected("EdDSA with OKP Ed25519, or ES256 with EC P-256")),
    };
    let not_before = key.required("nbf", Json::time)?;
    let expires = key.required("exp", Json::time)?;
    if key.optional("use", Json::text)?.is_some_and(|usage| *usage != "sig") {
        return Err(Fault::expected("use to be sig"));
    }
    key.finish()?;
    if expires <= not_before {
        return Err(Fault::expected("exp after nbf"));
    }
    Ok((kid, ControlPlaneKey { alg, algorithm, verifier, not_before, expires }))
}

fn coordinate(value: Json) -> Result<[u8; 32], Fault> {
    let bytes = crate::jose::decode(&value.text()?).map_err(Fault::expected)?;
    <[u8; 32]>::try_from(bytes).map_err(|_| Fault::expected("32 bytes in base64url"))
}

fn check_point(valid: bool) -> Result<(), Fault> {
    if valid { Ok(()) } else { Err(Fault::expected("a point on the curve")) }
}
