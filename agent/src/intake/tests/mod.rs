//! The listener as peers, strangers and attackers meet it.

mod admission;
mod client;
mod http;
mod patience;
mod pki;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::admission::FakeAdmission;
use self::client::{Answer, Connection};
use self::pki::{FakeClock, Pki};
use super::{Counters, Limits, Listener, serve};

/// The one peer that the fake admission allows.
pub(super) const ALLOWED: &str = "spiffe://example.org/control-plane";
/// The identity of the host under test.
pub(super) const HOST: &str = "spiffe://example.org/host/build-7";

/// A running listener.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) pki: Pki,
    pub(super) clock: Arc<FakeClock>,
    pub(super) admission: Arc<FakeAdmission>,
    pub(super) counters: Arc<Counters>,
    pub(super) tls: watch::Sender<Arc<rustls::ServerConfig>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(Limits::default(), |_| None).await
    }

    /// A listener with these limits, and the revocation list that `crl` makes.
    pub(super) async fn with(limits: Limits, crl: impl FnOnce(&Pki) -> Option<Vec<u8>>) -> Self {
        let pki = Pki::new();
        let clock = Arc::new(FakeClock::default());
        let material = pki.material(crl(&pki));
        let config = material.server_config(HOST, clock.clone()).expect("server config");
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let address = socket.local_addr().expect("address");
        let admission = Arc::new(FakeAdmission::default());
        let counters = Arc::new(Counters::default());
        let (tls, tls_reader) = watch::channel(config);
        let (stop, stop_reader) = watch::channel(false);
        let listener = Listener {
            socket,
            tls: tls_reader,
            admission: admission.clone(),
            limits,
            counters: Arc::clone(&counters),
        };
        let task = tokio::spawn(serve(listener, stop_reader));
        Self { address, pki, clock, admission, counters, tls, stop, task }
    }

    /// A connection of the allowed peer.
    pub(super) async fn connect(&self) -> Connection {
        self.connect_as(&[ALLOWED]).await
    }

    pub(super) async fn connect_as(&self, uris: &[&str]) -> Connection {
        let identity = self.pki.client(uris, 100);
        let config = self.pki.client_config(Some(identity));
        Connection::open(self.address, config).await.expect("connected")
    }

    /// One request of the allowed peer on a connection of its own.
    pub(super) async fn ask(&self, request: &str) -> Answer {
        self.connect().await.ask(request).await
    }
}

/// Limits so short that a test of them takes a moment, and long enough for a busy machine.
pub(super) fn impatient() -> Limits {
    let moment = Duration::from_secs(1);
    Limits { headers: moment, body: moment, idle: moment, drain: moment, ..Limits::default() }
}

pub(super) fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")
}
