//! The agent's side of the issuer: logging in with `private_key_jwt`.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clock::unix_now;
use crate::issuer::{Client, Issuer};
use crate::jose::{self, SigningKey};
use crate::netns::{Netns, NsRuntime};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An access token. It does not print.
#[derive(Clone)]
pub struct AccessToken(String);

impl AccessToken {
    /// Takes a token's text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The token's text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// An agent with an application of its own at the issuer.
pub struct Agent {
    /// `client_id`.
    pub client_id: String,
    key: Arc<SigningKey>,
    token_endpoint: String,
    http: reqwest::Client,
    runtime: NsRuntime,
}

impl Agent {
    /// Registers an application that may ask for `scopes` and whose tokens carry `claims` besides
    /// the standard ones, and speaks for it from inside `netns`.
    ///
    /// # Errors
    /// When a key or the HTTP client cannot be made.
    pub fn register(
        issuer: &Issuer,
        netns: &Netns,
        client_id: &str,
        scopes: &[&str],
        claims: &[(&str, Value)],
    ) -> Result<Self> {
        let key = Arc::new(SigningKey::rsa_of_deployment(&format!("{client_id}-key"))?);
        issuer.register(Client {
            id: client_id.to_owned(),
            key: Arc::clone(&key),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            claims: claims
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        });
        Ok(Self {
            client_id: client_id.to_owned(),
            key,
            token_endpoint: issuer.token_endpoint(),
            http: reqwest::Client::builder().no_proxy().build().context("an HTTP client")?,
            runtime: netns.runtime()?,
        })
    }

    /// Asks for an access token with `scopes`.
    ///
    /// # Errors
    /// When the issuer refuses or cannot be reached.
    pub fn log_in(&self, scopes: &[&str]) -> Result<AccessToken> {
        let (status, body) = self.ask(&self.assertion()?, &scopes.join(" "))?;
        ensure!(status == 200, "the issuer answered {status}: {body}");
        let token = body.get("access_token").and_then(Value::as_str);
        Ok(AccessToken::new(token.context("an answer without a token")?.to_owned()))
    }

    /// A client assertion (RFC 7523), good for one use.
    ///
    /// # Errors
    /// When signing fails.
    pub fn assertion(&self) -> Result<String> {
        let now = unix_now();
        self.key.sign(
            "JWT",
            &json!({
                "iss": self.client_id, "sub": self.client_id, "aud": self.token_endpoint,
                "iat": now, "exp": now + 60, "jti": jose::fresh_id(""),
            }),
        )
    }

    /// Sends a token request with any assertion; gives the status and the body.
    ///
    /// # Errors
    /// When the issuer cannot be reached.
    pub fn ask(&self, assertion: &str, scope: &str) -> Result<(u16, Value)> {
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", scope),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion),
        ];
        let request = self.http.post(&self.token_endpoint).form(&form);
        self.runtime.run(async move {
            let response = request.send().await.context("asking the issuer for a token")?;
            let status = response.status().as_u16();
            Ok((status, response.json().await.context("the issuer's answer")?))
        })?
    }
}
