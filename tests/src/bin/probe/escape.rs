//! Ways past the hooks of IP sockets. Run as a workload each is expected to fail, run outside to succeed;
//! the report says what the system answered.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use aya::maps::MapData;
use clap::{Args, Subcommand};
use grantd_e2e::probe::Attack;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, sendmsg,
    socket,
};

use crate::attack::tried;

/// What to try.
#[derive(Subcommand)]
pub(crate) enum Way {
    /// Make a socket of each family that no agent needs.
    Families,
    /// Talk to local sockets: paths, or abstract names behind @; a path behind `datagram:` by a datagram.
    Local { sockets: Vec<String> },
    /// Talk to local sockets of this process' own, by path, abstract name, datagram and pair.
    OwnLocal { directory: PathBuf },
    /// Look into a process: its program, its memory, its descriptors.
    Look { pid: u32 },
    /// The same with a child of its own.
    LookAtChild,
    /// Open a pinned map.
    Bpf { pin: PathBuf },
    /// Make a user namespace.
    Namespace,
    /// Connect, then enter the cgroup, and go on with what was connected.
    Late(Late),
}

#[derive(Args)]
pub(crate) struct Late {
    cgroup: PathBuf,
    tcp: std::net::SocketAddr,
    udp: std::net::SocketAddr,
}

pub(crate) fn run(way: &Way) -> Result<Vec<Attack>> {
    match way {
        Way::Families => Ok(families()),
        Way::Local { sockets } => Ok(sockets.iter().map(|name| tried(name, talk(name))).collect()),
        Way::OwnLocal { directory } => own_local(directory),
        Way::Look { pid } => Ok(look(*pid)),
        Way::LookAtChild => look_at_child(),
        Way::Bpf { pin } => Ok(vec![tried("open a pinned map", MapData::from_pin(pin).map(drop))]),
        Way::Namespace => {
            Ok(vec![tried("make a user namespace", unshare(CloneFlags::CLONE_NEWUSER))])
        }
        Way::Late(late) => late.run(),
    }
}

fn families() -> Vec<Attack> {
    let raw = |what: &str, family, kind, protocol: Option<SockProtocol>| {
        let made = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol);
        tried(what, made.map(drop).map_err(name))
    };
    let mut attacks = vec![
        raw("AF_PACKET", AddressFamily::Packet, SockType::Raw, None),
        raw("AF_VSOCK", AddressFamily::Vsock, SockType::Stream, None),
        raw("AF_ALG", AddressFamily::Alg, SockType::SeqPacket, None),
        raw("AF_TIPC", AddressFamily::Tipc, SockType::Datagram, None),
        raw("AF_RDS", AddressFamily::Rds, SockType::SeqPacket, None),
        raw("AF_CAN", AddressFamily::Can, SockType::Raw, None),
        raw("AF_BLUETOOTH", AddressFamily::Bluetooth, SockType::Raw, None),
    ];
    let generic = Some(SockProtocol::NetlinkGeneric);
    attacks.push(raw("AF_NETLINK generic", AddressFamily::Netlink, SockType::Raw, generic));
    attacks
}

/// One end of a local socket: with whom it talks stands in its name.
fn talk(to: &str) -> Result<(), String> {
    let done = if let Some(path) = to.strip_prefix("datagram:") {
        UnixDatagram::unbound().and_then(|s| s.send_to(b"x", path)).map(drop)
    } else if let Some(abstract_name) = to.strip_prefix('@') {
        SocketAddr::from_abstract_name(abstract_name)
            .and_then(|address| UnixStream::connect_addr(&address))
            .map(drop)
    } else {
        UnixStream::connect(to).map(drop)
    };
    done.map_err(io_name)
}

fn own_local(directory: &Path) -> Result<Vec<Attack>> {
    let (stream, datagram) = (directory.join("own-stream"), directory.join("own-datagram"));
    for path in [&stream, &datagram] {
        drop(fs::remove_file(path));
    }
    let _stream = UnixListener::bind(&stream).context("listening")?;
    let _datagram = UnixDatagram::bind(&datagram).context("binding")?;
    let abstract_name = format!("grantd-own-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?;
    let pair = UnixStream::pair().and_then(|(mut a, mut b)| {
        a.write_all(b"x")?;
        b.read_exact(&mut [0; 1])
    });
    let handed = UnixStream::pair().map_err(io_name).and_then(|(a, b)| {
        let file = UdpSocket::bind("127.0.0.1:0").map_err(io_name)?;
        hand_over(&a, &b, file.as_raw_fd())
    });
    Ok(vec![
        tried("an own stream", talk(&stream.display().to_string())),
        tried("an own datagram", talk(&format!("datagram:{}", datagram.display()))),
        tried("an own abstract name", talk(&format!("@{abstract_name}"))),
        tried("a pair", pair),
        tried("hand over an own socket", handed),
    ])
}

fn look(pid: u32) -> Vec<Attack> {
    let of = |what: &str| PathBuf::from(format!("/proc/{pid}/{what}"));
    vec![
        tried("its program", fs::read_link(of("exe")).map(drop).map_err(io_name)),
        tried("its memory", File::open(of("mem")).map(drop).map_err(io_name)),
        tried("its descriptors", fs::read_link(of("fd/0")).map(drop).map_err(io_name)),
    ]
}

fn look_at_child() -> Result<Vec<Attack>> {
    let mut child = Command::new("/usr/bin/env")
        .args(["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting a child")?;
    let attacks = look(child.id());
    drop(child.stdin.take());
    child.wait().context("waiting for the child")?;
    Ok(attacks)
}

impl Late {
    fn run(&self) -> Result<Vec<Attack>> {
        let mut tcp = TcpStream::connect(self.tcp).context("connecting")?;
        let udp = UdpSocket::bind("0.0.0.0:0").context("a socket")?;
        udp.connect(self.udp).context("connecting")?;
        let other = UdpSocket::bind("0.0.0.0:0").context("a socket")?;
        let (a, b) = UnixStream::pair().context("a pair")?;
        let before = tried("send before", tcp.write_all(b"x").map_err(io_name));
        fs::write(self.cgroup.join("cgroup.procs"), "0").context("entering the cgroup")?;
        let receive = |s: &UdpSocket| s.set_nonblocking(true).and_then(|()| s.recv(&mut [0; 8]));
        Ok(vec![
            before,
            tried("send on the stream", tcp.write_all(b"x").map_err(io_name)),
            tried("send on the datagram socket", udp.send(b"x").map_err(io_name)),
            tried("receive on the datagram socket", receive(&udp).map_err(io_name)),
            tried("take a socket", hand_over(&a, &b, other.as_raw_fd())),
            tried("take a file", {
                let file = File::open("/proc/self/status").context("a file")?;
                hand_over(&a, &b, file.as_raw_fd())
            }),
        ])
    }
}

/// Sends a descriptor and takes it at the other end.
fn hand_over(from: &UnixStream, to: &UnixStream, descriptor: RawFd) -> Result<(), String> {
    let descriptors = [descriptor];
    let message = [ControlMessage::ScmRights(&descriptors)];
    let bytes = [IoSlice::new(b"x")];
    sendmsg::<()>(from.as_raw_fd(), &bytes, &message, MsgFlags::empty(), None).map_err(name)?;
    let (mut byte, mut space) = ([0; 1], nix::cmsg_space!(RawFd));
    let mut into = [IoSliceMut::new(&mut byte)];
    let taken = recvmsg::<()>(to.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::empty())
        .map_err(name)?;
    // What is refused is missing, and the message says that something is.
    if taken.flags.contains(MsgFlags::MSG_CTRUNC) { Err("EPERM".to_owned()) } else { Ok(()) }
}

fn name(error: nix::Error) -> String {
    format!("{error:?}")
}

fn io_name(error: std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |n| name(nix::Error::from_raw(n)))
}
