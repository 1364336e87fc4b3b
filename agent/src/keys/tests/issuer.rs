//! A scripted issuer on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use grantd_grant::ids::Issuer as IssuerId;
use serde_json::json;
use tokio::net::TcpListener;

use super::jwks;
use crate::config::OktaConfig;

pub(super) const OAUTH: &str = "/oauth2/aus1/.well-known/oauth-authorization-server";
pub(super) const OPENID: &str = "/oauth2/aus1/.well-known/openid-configuration";
pub(super) const KEYS: &str = "/oauth2/aus1/v1/keys";

/// What the issuer answers to one path.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) delay: Duration,
}

impl Reply {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), delay: Duration::ZERO }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }
}

#[derive(Debug, Default)]
struct Script {
    replies: BTreeMap<String, Reply>,
    asked: Vec<String>,
}

/// The issuer. Paths without a reply answer 404. It ends with the test's runtime.
#[derive(Clone)]
pub(super) struct FakeIssuer {
    script: Arc<Mutex<Script>>,
    pub(super) address: SocketAddr,
}

impl FakeIssuer {
    /// An issuer that does everything right and publishes keys with these ids.
    pub(super) async fn start(kids: &[&str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let address = listener.local_addr().expect("address");
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let issuer = Self { script, address };
        issuer.set(OAUTH, Reply::ok(issuer.metadata(&issuer.url(""), &issuer.url("/v1/keys"))));
        issuer.publish(kids);
        issuer
    }

    /// The same issuer, if it were at another address.
    pub(super) fn seen_at(&self, address: SocketAddr) -> Self {
        Self { script: Arc::clone(&self.script), address }
    }

    /// The issuer's identifier, and what is below it.
    pub(super) fn url(&self, below: &str) -> String {
        format!("http://{}/oauth2/aus1{below}", self.address)
    }

    pub(super) fn metadata(&self, issuer: &str, jwks_uri: &str) -> String {
        json!({ "issuer": issuer, "jwks_uri": jwks_uri, "token_endpoint": "x" }).to_string()
    }

    pub(super) fn set(&self, path: &str, reply: Reply) {
        self.script.lock().expect("lock").replies.insert(path.to_owned(), reply);
    }

    pub(super) fn publish(&self, kids: &[&str]) {
        self.set(KEYS, Reply::ok(jwks(kids)));
    }

    /// Requests since the last call.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().expect("lock").asked)
    }

    pub(super) fn config(&self) -> OktaConfig {
        OktaConfig {
            issuer: IssuerId::new(self.url("")).expect("issuer"),
            jwks_uri: None,
            ca: None,
            proxy: None,
            staleness: Duration::from_secs(86_400),
            development_http: true,
        }
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let reply = {
        let mut script = script.lock().expect("lock");
        let reply = script.replies.get(&path).cloned().unwrap_or(Reply::status(404));
        script.asked.push(path);
        reply
    };
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).expect("response")
}
