//! Signing keys of the control plane.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Draft, MintError, base64url, sign_compact};
use crate::ids::{KeyId, UnixTime};

/// Algorithms of control-plane keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// EdDSA with Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518, section 3.4).
    Es256,
}

impl SigningAlgorithm {
    /// `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// A signing key of the control plane: signs grants, revocations and revocation lists.
pub struct GrantSigner {
    kid: KeyId,
    pair: Pair,
}

/// Revocations may be signed with the grants' key or one of their own.
pub type RevocationSigner = GrantSigner;

impl GrantSigner {
    /// Makes a key.
    ///
    /// # Errors
    /// [`MintError`] if the system gives no randomness.
    pub fn generate(algorithm: SigningAlgorithm, kid: KeyId) -> Result<Self, MintError> {
        let pair = match algorithm {
            SigningAlgorithm::EdDsa => Ed25519KeyPair::generate().map(Pair::Ed25519),
            SigningAlgorithm::Es256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::P256)
            }
        };
        Ok(Self { kid, pair: pair.map_err(|_| MintError("the key could not be generated"))? })
    }

    /// Reads a key that [`GrantSigner::to_pkcs8`] gave.
    ///
    /// # Errors
    /// [`MintError`] if it is not a PKCS#8 key of that algorithm.
    pub fn from_pkcs8(
        algorithm: SigningAlgorithm,
        kid: KeyId,
        document: &[u8],
    ) -> Result<Self, MintError> {
        let pair = match algorithm {
            SigningAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(document).map(Pair::Ed25519),
            SigningAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document).map(Pair::P256)
            }
        };
        Ok(Self { kid, pair: pair.map_err(|_| MintError("not a PKCS#8 key of this algorithm"))? })
    }

    /// The private key as PKCS#8 (RFC 5208), wiped when dropped.
    ///
    /// # Errors
    /// [`MintError`] if the backend cannot serialise it.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, MintError> {
        let document = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8(),
            Pair::P256(pair) => pair.to_pkcs8v1(),
        };
        document
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| MintError("the key could not be serialised"))
    }

    /// `kid`.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// `alg`.
    pub fn algorithm(&self) -> SigningAlgorithm {
        match &self.pair {
            Pair::Ed25519(_) => SigningAlgorithm::EdDsa,
            Pair::P256(_) => SigningAlgorithm::Es256,
        }
    }

    /// The public key as a JWK with its `alg` and its period, as hosts pin it.
    pub fn jwk(&self, not_before: UnixTime, expires: UnixTime) -> Value {
        let mut jwk = json!({
            "kid": self.kid.as_str(), "alg": self.algorithm().as_str(), "use": "sig",
            "nbf": not_before.as_secs(), "exp": expires.as_secs(),
        });
        let members = match &self.pair {
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref()) })
            }
            Pair::P256(pair) => {
                // Uncompressed point: 4, then x and y of 32 bytes (SEC 1, section 2.3.3).
                let coordinates = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                json!({ "kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y) })
            }
        };
        if let (Value::Object(jwk), Value::Object(members)) = (&mut jwk, members) {
            jwk.extend(members);
        }
        jwk
    }

    /// Signs a draft under its `typ`.
    ///
    /// # Errors
    /// [`MintError`] if signing fails.
    pub fn sign(&self, draft: &impl Draft) -> Result<String, MintError> {
        let header = json!({
            "typ": draft.typ(), "alg": self.algorithm().as_str(), "kid": self.kid.as_str(),
        });
        self.sign_raw(header.to_string().as_bytes(), draft.claims().to_string().as_bytes())
    }

    /// Signs exactly these bytes as header and payload, whatever they are.
    ///
    /// # Errors
    /// [`MintError`] if signing fails.
    pub fn sign_raw(&self, header: &[u8], payload: &[u8]) -> Result<String, MintError> {
        sign_compact(header, payload, |input| match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(input).as_ref().to_vec()),
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), input)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| MintError("signing failed")),
        })
    }
}

impl fmt::Debug for GrantSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantSigner({})", self.kid)
    }
}
