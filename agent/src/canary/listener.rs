//! The far end of the attempts: gives back what it is sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::probe::WORD;

/// Callers at once. Others than the canary may call, and say nothing: only agents are kept away.
const CALLERS: usize = 256;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

/// A port of the loopback address that answers while it is asked to.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
}

/// Who called last, the oldest first. One more ends the oldest: whoever came long ago and is still there has not
/// done as the canary does, and must not keep it out.
#[derive(Default)]
struct Callers(VecDeque<AbortHandle>);

impl Callers {
    fn answer(&mut self, caller: TcpStream) {
        self.0.retain(|earlier| !earlier.is_finished());
        if self.0.len() >= CALLERS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        let answered = tokio::spawn(async move {
            // Whoever does not do as the canary does is of no interest.
            let _ = timeout(PATIENCE, give_back(caller)).await;
        });
        self.0.push_back(answered.abort_handle());
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Listener {
    /// Takes a port that is free.
    ///
    /// # Errors
    /// There is none, or no loopback.
    pub(super) async fn open() -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Answers whoever calls, until it is dropped.
    pub(super) async fn answer(&self) -> Infallible {
        let mut callers = Callers::default();
        loop {
            match self.socket.accept().await {
                Ok((caller, _)) => callers.answer(caller),
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
