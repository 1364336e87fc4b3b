//! What the stand-in control plane signs: drafts of grants and revocations, honest by default, and
//! every claim open to change.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::clock::unix_now;
use crate::jose::{self, SigningKey};
use crate::machine;
use crate::okta::AccessToken;

/// `typ` of a grant.
pub const GRANT_TYP: &str = "hostgrant+jwt";
/// `typ` of a revocation.
pub const REVOCATION_TYP: &str = "hostrevoke+jwt";

/// A grant before it is signed.
#[derive(Clone)]
pub struct Draft {
    pub(crate) key: Arc<SigningKey>,
    pub(crate) token: AccessToken,
    pub(crate) claims: Value,
}

/// A signed grant with the token that travels beside it: what is pushed.
#[derive(Clone)]
pub struct Signed {
    /// The grant's id.
    pub jti: String,
    /// When it ends, seconds since 1970.
    pub exp: u64,
    /// The compact JWS.
    pub jws: String,
    /// The Okta token.
    pub token: AccessToken,
}

impl Draft {
    /// Opens one TCP port of an address.
    #[must_use]
    pub fn tcp(self, host: &str, port: u16) -> Self {
        self.endpoint("tcp", json!({"host": host, "ports": [port]}))
    }

    /// Opens one UDP port of an address.
    #[must_use]
    pub fn udp(self, host: &str, port: u16) -> Self {
        self.endpoint("udp", json!({"host": host, "ports": [port]}))
    }

    /// Opens a range of TCP ports of a prefix.
    #[must_use]
    pub fn tcp_range(self, cidr: &str, from: u16, to: u16) -> Self {
        self.endpoint("tcp", json!({"cidr": cidr, "ports": [{"from": from, "to": to}]}))
    }

    /// Adds an endpoint as it is written on the wire.
    #[must_use]
    pub fn endpoint(mut self, protocol: &str, endpoint: Value) -> Self {
        if let Some(details) =
            self.claims.get_mut("authorization_details").and_then(Value::as_array_mut)
        {
            let same = details
                .iter_mut()
                .find(|detail| detail.get("protocol").and_then(Value::as_str) == Some(protocol));
            match same.and_then(|detail| detail.get_mut("endpoints")).and_then(Value::as_array_mut)
            {
                Some(endpoints) => endpoints.push(endpoint),
                None => details.push(json!({
                    "type": "network_connect", "actions": ["connect"],
                    "protocol": protocol, "endpoints": [endpoint],
                })),
            }
        }
        self
    }

    /// Ends so many seconds after its `iat`.
    #[must_use]
    pub fn ttl(self, seconds: u64) -> Self {
        let iat = self.claims.get("iat").and_then(Value::as_u64).unwrap_or_default();
        self.with("exp", json!(iat + machine::life(seconds)))
    }

    /// Sets one claim to anything.
    #[must_use]
    pub fn with(mut self, claim: &str, value: Value) -> Self {
        jose::set(&mut self.claims, claim, value);
        self
    }

    /// Removes one claim.
    #[must_use]
    pub fn without(mut self, claim: &str) -> Self {
        if let Some(claims) = self.claims.as_object_mut() {
            claims.remove(claim);
        }
        self
    }

    /// Signs with another key than the control plane's.
    #[must_use]
    pub fn signed_by(mut self, key: Arc<SigningKey>) -> Self {
        self.key = key;
        self
    }

    /// The claims as they are now.
    #[must_use]
    pub fn claims(&self) -> &Value {
        &self.claims
    }

    /// Signs it with the header that the design demands.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self) -> Result<Signed> {
        let jws = self.key.sign(GRANT_TYP, &self.claims)?;
        Ok(self.wrap(jws))
    }

    /// Signs it with any header.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_with_header(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<Signed> {
        let mut header = json!({"typ": GRANT_TYP, "alg": self.key.alg(), "kid": self.key.kid()});
        change(header.as_object_mut().context("a header is an object")?);
        let jws = self.key.sign_with(&header, &self.claims)?;
        Ok(self.wrap(jws))
    }

    /// Signs claims given as text, which need not be well-formed.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_claims_text(&self, claims: &str) -> Result<Signed> {
        let header = json!({"typ": GRANT_TYP, "alg": self.key.alg(), "kid": self.key.kid()});
        let jws = self.key.sign_text(&header.to_string(), claims)?;
        Ok(self.wrap(jws))
    }

    fn wrap(&self, jws: String) -> Signed {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str).unwrap_or_default();
        let exp = self.claims.get("exp").and_then(Value::as_u64).unwrap_or_default();
        Signed { jti: text("jti").to_owned(), exp, jws, token: self.token.clone() }
    }
}

impl Signed {
    /// The body of the push.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        json!({"grant": self.jws, "subject_token": self.token.reveal()}).to_string().into_bytes()
    }

    /// The same grant with `change` applied to its claims and the signature left as it was.
    ///
    /// # Errors
    /// When it is no JWS.
    pub fn tampered(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<Self> {
        Ok(Self { jws: jose::with_claims_changed(&self.jws, change)?, ..self.clone() })
    }

    /// The same grant beside another token.
    #[must_use]
    pub fn beside(&self, token: &AccessToken) -> Self {
        Self { token: token.clone(), ..self.clone() }
    }
}

/// The identities of one deployment that every draft starts from.
#[derive(Clone)]
pub struct Letterhead {
    /// `iss` of the control plane.
    pub issuer: String,
    /// `aud`: the host.
    pub host_id: String,
    /// The key that signs.
    pub key: Arc<SigningKey>,
}

impl Letterhead {
    /// A grant for `workload` on the strength of `token`: one minute, no destinations yet.
    ///
    /// # Errors
    /// When the token is no JWT.
    pub fn draft(&self, workload: &str, token: &AccessToken) -> Result<Draft> {
        let said = jose::claims(token.reveal())?;
        let subject = said.get("uid").or_else(|| said.get("sub")).cloned();
        let now = unix_now();
        let mut claims = json!({
            "ver": 1, "iss": self.issuer, "aud": self.host_id,
            "jti": jose::fresh_id(""), "txn": jose::fresh_id("req-"),
            "iat": now, "nbf": now, "exp": now + machine::life(60),
            "sub": subject,
            "okta": {"iss": said.get("iss"), "ath": jose::sha256_b64(token.reveal())},
            "workload": workload,
            "authorization_details": [],
        });
        for optional in ["cid", "act"] {
            if let Some(value) = said.get(optional) {
                jose::set(&mut claims, optional, value.clone());
            }
        }
        Ok(Draft { key: Arc::clone(&self.key), token: token.clone(), claims })
    }

    /// A signed revocation of what `revoke` names, such as `[{"jti": "…"}]`.
    ///
    /// # Errors
    /// When signing fails.
    pub fn revocation(&self, seq: u64, revoke: &Value) -> Result<String> {
        let now = unix_now();
        let claims = json!({
            "ver": 1, "iss": self.issuer, "aud": self.host_id,
            "jti": jose::fresh_id("rev-"), "iat": now, "exp": now + 60,
            "seq": seq, "revoke": revoke, "issued_before": now,
        });
        self.key.sign(REVOCATION_TYP, &claims)
    }
}
