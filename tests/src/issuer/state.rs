//! What the issuer knows, and what its tokens say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Client, Shape};
use crate::clock::unix_now;
use crate::jose::{self, SigningKey};

/// Lifetime of an access token, as Okta's default.
const TOKEN_TTL: u64 = 3600;
/// Longest lifetime that Okta accepts of a client assertion.
const MAX_ASSERTION_TTL: u64 = 3600;

/// The state, shared between routes and the test.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct State {
    issuer: String,
    shape: Shape,
    /// Signs, whether or not it is published.
    signer: Arc<SigningKey>,
    published: Vec<Arc<SigningKey>>,
    clients: BTreeMap<String, Client>,
    seen_assertions: BTreeSet<String>,
    pub(super) fail_keys: bool,
    pub(super) delay: Duration,
    pub(super) key_requests: u64,
    pub(super) tokens_issued: u64,
}

/// A token and the scopes that it carries.
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) scope: String,
}

impl State {
    pub(super) fn share(origin: &str, shape: Shape, key: SigningKey) -> Shared {
        let key = Arc::new(key);
        Shared(Arc::new(Mutex::new(Self {
            issuer: format!("{origin}{}", shape.path),
            shape,
            signer: Arc::clone(&key),
            published: vec![key],
            clients: BTreeMap::new(),
            seen_assertions: BTreeSet::new(),
            fail_keys: false,
            delay: Duration::ZERO,
            key_requests: 0,
            tokens_issued: 0,
        })))
    }

    pub(super) fn register(&mut self, client: Client) {
        self.clients.insert(client.id.clone(), client);
    }

    pub(super) fn rotate(&mut self, key: SigningKey) {
        self.signer = Arc::new(key);
        self.published.push(Arc::clone(&self.signer));
    }

    pub(super) fn withdraw(&mut self, kid: &str) {
        self.published.retain(|key| key.kid() != kid);
    }

    pub(super) fn jwks(&self) -> Result<Value> {
        let keys: Result<Vec<Value>> = self.published.iter().map(|key| key.jwk()).collect();
        Ok(json!({"keys": keys?}))
    }

    pub(super) fn metadata(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}{}", self.issuer, self.shape.keys_path),
            "token_endpoint": format!("{}{}", self.issuer, self.shape.token_path),
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    }

    pub(super) fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.signer)
    }

    pub(super) fn mint(&self, claims: &Value) -> Result<String> {
        let key = self.signing_key();
        let header = if self.shape.rfc9068 {
            json!({"typ": "at+jwt", "alg": key.alg(), "kid": key.kid()})
        } else {
            // Okta's access tokens carry no typ.
            json!({"kid": key.kid(), "alg": key.alg()})
        };
        key.sign_with(&header, claims)
    }

    /// The claims of a token for `client_id`, or `None` where there is no such client.
    pub(super) fn claims(&self, client_id: &str, scopes: &[String]) -> Option<Value> {
        let client = self.clients.get(client_id)?;
        let now = unix_now();
        let mut claims = if self.shape.rfc9068 {
            json!({
                "jti": jose::fresh_id(""), "iss": self.issuer, "aud": self.shape.audience,
                "iat": now, "exp": now + TOKEN_TTL, "sub": client.id, "client_id": client.id,
                "scope": scopes.join(" "),
            })
        } else {
            json!({
                "ver": 1, "jti": jose::fresh_id("AT."), "iss": self.issuer,
                "aud": self.shape.audience, "iat": now, "exp": now + TOKEN_TTL,
                "cid": client.id, "scp": scopes, "sub": client.id,
            })
        };
        for (name, value) in &client.claims {
            jose::set(&mut claims, name, value.clone());
        }
        Some(claims)
    }

    /// The client credentials grant (RFC 6749, section 4.4) with a client assertion (RFC 7523).
    pub(super) fn client_credentials(&mut self, assertion: &str, scope: &str) -> Result<Issued> {
        let client_id = self.authenticate(assertion)?;
        let client = self.clients.get(&client_id).context("no such client")?;
        let scopes: Vec<String> = scope.split_ascii_whitespace().map(str::to_owned).collect();
        ensure!(!scopes.is_empty(), "scope is required");
        for scope in &scopes {
            ensure!(client.scopes.contains(scope), "scope {scope} is not allowed for this client");
        }
        let claims = self.claims(&client_id, &scopes).context("no such client")?;
        let token = self.mint(&claims)?;
        self.tokens_issued += 1;
        Ok(Issued { token, scope: scopes.join(" ") })
    }

    fn authenticate(&mut self, assertion: &str) -> Result<String> {
        let text = |claims: &Value, name: &str| {
            claims.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let unverified = jose::claims(assertion)?;
        let client_id = text(&unverified, "iss").context("iss is missing")?;
        let client = self.clients.get(&client_id).context("no such client")?;
        let claims = jose::verify_rs256(assertion, &client.key.jwk()?)?;
        ensure!(text(&claims, "sub").as_deref() == Some(&client_id), "sub is not the client");
        let endpoint = format!("{}{}", self.issuer, self.shape.token_path);
        ensure!(text(&claims, "aud").as_deref() == Some(&endpoint), "aud is not {endpoint}");
        let now = unix_now();
        let exp = claims.get("exp").and_then(Value::as_u64).context("exp is missing")?;
        ensure!(exp > now && exp <= now + MAX_ASSERTION_TTL, "exp is past or too far ahead");
        let jti = text(&claims, "jti").context("jti is missing")?;
        if !self.seen_assertions.insert(jti) {
            bail!("the assertion was used before");
        }
        Ok(client_id)
    }
}
