//! The messages of sock_diag(7), as bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use grantd_common::{Protocol, SocketState};

use super::DiagSocket;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
/// `INET_DIAG_REQ_SK_BPF_STORAGES`, and in it `SK_DIAG_BPF_STORAGE_REQ_MAP_FD`.
const WANT_STORAGES: u16 = 2;
const WANT_MAP: u16 = 1;
/// `INET_DIAG_SK_BPF_STORAGES`, in it `SK_DIAG_BPF_STORAGE`, in it `SK_DIAG_BPF_STORAGE_MAP_VALUE`.
const STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const STORAGE_VALUE: u16 = 3;
/// Bits of an attribute's type that are not its type (`NLA_TYPE_MASK`).
const FLAGS: u16 = 0xc000;
/// `struct nlmsghdr`, `struct inet_diag_req_v2`, `struct inet_diag_msg`, `struct nlattr`.
const HEADER: usize = 16;
const QUERY: usize = 56;
const ATTRIBUTE: usize = 4;
/// More than one answer of the kernel's (32 KiB).
const BUFFER: usize = 64 << 10;

/// `struct inet_diag_sockid`: addresses, ports, interface and cookie, as the kernel gave them.
pub(super) type SocketId = [u8; 48];

/// Which sockets are asked for.
pub(super) struct Filter {
    /// `AF_INET` or `AF_INET6`.
    pub(super) family: libc::c_int,
    pub(super) protocol: Protocol,
    /// One bit for each state.
    pub(super) states: u32,
    /// The map whose values come with them.
    pub(super) storage: RawFd,
}

pub(super) fn buffer() -> Vec<u8> {
    vec![0; BUFFER]
}

/// Asks for a list of sockets.
pub(super) fn list(sequence: u32, filter: &Filter) -> Vec<u8> {
    let map = attribute(WANT_MAP, &filter.storage.to_ne_bytes());
    let storages = attribute(WANT_STORAGES, &map);
    let family = u8::try_from(filter.family).unwrap_or(0);
    let query = query(family, filter.protocol, filter.states, &[0; 48]);
    message(BY_FAMILY, DUMP, sequence, &[&query, &storages])
}

/// Asks for the end of one socket.
pub(super) fn destroy(sequence: u32, protocol: Protocol, (family, id): &(u8, SocketId)) -> Vec<u8> {
    message(DESTROY, ACKNOWLEDGE, sequence, &[&query(*family, protocol, u32::MAX, id)])
}

/// `struct inet_diag_req_v2`.
fn query(family: u8, protocol: Protocol, states: u32, id: &SocketId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(QUERY);
    bytes.extend([family, protocol.0, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

fn message(kind: u16, flags: u16, sequence: u32, parts: &[&[u8]]) -> Vec<u8> {
    let length = HEADER + parts.iter().map(|p| p.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    parts.iter().for_each(|part| bytes.extend(*part));
    bytes
}

/// Contents here are whole words, so no padding follows.
fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + content.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(ATTRIBUTE + content.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(content);
    bytes
}

/// What one message of the kernel's says.
pub(super) enum Answer<'a> {
    /// A socket.
    Socket(Found<'a>),
    /// The end of a list, or what came of a request: 0, or an error number.
    Done(i32),
}

/// Takes a packet apart: each message with the number of the request that it answers.
pub(super) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<(u32, Answer<'_>)>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((sequence, answer, rest)) = answer(bytes) else {
            bytes = &[];
            let what = "an answer of sock_diag cannot be read";
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        };
        bytes = rest;
        Some(Ok((sequence, answer)))
    })
}

fn answer(bytes: &[u8]) -> Option<(u32, Answer<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let content = bytes.get(HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    let answer = match u16_at(bytes, 4)? {
        BY_FAMILY => Answer::Socket(Found(content)),
        DONE | ERROR => Answer::Done(i32::from_ne_bytes(array_at(content, 0)?).saturating_neg()),
        _ => return None,
    };
    Some((u32_at(bytes, 8)?, answer, rest))
}

/// `struct inet_diag_msg` and its attributes.
pub(super) struct Found<'a>(&'a [u8]);

impl Found<'_> {
    /// Its fields by checked copy; `None` for one that is shorter than it says.
    pub(super) fn read(&self, protocol: Protocol) -> Option<DiagSocket> {
        const FIXED: usize = 72;
        let Self(bytes) = *self;
        let [family, tcp_state] = array_at(bytes, 0)?;
        let id: SocketId = array_at(bytes, 4)?;
        let value = find(bytes.get(FIXED..)?, STORAGES)
            .and_then(|storages| find(storages, STORAGE))
            .and_then(|storage| find(storage, STORAGE_VALUE));
        Some(DiagSocket {
            cookie: u64::from_ne_bytes(array_at(&id, 40)?),
            inode: u32_at(bytes, 68)?,
            uid: u32_at(bytes, 64)?,
            protocol,
            local: address(family, &id, 4, 0)?,
            remote: address(family, &id, 20, 2)?,
            tcp_state,
            state: value.and_then(super::super::pod::read::<SocketState>),
            id: (family, id),
        })
    }
}

fn address(family: u8, id: &SocketId, at: usize, port_at: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(array_at(id, port_at)?);
    let ip: IpAddr = if i32::from(family) == libc::AF_INET {
        Ipv4Addr::from(array_at::<4>(id, at)?).into()
    } else {
        Ipv6Addr::from(array_at::<16>(id, at)?).to_canonical()
    };
    Some(SocketAddr::new(ip, port))
}

/// The content of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let content = attributes.get(ATTRIBUTE..length)?;
        if u16_at(attributes, 2)? & !FLAGS == kind {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}
