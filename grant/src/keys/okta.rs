//! The published keys of the token issuer.

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey};

use super::{InvalidJwks, has_private_part, jwk_objects};
use crate::ids::KeyId;
use crate::json::{Fault, Fields, Json};

/// The one algorithm of Okta access tokens.
pub(crate) const RSA_ALGORITHM: Algorithm = Algorithm::RS256;
/// Smallest and largest RSA modulus, in bits. Above, one verification would cost too much.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of a JWK set that may verify access tokens; all others were left out.
#[derive(Clone, Default)]
pub struct OktaKeys {
    keys: BTreeMap<KeyId, DecodingKey>,
    skipped: usize,
}

impl OktaKeys {
    /// Reads a JWK set and keeps the keys with `kty` RSA, `use` sig, `alg` RS256 or absent, a `kid`, a
    /// modulus of 2048 to 8192 bits, an odd exponent of 65537 or more, and no private part.
    ///
    /// No usable key is not an error: then every token's key is unknown.
    ///
    /// # Errors
    /// [`InvalidJwks`] if the document is too large, not strict JSON, has more than 32 keys, or two
    /// keys (usable or not) with the same `kid`.
    pub fn from_jwks(document: &[u8]) -> Result<Self, InvalidJwks> {
        let (_, objects) = jwk_objects(document)?;
        let total = objects.len();
        let keys: BTreeMap<_, _> =
            objects.into_iter().filter_map(|object| usable_key(object).ok().flatten()).collect();
        Ok(Self { skipped: total - keys.len(), keys })
    }

    /// Whether the set has this key.
    pub fn contains(&self, kid: &KeyId) -> bool {
        self.keys.contains_key(kid)
    }

    /// The ids of all usable keys, sorted.
    pub fn kids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.keys()
    }

    /// How many usable keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys of the document were left out.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    pub(crate) fn get(&self, kid: &KeyId) -> Option<&DecodingKey> {
        self.keys.get(kid)
    }
}

impl fmt::Debug for OktaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

fn usable_key(mut key: Fields) -> Result<Option<(KeyId, DecodingKey)>, Fault> {
    let wanted = |field: &mut Fields, name, value| -> Result<bool, Fault> {
        Ok(field.optional(name, Json::text)?.is_some_and(|text| *text == value))
    };
    let alg_absent = !key.has("alg");
    let usable = wanted(&mut key, "kty", "RSA")?
        && wanted(&mut key, "use", "sig")?
        && (alg_absent || wanted(&mut key, "alg", "RS256")?)
        && !has_private_part(&key);
    if !usable {
        return Ok(None);
    }
    let kid: KeyId = key.required("kid", Json::id)?;
    let modulus = key.required("n", unsigned_bytes)?;
    let exponent = key.required("e", unsigned_bytes)?;
    if !is_acceptable(&modulus, &exponent) {
        return Ok(None);
    }
    Ok(Some((kid, DecodingKey::from_rsa_raw_components(&modulus, &exponent))))
}

/// A `Base64urlUInt` (RFC 7518, section 2): big-endian, no leading zero byte.
fn unsigned_bytes(value: Json) -> Result<Vec<u8>, Fault> {
    let bytes = crate::jose::decode(&value.text()?).map_err(Fault::expected)?;
    if bytes.first() == Some(&0) { Err(Fault::expected("no leading zero byte")) } else { Ok(bytes) }
}

fn is_acceptable(modulus: &[u8], exponent: &[u8]) -> bool {
    let odd = |bytes: &[u8]| bytes.last().is_some_and(|last| last & 1 == 1);
    let leading = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = (modulus.len() * 8).saturating_sub(leading);
    let exponent_value =
        exponent.iter().take(5).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    MODULUS_BITS.contains(&bits)
        && odd(modulus)
        && odd(exponent)
        && exponent.len() <= 4
        && exponent_value >= 65_537
}
