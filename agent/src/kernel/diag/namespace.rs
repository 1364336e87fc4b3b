//! Network namespaces: whose they are, and a way to talk to each.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::super::sys;

/// Room for the answers to a whole batch of requests.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long one answer of the kernel's is waited for, seconds: it answers at once, or has lost it.
const PATIENCE_S: i64 = 2;
/// Cgroups below a workload's that are looked into; one that makes more hides the rest only from the
/// search for namespaces.
const MOST_CGROUPS: usize = 4096;

/// Tells namespaces apart while they exist: the inode of their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(u64);

impl NamespaceId {
    /// The namespace of a task.
    ///
    /// # Errors
    /// The task is gone, or may not be looked at.
    pub fn of_task(tid: u32) -> io::Result<Self> {
        fs::metadata(path_of(tid)).map(|m| Self(m.ino()))
    }
}

fn path_of(tid: u32) -> String {
    format!("/proc/{tid}/ns/net")
}

/// A network namespace that can be asked for its sockets. It exists for as long as this does.
#[derive(Debug)]
pub struct Namespace {
    id: NamespaceId,
    cookie: u64,
    socket: OwnedFd,
    sequence: Cell<u32>,
}

impl Namespace {
    /// The one of the calling thread.
    ///
    /// # Errors
    /// No netlink socket can be made.
    pub fn own() -> io::Result<Self> {
        let id = NamespaceId(fs::metadata("/proc/thread-self/ns/net")?.ino());
        Self::here(id)
    }

    /// The one of a task, now. Needs `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`.
    ///
    /// # Errors
    /// The task is gone, or the namespace may not be entered.
    pub fn of_task(tid: u32) -> io::Result<Self> {
        let file = File::open(path_of(tid))?;
        let id = NamespaceId(file.metadata()?.ino());
        // A thread of its own, so that nothing else of the daemon ever runs in there.
        let inside = move || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Self::here(id)
        };
        let thread = std::thread::Builder::new().name("enter-netns".to_owned()).spawn(inside)?;
        thread.join().map_err(|_| io::Error::other("entering a namespace panicked"))?
    }

    fn here(id: NamespaceId) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
        let cookie = sys::netns_cookie(&socket)?;
        Ok(Self { id, cookie, socket, sequence: Cell::new(0) })
    }

    /// Which one it is.
    #[must_use]
    pub const fn id(&self) -> NamespaceId {
        self.id
    }

    /// Its cookie, as kernel events carry it (`SO_NETNS_COOKIE`).
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Numbers for so many requests; gives the first.
    pub(super) fn next_sequence(&self, count: u32) -> u32 {
        let last = self.sequence.get();
        let first = if last > u32::MAX / 2 { 1 } else { last + 1 };
        self.sequence.set(first.saturating_add(count));
        first
    }

    pub(super) fn send(&self, request: &[u8]) -> io::Result<()> {
        let sent = send(self.socket.as_raw_fd(), request, MsgFlags::empty())?;
        if sent == request.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty())?;
        buffer.get(..length).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Every thread in a cgroup and those below it: each may have a network namespace of its own. Cgroups
/// that vanish meanwhile have none.
#[must_use]
pub fn tasks_below(cgroup: &Path) -> Vec<u32> {
    let mut tasks = Vec::new();
    let mut left: Vec<PathBuf> = vec![cgroup.to_owned()];
    let mut seen = 0;
    while let Some(directory) = left.pop() {
        seen += 1;
        let listed = fs::read_to_string(directory.join("cgroup.threads")).unwrap_or_default();
        tasks.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let below = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        left.extend(below.map(|e| e.path()).take(MOST_CGROUPS.saturating_sub(seen + left.len())));
    }
    tasks
}
