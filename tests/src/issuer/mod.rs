//! An OpenID provider with the shape of an Okta custom authorization server: discovery, keys, and the
//! client credentials grant with `private_key_jwt`. It runs inside a namespace on its loopback.
//!
//! It can also be given the shape of another provider ([`Shape::generic`]), and misbehave on demand.

mod routes;
mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::jose::SigningKey;
use crate::netns::{Netns, NsRuntime};
use state::{Shared, State};

/// The audience of the tokens, as the daemon's config expects it.
pub const AUDIENCE: &str = "api://grantd";

/// How an issuer differs from others: paths, and how it writes scopes.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Path of the issuer below its origin, such as `/oauth2/aus4demo`.
    pub path: String,
    /// Well-known documents that it serves.
    pub well_known: &'static [&'static str],
    /// Path of the keys below the issuer.
    pub keys_path: &'static str,
    /// Path of the token endpoint below the issuer.
    pub token_path: &'static str,
    /// Audience of the tokens.
    pub audience: String,
    /// Scopes as one string in `scope` and a header `typ` of `at+jwt` (RFC 9068); otherwise as an
    /// array in `scp` with Okta's own claims.
    pub rfc9068: bool,
}

impl Shape {
    /// An Okta custom authorization server.
    #[must_use]
    pub fn okta() -> Self {
        Self {
            path: "/oauth2/aus4grantd".to_owned(),
            well_known: &["oauth-authorization-server", "openid-configuration"],
            keys_path: "/v1/keys",
            token_path: "/v1/token",
            audience: AUDIENCE.to_owned(),
            rfc9068: false,
        }
    }

    /// A provider that is not Okta: other paths, `openid-configuration` only, RFC 9068 tokens.
    #[must_use]
    pub fn generic(audience: &str) -> Self {
        Self {
            path: "/realms/agents".to_owned(),
            well_known: &["openid-configuration"],
            keys_path: "/protocol/certs",
            token_path: "/protocol/token",
            audience: audience.to_owned(),
            rfc9068: true,
        }
    }
}

/// An application at the issuer: who may ask for tokens, and what they say.
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// The key that its assertions are signed with.
    pub key: Arc<SigningKey>,
    /// Scopes that it may ask for.
    pub scopes: Vec<String>,
    /// Claims that its tokens carry besides the standard ones: `uid`, `groups`, `act`, another `sub`.
    pub claims: BTreeMap<String, Value>,
}

/// A running issuer. Dropping it stops it.
pub struct Issuer {
    origin: String,
    shape: Shape,
    shared: Shared,
    _runtime: NsRuntime,
}

impl Issuer {
    /// Starts one on loopback inside `netns`, with one signing key.
    ///
    /// # Errors
    /// When the port cannot be bound or the key cannot be made.
    pub fn start(netns: &Netns, shape: Shape) -> Result<Self> {
        let runtime = netns.runtime()?;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, address) = runtime.run(async move {
            let listener = TcpListener::bind(loopback).await?;
            let address = listener.local_addr()?;
            std::io::Result::Ok((listener, address))
        })??;
        let origin = format!("http://{address}");
        let shared =
            State::share(&origin, shape.clone(), SigningKey::rsa_of_deployment("okta-key-1")?);
        let router = routes::router(&shape, shared.clone());
        let _serving = runtime.spawn(async move { axum::serve(listener, router).await })?;
        Ok(Self { origin, shape, shared, _runtime: runtime })
    }

    /// The full issuer string: `issuer` in the daemon's config and `iss` of the tokens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.origin, self.shape.path)
    }

    /// The token endpoint.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}{}", self.url(), self.shape.token_path)
    }

    /// The audience of its tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.shape.audience
    }

    /// Makes an application known.
    pub fn register(&self, client: Client) {
        self.shared.lock().register(client);
    }

    /// Signs any claims with the current key, as the issuer itself would. For tokens that no honest
    /// flow yields.
    ///
    /// # Errors
    /// When signing fails.
    pub fn mint(&self, claims: &Value) -> Result<String> {
        self.shared.lock().mint(claims)
    }

    /// The claims that a token of this client would have now: to be changed and given to [`Self::mint`].
    ///
    /// # Errors
    /// When the client is not known.
    pub fn claims_for(&self, client_id: &str, scopes: &[&str]) -> Result<Value> {
        let state = self.shared.lock();
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        state.claims(client_id, &scopes).context("no such client at the issuer")
    }

    /// The key that signs now.
    #[must_use]
    pub fn signing_key(&self) -> Arc<SigningKey> {
        self.shared.lock().signing_key()
    }

    /// Adds a key and signs with it from now on; the older ones stay published.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn rotate(&self, kid: &str) -> Result<()> {
        self.shared.lock().rotate(SigningKey::rsa(kid)?);
        Ok(())
    }

    /// No longer publishes a key.
    pub fn withdraw_key(&self, kid: &str) {
        self.shared.lock().withdraw(kid);
    }

    /// Answers requests for keys with 503 from now on, or no longer.
    pub fn fail_keys(&self, fail: bool) {
        self.shared.lock().fail_keys = fail;
    }

    /// Lets every answer wait so long.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// How often the keys were asked for.
    #[must_use]
    pub fn key_requests(&self) -> u64 {
        self.shared.lock().key_requests
    }

    /// How many tokens were issued.
    #[must_use]
    pub fn tokens_issued(&self) -> u64 {
        self.shared.lock().tokens_issued
    }
}
