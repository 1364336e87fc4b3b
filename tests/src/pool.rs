//! A confined process with many sockets, each by a name, that does with them what a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::clock::{now, since, unix_micros};
use crate::workload::{Running, Workload};

/// Longer than any command takes that is not told to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the process reports of one command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Did {
    /// It worked.
    pub ok: bool,
    /// Bytes written or read, or sockets opened.
    pub count: u64,
    /// The error's name; `EOF` where the peer closed.
    pub error: Option<String>,
    /// When it was done, microseconds since 1970.
    pub at_us: u64,
    /// A new socket's own address.
    pub local: Option<SocketAddr>,
    /// Which sockets have ended.
    pub ends: BTreeMap<String, Ended>,
}

/// How a socket ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// When it was seen, microseconds since 1970.
    pub at_us: u64,
    /// The error's name; `UnknownErrno` where there is none.
    pub error: String,
}

/// The process. Dropping it kills it.
#[derive(Debug)]
pub struct Pool {
    running: Running,
}

impl Pool {
    /// Starts one as the workload.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(workload: &Workload) -> Result<Self> {
        Ok(Self { running: workload.start(&["pool"])? })
    }

    /// Does what a line says, as `probe pool` explains.
    ///
    /// # Errors
    /// When the process is gone. What failed is a result.
    pub fn tell(&mut self, line: &str) -> Result<Did> {
        self.running.tell(line)?;
        self.running.next(PATIENCE).with_context(|| line.to_owned())
    }

    /// The same where it has to work.
    ///
    /// # Errors
    /// When it does not.
    pub fn must(&mut self, line: &str) -> Result<Did> {
        let done = self.tell(line)?;
        ensure!(done.ok, "`{line}` should work, and does not: {done:?}");
        Ok(done)
    }

    /// Connects; gives this side's address.
    ///
    /// # Errors
    /// When it does not stand.
    pub fn open(&mut self, who: &str, protocol: &str, to: SocketAddr) -> Result<SocketAddr> {
        let done = self.must(&format!("open {who} {protocol} {to}"))?;
        done.local.with_context(|| format!("{who} has no address"))
    }

    /// Begins to wait until all its sockets have ended; [`Self::ended`] takes the answer.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn watch(&mut self, patience: Duration) -> Result<()> {
        self.running.tell(&format!("ends {}", patience.as_millis()))
    }

    /// Which of its sockets have ended.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ended(&mut self) -> Result<BTreeMap<String, Ended>> {
        Ok(self.running.next::<Did>(PATIENCE)?.ends)
    }

    /// Which of its sockets have ended by now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn ended_by_now(&mut self) -> Result<BTreeMap<String, Ended>> {
        Ok(self.tell("ends 1")?.ends)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// Waits until each of these sockets has ended, at most so long: by an error, or closed on both sides.
///
/// # Errors
/// When they cannot be waited for.
pub fn wait_for_ends(sockets: &[BorrowedFd<'_>], patience: Duration) -> Result<Vec<Option<Ended>>> {
    let started = now();
    let mut ends: Vec<Option<Ended>> = vec![None; sockets.len()];
    let mut waiting: Vec<usize> = (0..sockets.len()).collect();
    loop {
        let left = patience.saturating_sub(since(started));
        let mut fds: Vec<PollFd<'_>> = waiting
            .iter()
            .filter_map(|index| sockets.get(*index))
            .map(|fd| PollFd::new(*fd, PollFlags::empty()))
            .collect();
        poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO))?;
        let at_us = unix_micros();
        let mut over = fds.iter().map(|fd| fd.revents().is_some_and(|seen| !seen.is_empty()));
        waiting.retain(|index| {
            let ended = over.next().unwrap_or(false);
            if let (true, Some(fd), Some(end)) = (ended, sockets.get(*index), ends.get_mut(*index))
            {
                let code = getsockopt(fd, sockopt::SocketError).unwrap_or_default();
                let error = error_name(&std::io::Error::from_raw_os_error(code));
                *end = Some(Ended { at_us, error });
            }
            !ended
        });
        if waiting.is_empty() || left.is_zero() {
            return Ok(ends);
        }
    }
}

/// The error's name as programmers know it.
#[must_use]
pub fn error_name(error: &std::io::Error) -> String {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => format!("{:?}", Errno::from_raw(number)),
        (None, ErrorKind::TimedOut | ErrorKind::WouldBlock) => "TIMEOUT".to_owned(),
        (None, _) => error.to_string(),
    }
}

/// Checks that exactly these of the pool's sockets are over by now.
///
/// # Errors
/// Others are.
pub fn only_ended(what: &str, pool: &mut Pool, expected: &[&str]) -> Result<()> {
    let ended: BTreeSet<String> = pool.ended_by_now()?.into_keys().collect();
    let expected: BTreeSet<String> = expected.iter().map(|who| (*who).to_owned()).collect();
    ensure!(ended == expected, "{what}: {ended:?} were cut, and it should be {expected:?}");
    Ok(())
}
