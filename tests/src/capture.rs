//! A packet capture on a target, to show that a denied attempt sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::clock::unix_micros;
use crate::netns::Netns;

/// One IP packet that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// Protocol number: 6 TCP, 17 UDP, 58 ICMPv6.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// TCP flags; 0 for other protocols.
    pub flags: u8,
}

/// RST in [`Packet::flags`].
pub const TCP_RST: u8 = 0x04;

/// A capture that runs from [`Capture::start`] until it is dropped.
pub struct Capture {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
}

impl Capture {
    /// Captures on every interface inside `netns`.
    ///
    /// # Errors
    /// When the packet socket cannot be made.
    pub fn start(netns: &Netns) -> Result<Self> {
        let socket = netns.enter(open)?.context("opening a packet socket")?;
        let capture = Self { packets: Arc::default(), stop: Arc::default() };
        let (packets, stop) = (Arc::clone(&capture.packets), Arc::clone(&capture.stop));
        std::thread::spawn(move || collect(&socket, &packets, &stop));
        Ok(capture)
    }

    /// What was seen so far.
    #[must_use]
    pub fn packets(&self) -> Vec<Packet> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many packets to `port` of `protocol` (6 or 17) were seen so far.
    #[must_use]
    pub fn to_port(&self, protocol: u8, port: u16) -> usize {
        self.packets()
            .iter()
            .filter(|packet| packet.protocol == protocol && packet.port == port)
            .count()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn open() -> Result<OwnedFd> {
    // Cooked packets: what is read begins with the IP header.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
    Ok(socket)
}

fn collect(socket: &OwnedFd, packets: &Mutex<Vec<Packet>>, stop: &AtomicBool) {
    let mut buffer = [0; 256];
    while !stop.load(Ordering::SeqCst) {
        let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) else {
            continue;
        };
        let seen = buffer.get(..length.min(buffer.len())).unwrap_or_default();
        if let Some(packet) = parse(seen) {
            packets.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Packet> {
    let (protocol, source, destination, payload) = match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes.first()? & 0x0f) * 4;
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            };
            (*bytes.get(9)?, address(12)?, address(16)?, bytes.get(header..)?)
        }
        6 => {
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            };
            (*bytes.get(6)?, address(8)?, address(24)?, bytes.get(40..)?)
        }
        _ => return None,
    };
    let has_ports = matches!(protocol, 6 | 17);
    let port = match payload.get(2..4) {
        Some(&[high, low]) if has_ports => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    let flags = if protocol == 6 { payload.get(13).copied().unwrap_or(0) } else { 0 };
    Some(Packet { at_us: unix_micros(), protocol, source, destination, port, flags })
}
