//! The far end of the attempts: gives back what it is sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::probe::WORD;

/// Callers at once. Others than the canary may call: only agents are kept away.
const CALLERS: usize = 64;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

/// A port of the loopback address that answers while it is asked to.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
    places: Arc<Semaphore>,
}

impl Listener {
    /// Takes a port that is free.
    ///
    /// # Errors
    /// There is none, or no loopback.
    pub(super) async fn open() -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, places: Arc::new(Semaphore::new(CALLERS)) })
    }

    /// Answers whoever calls. Returns only when it cannot go on.
    pub(super) async fn answer(&self) -> io::Error {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return io::Error::other("the canary's listener was closed");
            };
            match self.socket.accept().await {
                Ok((caller, _)) => {
                    tokio::spawn(async move {
                        // Whoever does not do as the canary does is of no interest.
                        let _ = timeout(PATIENCE, give_back(caller)).await;
                        drop(place);
                    });
                }
                // Of the caller's connection, or of descriptors that run out: neither is for good.
                Err(error) => {
                    tracing::debug!(%error, "a call of the canary's was not taken");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn give_back(mut caller: TcpStream) -> io::Result<()> {
    let mut word = [0; WORD.len()];
    caller.read_exact(&mut word).await?;
    caller.write_all(&word).await
}
