//! The running parts.

use std::net::SocketAddr;
use std::sync::Arc;

use grantd_audit::Writer;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::control::Shared;
use super::error::Error;
use crate::clock::Clock;

/// Name of a part, whether it ends by itself when told to stop, and how it ended.
pub(super) type Ended = (&'static str, Result<(), String>);

/// Everything that runs, and what it takes to stop it.
pub(super) struct Live {
    pub(super) shared: Arc<Shared>,
    pub(super) parts: JoinSet<Ended>,
    pub(super) stop_intake: watch::Sender<bool>,
    pub(super) stop_events: watch::Sender<bool>,
    pub(super) writer: Writer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) adopted: bool,
    pub(super) restored: u64,
    pub(super) listen: SocketAddr,
}

/// Parts that end by themselves once told to.
const FINITE: [&str; 3] = ["the push listener", "the denials ring", "the flows ring"];

/// Waits for the parts that end by themselves.
pub(super) async fn join_finite(parts: &mut JoinSet<Ended>) {
    let mut left = FINITE.len();
    while left > 0 {
        match parts.join_next().await {
            Some(Ok((part, _))) if FINITE.contains(&part) => left -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

/// No part may end while the daemon runs.
pub(super) fn describe(ended: Option<Result<Ended, JoinError>>) -> Error {
    match ended {
        Some(Ok((part, Ok(())))) => Error::Ended { part, problem: "without a reason".to_owned() },
        Some(Ok((part, Err(problem)))) => Error::Ended { part, problem },
        Some(Err(error)) => {
            Error::Ended { part: "a part of the daemon", problem: error.to_string() }
        }
        None => Error::Ended { part: "the daemon", problem: "nothing runs".to_owned() },
    }
}
