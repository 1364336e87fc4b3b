//! The far side of the proof: a process that does what each hook of the guard refuses, and says how it went.

use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;

use nix::cmsg_space;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recv, recvmsg,
    send, socket,
};

/// The IP socket that the daemon made and connected.
const FOREIGN: RawFd = 0;
/// The end of a pair of local sockets, in which a message with another such descriptor waits.
const HANDED: RawFd = 2;

/// Tries everything, inside `cgroup` if there is one, and prints a line for each hook. `target` is a process
/// outside; `name` that of its abstract sockets.
///
/// # Errors
/// The cgroup cannot be entered, or nothing can be printed.
pub fn run(cgroup: Option<&Path>, target: u32, name: &str) -> io::Result<()> {
    if let Some(cgroup) = cgroup {
        std::fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    let stream = SocketAddr::from_abstract_name(format!("{name}-stream"))?;
    let datagram = SocketAddr::from_abstract_name(format!("{name}-datagram"))?;
    // A user namespace changes what else is allowed, so it comes last; a socket is disconnected after use.
    let results = [
        ("socket_create", create()),
        ("socket_sendmsg", send(FOREIGN, b"x", MsgFlags::MSG_DONTWAIT).map(drop).map_err(into)),
        ("file_permission", splice()),
        ("socket_recvmsg", receive()),
        ("socket_connect", disconnect()),
        ("file_receive", take()),
        ("unix_stream_connect", UnixStream::connect_addr(&stream).map(drop)),
        (
            "unix_may_send",
            UnixDatagram::unbound().and_then(|s| s.send_to_addr(b"x", &datagram)).map(drop),
        ),
        ("ptrace_access_check", std::fs::read_link(format!("/proc/{target}/exe")).map(drop)),
        ("bpf", super::try_bpf()),
        ("userns_create", unshare(CloneFlags::CLONE_NEWUSER).map_err(into)),
    ];
    let mut out = io::stdout().lock();
    for (hook, result) in results {
        let word = match result {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => "denied",
            Ok(()) | Err(_) => "allowed",
        };
        writeln!(out, "{hook} {word}")?;
    }
    out.flush()
}

/// Stands still, to be looked into, until its standard input ends.
///
/// # Errors
/// It cannot be read.
pub fn wait() -> io::Result<()> {
    io::stdin().lock().read_to_end(&mut Vec::new()).map(drop)
}

fn into(error: nix::Error) -> io::Error {
    error.into()
}

/// A kind of netlink that no agent needs. Other families the daemon's unit refuses to itself.
fn create() -> io::Result<()> {
    let generic = SockProtocol::NetlinkGeneric;
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, generic)
        .map(drop)
        .map_err(into)
}

/// Sends without `sendmsg`.
fn splice() -> io::Result<()> {
    let (from, mut into) = io::pipe()?;
    into.write_all(b"x")?;
    let nowhere = std::ptr::null_mut();
    // SAFETY: both descriptors are open, and no offsets are given.
    let result = unsafe {
        libc::splice(from.as_raw_fd(), nowhere, FOREIGN, nowhere, 1, libc::SPLICE_F_NONBLOCK)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn receive() -> io::Result<()> {
    recv(FOREIGN, &mut [0; 8], MsgFlags::MSG_DONTWAIT).map(drop).map_err(into)
}

/// The one use of `connect` that no hook of a cgroup sees.
fn disconnect() -> io::Result<()> {
    let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).map_err(io::Error::other)?;
    // SAFETY: the address is live and as long as stated (AF_UNSPEC is 0).
    let result = unsafe { libc::connect(FOREIGN, &raw const nowhere, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the descriptor that waits: one that is refused is missing from the message.
fn take() -> io::Result<()> {
    let mut byte = [0; 1];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let message = recvmsg::<()>(HANDED, &mut bytes, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut taken = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: descriptors that the kernel just gave to us alone.
            taken.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    match taken.first().map(|fd| fd.as_raw_fd()) {
        Some(_) => Ok(()),
        None => Err(io::ErrorKind::PermissionDenied.into()),
    }
}
