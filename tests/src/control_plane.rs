//! The stand-in control plane: signs grants and revocations and pushes them over mutual TLS.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::ca::Identity;
use crate::clock::{now, since};
use crate::grants::{Draft, Letterhead, Signed};
use crate::machine;
use crate::netns::{Netns, NsRuntime};
use crate::okta::AccessToken;

/// Longer than any honest answer takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the host answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; `null` where it was no JSON.
    pub body: Value,
    /// From the first byte of the request to the last of the answer.
    pub elapsed: Duration,
}

impl Answer {
    /// The reason code of a refusal (RFC 9457, member `reason`); empty otherwise.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.body.get("reason").and_then(Value::as_str).unwrap_or_default()
    }

    /// When the grant ends, milliseconds since 1970, as the host acknowledged it.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.body.get("deadline_unix_ms").and_then(Value::as_u64)
    }

    /// Checks that the grant was put in force just now.
    ///
    /// # Errors
    /// When it was not; the message holds the whole answer.
    pub fn in_force(self) -> Result<Self> {
        ensure!(self.status == 201, "a good grant was not put in force: {self:?}");
        Ok(self)
    }

    /// Checks that it was refused with this reason.
    ///
    /// # Errors
    /// When it was not; the message holds the whole answer.
    pub fn refused(self, reason: &str) -> Result<Self> {
        ensure!(
            self.status >= 400 && self.reason() == reason,
            "expected a refusal with reason {reason}, got {self:?}"
        );
        Ok(self)
    }
}

/// A TLS client that speaks to one host with one certificate. Clones share its connections.
#[derive(Clone)]
pub struct Pusher {
    http: reqwest::Client,
    base: String,
}

impl Pusher {
    /// A client for the host at `address`, trusting only `ca`, showing `identity` if there is one.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub fn new(address: SocketAddr, ca: &str, identity: Option<&Identity>) -> Result<Self> {
        let root = reqwest::Certificate::from_pem(ca.as_bytes())?;
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .timeout(machine::patience(PATIENCE))
            .tls_certs_only([root])
            .tls_version_min(reqwest::tls::Version::TLS_1_3);
        if let Some(identity) = identity {
            let pem = format!("{}{}", identity.certificate, identity.key);
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes())?);
        }
        let http = builder.build().context("building the control plane's client")?;
        Ok(Self { http, base: format!("https://{address}") })
    }

    /// Posts a body as JSON.
    ///
    /// # Errors
    /// When no answer comes: refused handshake, reset, timeout.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Answer> {
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        exchange(request).await.with_context(|| format!("POST {path}"))
    }

    /// Gets a resource.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        exchange(self.http.get(format!("{}{path}", self.base)))
            .await
            .with_context(|| format!("GET {path}"))
    }
}

async fn exchange(request: reqwest::RequestBuilder) -> Result<Answer> {
    let start = now();
    let response = request.send().await?;
    let status = response.status().as_u16();
    let bytes = response.bytes().await?;
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Ok(Answer { status, body, elapsed: since(start) })
}

/// The control plane of one deployment, in a namespace of its own.
pub struct ControlPlane {
    /// What it signs with.
    pub letterhead: Letterhead,
    pusher: Pusher,
    runtime: NsRuntime,
    seq: AtomicU64,
}

impl ControlPlane {
    /// Starts one inside `netns`.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn new(netns: &Netns, letterhead: Letterhead, pusher: Pusher) -> Result<Self> {
        Ok(Self { letterhead, pusher, runtime: netns.runtime()?, seq: AtomicU64::new(1) })
    }

    /// A grant for `workload` on the strength of `token`, to be given destinations.
    ///
    /// # Errors
    /// When the token is no JWT.
    pub fn draft(&self, workload: &str, token: &AccessToken) -> Result<Draft> {
        self.letterhead.draft(workload, token)
    }

    /// Signs a draft and pushes it.
    ///
    /// # Errors
    /// When no answer comes. A refusal is an answer.
    pub fn push(&self, draft: &Draft) -> Result<Answer> {
        self.push_signed(&draft.sign()?)
    }

    /// Pushes what was signed before.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn push_signed(&self, signed: &Signed) -> Result<Answer> {
        self.push_body(signed.body())
    }

    /// Pushes any bytes as a grant.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn push_body(&self, body: Vec<u8>) -> Result<Answer> {
        self.post_as(&self.pusher, "/v1/grants", body)
    }

    /// Revokes what `revoke` names, such as `[{"jti": "…"}]`.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn revoke(&self, revoke: &Value) -> Result<Answer> {
        let body = self.revocation_body(revoke)?;
        self.post_as(&self.pusher, "/v1/revocations", body)
    }

    /// The body that revokes what `revoke` names.
    ///
    /// # Errors
    /// When signing fails.
    pub fn revocation_body(&self, revoke: &Value) -> Result<Vec<u8>> {
        let seq = self.seq.fetch_add(1, Ordering::SeqCst);
        let jws = self.letterhead.revocation(seq, revoke)?;
        Ok(serde_json::json!({"revocation": jws}).to_string().into_bytes())
    }

    /// Posts as somebody else, from the control plane's namespace.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn post_as(&self, pusher: &Pusher, path: &'static str, body: Vec<u8>) -> Result<Answer> {
        let pusher = pusher.clone();
        self.runtime.run(async move { pusher.post(path, body).await })?
    }

    /// Gets a resource of the host.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let (pusher, path) = (self.pusher.clone(), path.to_owned());
        self.runtime.run(async move { pusher.get(&path).await })?
    }

    /// The client that it pushes with.
    #[must_use]
    pub fn pusher(&self) -> &Pusher {
        &self.pusher
    }

    /// Runs `task` inside the control plane's namespace, for measurements that must not pay for a
    /// change of thread at each step.
    ///
    /// # Errors
    /// When the task panics.
    pub fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.runtime.run(task)
    }
}
