//! The packet check: what a socket of a workload may send and receive. Pure, like [`crate::decide`].

use crate::address::Endpoint;
use crate::decide::{Match, Now, Query, Tables, Verdict, decide};
use crate::reason::Reason;
use crate::tables::SocketState;

/// What the headers of one packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The far end: destination when leaving, source when coming in.
    pub far: Endpoint,
    /// IPv4 options, or an IPv6 extension header.
    pub options: bool,
    /// A TCP segment that only resets: no payload, RST set.
    pub reset: bool,
}

/// Which way the packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Leaving the host or the namespace.
    Egress,
    /// Coming in to the socket.
    Ingress,
}

/// What becomes of the packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketVerdict {
    /// It goes on.
    Pass,
    /// It goes on, and the socket from now on rests on this grant (its old one was replaced).
    Retag(Match),
    /// It is dropped.
    Drop(Reason),
}

/// Judges one packet of a tagged socket.
#[inline(always)]
pub fn judge<T: Tables>(
    tables: &T,
    now: &Now,
    direction: Direction,
    socket: &SocketState,
    packet: &Packet,
) -> PacketVerdict {
    if packet.options {
        return PacketVerdict::Drop(Reason::HeaderOptions);
    }
    let grant = socket.grant;
    if grant.slot() == 0 {
        return PacketVerdict::Drop(match direction {
            Direction::Egress => Reason::NoDestination,
            Direction::Ingress => Reason::Inbound,
        });
    }
    if !same(&packet.far, &socket.destination) {
        return elsewhere(tables, now, direction, socket, packet);
    }
    let Some(slot) = tables.slot(grant.slot()) else { return dead(packet, Reason::NoGrant) };
    if slot.successor != 0 && slot.generation == grant.generation() {
        return match ask(tables, now, socket, packet) {
            Verdict::Allow(evidence) => PacketVerdict::Retag(evidence),
            Verdict::Deny(_) => dead(packet, Reason::Superseded),
        };
    }
    match slot.refusal(grant.generation(), now) {
        None => PacketVerdict::Pass,
        Some(reason) => dead(packet, reason),
    }
}

/// A reset still goes through, so that both ends learn of a cut connection.
#[inline(always)]
const fn dead(packet: &Packet, reason: Reason) -> PacketVerdict {
    if packet.reset { PacketVerdict::Pass } else { PacketVerdict::Drop(reason) }
}

/// The far end is not the one that the socket was last allowed to: an unconnected datagram socket
/// that talks to several, or a destination that was rewritten after the check. What really leaves
/// must be granted in its own right.
#[inline(always)]
fn elsewhere<T: Tables>(
    tables: &T,
    now: &Now,
    direction: Direction,
    socket: &SocketState,
    packet: &Packet,
) -> PacketVerdict {
    match ask(tables, now, socket, packet) {
        Verdict::Allow(_) => PacketVerdict::Pass,
        Verdict::Deny(_) => PacketVerdict::Drop(match direction {
            Direction::Egress => Reason::Rewritten,
            Direction::Ingress => Reason::Inbound,
        }),
    }
}

#[inline(always)]
fn ask<T: Tables>(tables: &T, now: &Now, socket: &SocketState, packet: &Packet) -> Verdict {
    decide(tables, now, &Query { workload: socket.workload, to: packet.far, ask_ranges: true })
}

#[inline(always)]
fn same(a: &Endpoint, b: &Endpoint) -> bool {
    let (x, y) = (u128::from_ne_bytes(a.address.0), u128::from_ne_bytes(b.address.0));
    x == y && a.port.get() == b.port.get() && a.protocol.0 == b.protocol.0
}
