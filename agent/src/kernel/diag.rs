//! Sockets of a network namespace: listed with what the kernel programs stored about them, and ended.
//!
//! sock_diag(7). A request reaches only the namespace in which its netlink socket was made, so a
//! [`Namespace`] is such a socket; it also keeps the namespace alive.

mod message;
mod namespace;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use grantd_common::{Protocol, SocketState};

use self::message::{Answer, Filter, SocketId};
pub use self::namespace::{Namespace, NamespaceId, tasks_below};
use super::error::Error;
use super::load::Pins;
use super::{pod, sys};

/// Sockets that are ended by one message to the kernel.
const AT_ONCE: usize = 256;

/// Which sockets are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every TCP and UDP socket that has a port, listening ones as well; no remains of closed ones.
    All,
    /// TCP sockets from the first SYN to the last ACK, and UDP sockets with a fixed peer.
    Connected,
}

/// `TCP_ESTABLISHED`: also a datagram socket with a fixed peer.
const ESTABLISHED: u8 = 1;
/// `TCP_TIME_WAIT`: what remains of a closed connection. Nothing of the socket is left in it.
const TIME_WAIT: u8 = 6;
/// `TCP_CLOSE`: bound only, or a datagram socket without a peer.
const CLOSE: u8 = 7;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;
/// `TCP_NEW_SYN_RECV`: a call that was not accepted yet, and is no socket.
const NEW_SYN_RECV: u8 = 12;

/// One socket.
#[derive(Clone, Debug)]
pub struct DiagSocket {
    /// Its cookie (`SO_COOKIE`), for as long as the host runs never another's.
    pub cookie: u64,
    /// Its inode, as in the links of `/proc/PID/fd`; 0 when no process holds it any more.
    pub inode: u32,
    /// The user that made it.
    pub uid: u32,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; port 0 without one.
    pub remote: SocketAddr,
    /// Its state, by the numbers of `linux/tcp_states.h`.
    pub tcp_state: u8,
    /// What the kernel programs stored; `None` for a socket that no workload made.
    pub state: Option<SocketState>,
    /// `AF_INET` or `AF_INET6`, and how the kernel names it.
    id: (u8, SocketId),
}

/// What came of ending sockets.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// Indexes of those that were ended now.
    pub ended: Vec<usize>,
    /// Those that were gone already, or that another socket of the same addresses stood in front of.
    pub missed: Vec<usize>,
    /// Those that the kernel did not end, and the first reason.
    pub failed: Vec<usize>,
    /// Why the first of those failed.
    pub error: Option<io::Error>,
}

/// Lists and ends sockets.
pub struct Diag {
    storage: OwnedFd,
    /// What is stored about datagram sockets, by cookie, of the moment when this was opened: the kernel
    /// lists it apart from them.
    datagrams: HashMap<u64, SocketState>,
}

impl Diag {
    pub(super) fn open(pins: &Pins, datagrams: BorrowedFd<'_>) -> Result<Self, Error> {
        let path = pins.map("SOCKETS");
        let storage = sys::open_pin(&path).map_err(|source| Error::Pin {
            operation: "open",
            path,
            source,
        })?;
        let datagrams =
            sys::iterate(datagrams, storage.as_fd()).and_then(states_of_datagrams).map_err(
                |source| Error::Diag { operation: "list what datagram sockets rest on", source },
            )?;
        Ok(Self { storage, datagrams })
    }

    /// What was stored about a datagram socket when this was opened.
    #[must_use]
    pub fn stored(&self, socket: &DiagSocket) -> Option<SocketState> {
        self.datagrams.get(&socket.cookie).copied()
    }

    /// Hands each socket of a namespace to `take`.
    ///
    /// # Errors
    /// The kernel does not list them, or an answer cannot be read.
    pub fn sockets(
        &self,
        namespace: &Namespace,
        which: Which,
        mut take: impl FnMut(DiagSocket),
    ) -> Result<(), Error> {
        let failed = |source| Error::Diag { operation: "list the sockets", source };
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let states = states(which, protocol);
            for family in [libc::AF_INET, libc::AF_INET6] {
                let filter = Filter { family, protocol, states, storage: self.storage.as_raw_fd() };
                let taken = |socket: DiagSocket| {
                    let state =
                        socket.state.or_else(|| self.datagrams.get(&socket.cookie).copied());
                    take(DiagSocket { state, ..socket });
                };
                list(namespace, &filter, taken).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Ends sockets of a namespace: each by its addresses and its cookie, so that no other is hit. The
    /// other end of a connection gets a reset, its own end `ECONNABORTED`, and what it had queued is
    /// gone.
    ///
    /// # Errors
    /// The kernel cannot be asked; some may have been ended.
    pub fn destroy<'a>(
        &self,
        namespace: &Namespace,
        sockets: impl IntoIterator<Item = &'a DiagSocket>,
    ) -> Result<Destroyed, Error> {
        let sockets: Vec<&DiagSocket> = sockets.into_iter().collect();
        let mut done = Destroyed::default();
        for (number, some) in sockets.chunks(AT_ONCE).enumerate() {
            destroy_some(namespace, some, number * AT_ONCE, &mut done)
                .map_err(|source| Error::Diag { operation: "end sockets", source })?;
        }
        Ok(done)
    }
}

/// What the iterator writes: a cookie and a state for each.
fn states_of_datagrams(mut written: File) -> io::Result<HashMap<u64, SocketState>> {
    const ONE: usize = size_of::<u64>() + size_of::<SocketState>();
    let mut bytes = Vec::new();
    written.read_to_end(&mut bytes)?;
    let one = |bytes: &[u8]| {
        let (cookie, state) = bytes.split_first_chunk()?;
        Some((u64::from_ne_bytes(*cookie), pod::read(state)?))
    };
    Ok(bytes.chunks_exact(ONE).filter_map(one).collect())
}

const fn states(which: Which, protocol: Protocol) -> u32 {
    let none_left = 1 << TIME_WAIT | 1 << NEW_SYN_RECV;
    match which {
        Which::All => !none_left,
        Which::Connected if protocol.0 == Protocol::UDP.0 => 1 << ESTABLISHED,
        Which::Connected => !(none_left | 1 << CLOSE | 1 << LISTEN),
    }
}

fn list(
    namespace: &Namespace,
    filter: &Filter,
    mut take: impl FnMut(DiagSocket),
) -> io::Result<()> {
    let sequence = namespace.next_sequence(1);
    namespace.send(&message::list(sequence, filter))?;
    let mut buffer = message::buffer();
    loop {
        let mut finished = false;
        let bytes = namespace.receive(&mut buffer)?;
        for answer in message::answers(bytes) {
            match answer? {
                (of, _) if of != sequence => {}
                (_, Answer::Socket(found)) => {
                    if let Some(socket) = found.read(filter.protocol) {
                        take(socket);
                    }
                }
                (_, Answer::Done(0)) => finished = true,
                (_, Answer::Done(code)) => return Err(io::Error::from_raw_os_error(code)),
            }
        }
        if finished {
            return Ok(());
        }
    }
}

/// Asks for all at once, then takes the answers, which come in any number of packets.
fn destroy_some(
    namespace: &Namespace,
    sockets: &[&DiagSocket],
    first_index: usize,
    done: &mut Destroyed,
) -> io::Result<()> {
    let count = u32::try_from(sockets.len()).map_err(io::Error::other)?;
    let first = namespace.next_sequence(count);
    let mut request = Vec::new();
    for (sequence, socket) in (first..).zip(sockets) {
        request.extend(message::destroy(sequence, socket.protocol, &socket.id));
    }
    namespace.send(&request)?;
    let mut buffer = message::buffer();
    let mut waiting = count;
    while waiting > 0 {
        for answer in message::answers(namespace.receive(&mut buffer)?) {
            let (sequence, Answer::Done(code)) = answer? else { continue };
            let Some(number) = sequence.checked_sub(first).filter(|n| *n < count) else { continue };
            let index = first_index + usize::try_from(number).map_err(io::Error::other)?;
            waiting = waiting.saturating_sub(1);
            match code {
                0 => done.ended.push(index),
                libc::ENOENT | libc::ESTALE => done.missed.push(index),
                _ => {
                    done.failed.push(index);
                    done.error.get_or_insert_with(|| io::Error::from_raw_os_error(code));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
