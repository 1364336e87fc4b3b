//! Sockets that live side by side in one process, each with a name, and do what standard input says.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use grantd_e2e::clock::unix_micros;
use grantd_e2e::machine::patience;
use grantd_e2e::pool::{Did, error_name as name, wait_for_ends};
use libc::{CLOCK_TAI, sock_txtime};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, connect, recv, send,
    setsockopt, shutdown, socket, sockopt,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What is written or read at once.
const CHUNK: usize = 4096;
/// How long nothing more is taken until that is for good.
const SETTLED: Duration = Duration::from_millis(200);

type Pool = BTreeMap<String, OwnedFd>;

/// Does what each line says and reports it. All sockets are non-blocking.
pub(crate) fn serve(say: &mut impl FnMut(&Did) -> Result<()>) -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("allowing more open files")?;
    let mut pool = Pool::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        say(&obey(&mut pool, &words).with_context(|| line.clone())?)?;
    }
    Ok(())
}

fn obey(pool: &mut Pool, words: &[&str]) -> Result<Did> {
    match words {
        ["open", who, protocol, to] => {
            let opened = open(protocol, to.parse().context("an address")?);
            Ok(added(pool, who, opened))
        }
        ["many", who, count, to] => Ok(many(pool, who, count.parse()?, to.parse()?)),
        ["start", who, to] => Ok(added(pool, who, start(to.parse().context("an address")?))),
        ["listen", who, at] => {
            let listener = TcpListener::bind(at).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener.into())
            });
            Ok(added(pool, who, listener))
        }
        ["accept", who, of] => {
            let listener = TcpListener::from(get(pool, of)?.try_clone()?);
            let accepted = listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            });
            Ok(added(pool, who, accepted))
        }
        ["send", who, tag, count] => Ok(write(get(pool, who)?, tag, count.parse()?)),
        ["fill", who, tag] => fill(get(pool, who)?, tag),
        ["read", who] => Ok(read(get(pool, who)?)),
        ["hold-back", who] => {
            let clock = sock_txtime { clockid: CLOCK_TAI, flags: 0 };
            let set = setsockopt(get(pool, who)?, sockopt::TxTime, &clock);
            Ok(did(0, set.err().map(std::io::Error::from).as_ref()))
        }
        ["shut", who] => {
            let done = shutdown(get(pool, who)?.as_raw_fd(), Shutdown::Write);
            Ok(did(0, done.err().map(std::io::Error::from).as_ref()))
        }
        ["close", who] => {
            pool.remove(*who).with_context(|| format!("no socket {who}"))?;
            Ok(did(0, None))
        }
        ["ends", millis] => ends(pool, Duration::from_millis(millis.parse()?)),
        other => Err(anyhow!("no such command: {other:?}")),
    }
}

fn get<'a>(pool: &'a Pool, who: &str) -> Result<&'a OwnedFd> {
    pool.get(who).with_context(|| format!("no socket {who}"))
}

fn did(count: u64, error: Option<&std::io::Error>) -> Did {
    let (ok, error) = (error.is_none(), error.map(name));
    Did { ok, count, error, at_us: unix_micros(), local: None, ends: BTreeMap::new() }
}

fn added(pool: &mut Pool, who: &str, made: std::io::Result<OwnedFd>) -> Did {
    let local = made.and_then(|fd| {
        let local = TcpStream::from(fd.try_clone()?).local_addr()?;
        pool.insert(who.to_owned(), fd);
        Ok(local)
    });
    Did { local: local.as_ref().ok().copied(), ..did(1, local.as_ref().err()) }
}

fn open(protocol: &str, to: SocketAddr) -> std::io::Result<OwnedFd> {
    if protocol == "tcp" {
        let stream = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        return Ok(stream.into());
    }
    let datagrams = match to {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    datagrams.connect(to)?;
    datagrams.set_nonblocking(true)?;
    Ok(datagrams.into())
}

fn many(pool: &mut Pool, who: &str, count: usize, to: SocketAddr) -> Did {
    for number in 0..count {
        match open("tcp", to) {
            Ok(fd) => pool.insert(format!("{who}-{number}"), fd),
            Err(error) => return did(number as u64, Some(&error)),
        };
    }
    did(count as u64, None)
}

/// Begins a connection and does not wait for it.
fn start(to: SocketAddr) -> std::io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

/// Writes the first byte of `tag` again and again, until so many are taken or the kernel takes no more.
fn write(fd: &OwnedFd, tag: &str, count: usize) -> Did {
    let chunk = [tag.as_bytes().first().copied().unwrap_or(b'?'); CHUNK];
    let mut taken = 0;
    while taken < count {
        let some = chunk.get(..CHUNK.min(count - taken)).unwrap_or_default();
        match send(fd.as_raw_fd(), some, MsgFlags::MSG_NOSIGNAL) {
            Ok(length) => taken += length,
            Err(Errno::EAGAIN) => break,
            Err(error) => return did(taken as u64, Some(&error.into())),
        }
    }
    did(taken as u64, None)
}

/// Writes until both sides' buffers are full: the kernel takes no more although the far end had time to.
fn fill(fd: &OwnedFd, tag: &str) -> Result<Did> {
    let mut filled = 0;
    loop {
        let more = write(fd, tag, usize::MAX);
        filled += more.count;
        let mut waiting = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
        let settled = PollTimeout::try_from(patience(SETTLED))?;
        if !more.ok || poll(&mut waiting, settled)? == 0 {
            return Ok(Did { count: filled, ..more });
        }
    }
}

/// Takes all that is there; `EOF` is an error of its own.
fn read(fd: &OwnedFd) -> Did {
    let mut taken = 0;
    loop {
        match recv(fd.as_raw_fd(), &mut [0; CHUNK], MsgFlags::empty()) {
            Ok(0) => return did(taken, Some(&std::io::Error::other("EOF"))),
            Ok(length) => taken += length as u64,
            Err(Errno::EAGAIN) => return did(taken, None),
            Err(error) => return did(taken, Some(&error.into())),
        }
    }
}

/// Waits until every socket has ended, at most so long; tells which have, when and how.
fn ends(pool: &Pool, patience: Duration) -> Result<Did> {
    let fds: Vec<BorrowedFd<'_>> = pool.values().map(AsFd::as_fd).collect();
    let ends = wait_for_ends(&fds, patience)?;
    let ends = pool.keys().cloned().zip(ends);
    Ok(Did { ends: ends.filter_map(|(who, end)| Some((who, end?))).collect(), ..did(0, None) })
}
