//! One connection, from accept to close.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::Router;
use grantd_grant::PeerUris;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower_service::Service;

use super::limits::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_STREAMS};
use super::peer::uri_sans;
use super::places::HandshakePlace;
use super::serve::stopped;
use super::{Counters, Limits, Peer};

/// What a connection needs of its listener.
pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) tls: watch::Receiver<Arc<ServerConfig>>,
    pub(super) shutdown: watch::Receiver<bool>,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    /// Places of authenticated connections.
    pub(super) places: Arc<Semaphore>,
}

/// Handshake, then requests until the peer, a limit, a reload or the shutdown ends it.
pub(super) async fn run(
    mut connection: Connection,
    stream: TcpStream,
    address: SocketAddr,
    place: HandshakePlace,
) {
    let config = Arc::clone(&connection.tls.borrow_and_update());
    let Some(stream) = handshake(&connection, config, stream).await else { return };
    drop(place);
    let Ok(place) = Arc::clone(&connection.places).try_acquire_owned() else {
        return connection.counters.over_capacity();
    };
    connection.counters.accepted();
    let peer = Peer { uris: peer_uris(&stream), address };
    serve(connection, stream, peer).await;
    drop(place);
}

async fn handshake(
    connection: &Connection,
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true);
    let accepting = TlsAcceptor::from(config).accept(stream);
    match timeout(connection.limits.handshake, accepting).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            connection.counters.handshake_failed();
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            connection.counters.handshake_timed_out();
            None
        }
    }
}

fn peer_uris(stream: &TlsStream<TcpStream>) -> PeerUris {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    PeerUris::new(certificate.map(uri_sans).unwrap_or_default())
}

async fn serve(mut connection: Connection, stream: TlsStream<TcpStream>, peer: Peer) {
    let (in_hand, activity) = watch::channel(Activity::default());
    let in_hand = Arc::new(in_hand);
    let router = connection.router.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let guard = InHand::new(Arc::clone(&in_hand));
        request.extensions_mut().insert(peer.clone());
        let answer = router.clone().call(request);
        async move {
            let answer = answer.await;
            drop(guard);
            answer
        }
    });

    let limits = connection.limits;
    let builder = builder(&stream, limits);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        result = serving.as_mut() => return log_end(result),
        () = must_end(&mut connection, activity) => {}
    }
    serving.as_mut().graceful_shutdown();
    if let Ok(result) = timeout(limits.drain, serving).await {
        log_end(result);
    }
}

/// HTTP/1.1 or HTTP/2 as ALPN agreed: sniffing the version would be a wait without an end.
fn builder(stream: &TlsStream<TcpStream>, limits: Limits) -> auto::Builder<TokioExecutor> {
    let (_, session) = stream.get_ref();
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if session.alpn_protocol() == Some(b"h2") {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX));
    builder
}

/// Resolves when the connection has to go: too old, idle for too long, reloaded, shut down.
async fn must_end(connection: &mut Connection, activity: watch::Receiver<Activity>) {
    let limits = connection.limits;
    tokio::select! {
        () = sleep(limits.max_age) => {}
        () = idle(limits, activity) => {}
        _ = connection.tls.changed() => {}
        () = stopped(&mut connection.shutdown) => {}
    }
}

/// Resolves when no request was in hand for [`Limits::headers`] at first, or [`Limits::idle`] later.
async fn idle(limits: Limits, mut activity: watch::Receiver<Activity>) {
    loop {
        let now = *activity.borrow_and_update();
        let wait = if now.served { limits.idle } else { limits.headers };
        let changed = activity.changed();
        let ended: Pin<Box<dyn Future<Output = bool> + Send>> = if now.in_hand == 0 {
            Box::pin(async move { timeout(wait, changed).await.is_err() })
        } else {
            Box::pin(async move { changed.await.is_err() })
        };
        if ended.await {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    in_hand: usize,
    served: bool,
}

/// Counts one request for as long as it lives, also when its future is dropped.
struct InHand(Arc<watch::Sender<Activity>>);

impl InHand {
    fn new(activity: Arc<watch::Sender<Activity>>) -> Self {
        activity.send_modify(|now| {
            now.in_hand += 1;
            now.served = true;
        });
        Self(activity)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.send_modify(|now| now.in_hand -= 1);
    }
}

fn log_end<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
}
