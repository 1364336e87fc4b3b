//! The accept loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::{self, Connection};
use super::places::{HandshakePlaces, NoPlace};
use super::routes::{Shared, router};
use super::{Admission, Counters, Limits};

/// Pause after `accept(2)` itself failed: without one, exhausted descriptors become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All that the listener is made of.
pub struct Listener {
    /// A bound socket.
    pub socket: TcpListener,
    /// The TLS configuration for new connections. When it changes, open connections finish what
    /// they have in hand and end, so that nobody stays in on a certificate since revoked.
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    /// Who decides.
    pub admission: Arc<dyn Admission>,
    /// Bounds.
    pub limits: Limits,
    /// Counts, shared with whoever reports them.
    pub counters: Arc<Counters>,
}

/// Serves until `shutdown` turns true or its sender is gone; then takes no connection more, gives
/// requests in hand [`Limits::drain`] to finish, and returns.
pub async fn serve(listener: Listener, mut shutdown: watch::Receiver<bool>) {
    let Listener { socket, tls, admission, limits, counters } = listener;
    let requests = Arc::new(Semaphore::new(limits.max_requests));
    let server = Server {
        router: router(Shared {
            admission,
            counters: Arc::clone(&counters),
            requests: Arc::clone(&requests),
            body_limit: limits.body,
        }),
        handshakes: HandshakePlaces::new(limits),
        places: Arc::new(Semaphore::new(limits.max_connections)),
        tls,
        shutdown: shutdown.clone(),
        limits,
        counters,
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            accepted = socket.accept() => match accepted {
                Ok((stream, address)) => server.take(stream, address, &mut connections),
                Err(error) => {
                    server.counters.accept_failed();
                    tracing::debug!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(socket);
    drain(connections, &requests, limits).await;
}

/// Resolves when the daemon stops, or nobody is left who could say so.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

struct Server {
    router: Router,
    handshakes: Arc<HandshakePlaces>,
    places: Arc<Semaphore>,
    tls: watch::Receiver<Arc<ServerConfig>>,
    shutdown: watch::Receiver<bool>,
    limits: Limits,
    counters: Arc<Counters>,
}

impl Server {
    fn take(&self, stream: TcpStream, address: SocketAddr, connections: &mut JoinSet<()>) {
        let place = match self.handshakes.take(address.ip()) {
            Ok(place) => place,
            Err(NoPlace::Full) => return self.counters.handshakes_over_capacity(),
            Err(NoPlace::SourceFull) => return self.counters.source_over_capacity(),
        };
        let connection = Connection {
            router: self.router.clone(),
            tls: self.tls.clone(),
            shutdown: self.shutdown.clone(),
            limits: self.limits,
            counters: Arc::clone(&self.counters),
            places: Arc::clone(&self.places),
        };
        connections.spawn(connection::run(connection, stream, address, place));
    }
}

/// Waits for connections, then for decisions whose peer has hung up.
async fn drain(mut connections: JoinSet<()>, requests: &Semaphore, limits: Limits) {
    let all = u32::try_from(limits.max_requests).unwrap_or(u32::MAX);
    let finished = timeout(limits.drain, async {
        while connections.join_next().await.is_some() {}
        let _ = requests.acquire_many(all).await;
    });
    if finished.await.is_err() {
        connections.shutdown().await;
    }
}
