//! Whether the guard takes effect: the same tried by a confined process and by one that is not.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read as _};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::super::place::Place;

/// The cgroup of the process that tries, below the slice.
pub(in crate::kernel) const PLACE: &str = "grantd-guard-probe";
/// The program that tries is this one.
const SELF: &str = "/proc/self/exe";
/// The word that tells it to; see `grantd guard-probe`.
const WORD: &str = "guard-probe";
/// How long it may take, on a machine that is emulated.
const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(5);

/// Why a hook's effect was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Unseen {
    /// A confined task was let through.
    Allowed,
    /// It could not be tried.
    Untried(String),
}

/// What was seen, by the hook's name in the kernel.
#[derive(Clone, Debug)]
pub(in crate::kernel) struct Proof(Result<BTreeMap<String, Unseen>, Unseen>);

impl Proof {
    /// One that did not come about.
    pub(in crate::kernel) fn untried(why: &dyn std::error::Error) -> Self {
        let why = crate::text::chain(why);
        Self(Err(Unseen::Untried(format!("attached, and its effect could not be tried: {why}"))))
    }

    /// Whether this hook was seen to refuse.
    pub(super) fn of(&self, lsm: &str) -> Result<(), &Unseen> {
        match &self.0 {
            Ok(unseen) => unseen.get(lsm).map_or(Ok(()), Err),
            Err(untried) => Err(untried),
        }
    }
}

/// Tries every hook, from `place` and from outside.
pub(in crate::kernel) fn prove(place: &Place) -> Proof {
    match try_all(place) {
        Ok(seen) => Proof(Ok(seen)),
        Err(error) => Proof::untried(&error),
    }
}

fn try_all(place: &Place) -> io::Result<BTreeMap<String, Unseen>> {
    let waiting = Waiting(
        Command::new(SELF)
            .args([WORD, "--wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?,
    );
    let outside = attempt(None, waiting.0.id())?;
    let confined = attempt(Some(place.path()), waiting.0.id())?;
    let mut unseen = BTreeMap::new();
    for (hook, word) in outside {
        if word != "allowed" {
            let why = "attached; its effect cannot be tried, because this host refuses the same to anybody";
            unseen.insert(hook, Unseen::Untried(why.to_owned()));
        } else if confined.get(&hook).is_none_or(|word| word != "denied") {
            unseen.insert(hook, Unseen::Allowed);
        }
    }
    Ok(unseen)
}

/// A process that is there to be looked into.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        // It ends with its input; what it says then does not matter.
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

fn attempt(cgroup: Option<&Path>, target: u32) -> io::Result<BTreeMap<String, String>> {
    let listener = UdpSocket::bind(("127.0.0.1", 0))?;
    let foreign = UdpSocket::bind(("127.0.0.1", 0))?;
    foreign.connect(listener.local_addr()?)?;
    let (handing, handed) = UnixStream::pair()?;
    let descriptors = [foreign.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(handing.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None)?;
    let name = format!("grantd-guard-{target}-{}", u8::from(cgroup.is_some()));
    let address = |kind: &str| SocketAddr::from_abstract_name(format!("{name}-{kind}"));
    let _stream = UnixListener::bind_addr(&address("stream")?)?;
    let _datagram = UnixDatagram::bind_addr(&address("datagram")?)?;

    let cgroup = cgroup.map_or_else(|| PathBuf::from("-"), Path::to_path_buf);
    let mut child = Command::new(SELF)
        .arg(WORD)
        .arg(cgroup)
        .args([target.to_string(), name])
        .stdin(OwnedFd::from(foreign))
        .stdout(Stdio::piped())
        .stderr(OwnedFd::from(handed))
        .spawn()?;
    let ended = wait_for(&mut child)?;
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut said)?;
    }
    if !ended.success() {
        return Err(io::Error::other(format!("the process that tries ended with {ended}")));
    }
    let words = said.lines().filter_map(|line| line.split_once(' '));
    Ok(words.map(|(hook, word)| (hook.to_owned(), word.to_owned())).collect())
}

fn wait_for(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    let mut left = PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        left = left.saturating_sub(STEP);
        if left.is_zero() {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it hung, and was killed"));
        }
        std::thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_confined_process_was_refused_and_another_was_not_counts_as_seen() {
        let allowed = BTreeMap::from([("bpf".to_owned(), Unseen::Allowed)]);
        let proof = Proof(Ok(allowed));
        assert_eq!(proof.of("bpf"), Err(&Unseen::Allowed));
        assert_eq!(proof.of("socket_create"), Ok(()));
        let untried = Proof(Err(Unseen::Untried("no program".to_owned())));
        assert!(untried.of("socket_create").is_err());
    }
}
