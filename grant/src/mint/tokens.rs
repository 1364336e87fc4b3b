//! An Okta-shaped issuer of access tokens.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256};
use serde_json::{Map, Value, json};

use super::{MintError, base64url, sign_compact};
use crate::ids::{Audience, Issuer, KeyId, UnixTime};

/// Signs access tokens with RS256, as a custom authorization server of Okta does.
pub struct OktaTokenMinter {
    kid: KeyId,
    pair: RsaKeyPair,
}

impl OktaTokenMinter {
    /// Makes a 2048-bit key.
    ///
    /// # Errors
    /// [`MintError`] if the system gives no randomness.
    pub fn generate(kid: KeyId) -> Result<Self, MintError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048)
            .map_err(|_| MintError("the key could not be generated"))?;
        Ok(Self { kid, pair })
    }

    /// `kid`.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// The public key as a JWK, as Okta publishes it.
    pub fn jwk(&self) -> Value {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.kid.as_str(),
            "n": base64url(&public.n), "e": base64url(&public.e),
        })
    }

    /// The public key as a JWK set.
    pub fn jwks(&self) -> Vec<u8> {
        super::jwks([self.jwk()])
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`MintError`] if signing fails.
    pub fn mint(&self, draft: &TokenDraft) -> Result<String, MintError> {
        let header = json!({ "kid": self.kid.as_str(), "alg": "RS256" });
        self.mint_raw(header.to_string().as_bytes(), draft.claims().to_string().as_bytes())
    }

    /// Signs exactly these bytes as header and payload, whatever they are.
    ///
    /// # Errors
    /// [`MintError`] if signing fails.
    pub fn mint_raw(&self, header: &[u8], payload: &[u8]) -> Result<String, MintError> {
        sign_compact(header, payload, |input| {
            let mut signature = vec![0; self.pair.public_modulus_len()];
            self.pair
                .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature)
                .map_err(|_| MintError("signing failed"))?;
            Ok(signature)
        })
    }
}

impl fmt::Debug for OktaTokenMinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OktaTokenMinter({})", self.kid)
    }
}

/// The claims of an access token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenDraft {
    claims: Map<String, Value>,
}

impl TokenDraft {
    /// A token as Okta gives a client for client credentials: `sub` and `cid` are the client.
    pub fn for_client(
        issuer: &Issuer,
        audience: &Audience,
        client: &str,
        scopes: &[&str],
        now: UnixTime,
        ttl: Duration,
    ) -> Self {
        let claims = json!({
            "ver": 1, "jti": format!("AT.{client}.{now}"), "iss": issuer.as_str(),
            "aud": audience.as_str(), "iat": now.as_secs(), "exp": now.plus(ttl).as_secs(),
            "cid": client, "sub": client, "scp": scopes,
        });
        Self { claims: super::drafts::into_map(claims) }
    }

    /// Sets a claim to any value, also a wrong one.
    #[must_use]
    pub fn set(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(claim.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }

    /// The claims as they will be written.
    pub fn claims(&self) -> Value {
        Value::Object(self.claims.clone())
    }
}
