//! The packet check: what a socket of a workload may send and receive. Pure, like [`crate::decide`].

use crate::address::Endpoint;
use crate::decide::{Now, Query, Tables, Verdict, decide};
use crate::reason::Reason;
use crate::tables::{GrantRef, WorkloadId};

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

/// What a packet is judged by, read from the socket's storage once: hooks on other CPUs may be writing
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Birth tag.
    pub workload: WorkloadId,
    /// The grant that last allowed it.
    pub grant: GrantRef,
    /// Where it was last allowed to.
    pub destination: Endpoint,
}

/// What becomes of the packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketVerdict {
    /// It goes on.
    Pass,
    /// It goes on, and the socket from now on rests on another grant, since its own was replaced. To be
    /// written only if the socket still rests on `from`: an address hook may have allowed it elsewhere
    /// meanwhile.
    Retag {
        /// The grant that was judged.
        from: GrantRef,
        /// The grant that it goes on under.
        to: GrantRef,
    },
    /// It is dropped.
    Drop(Reason),
}

/// Judges one packet of a tagged socket.
#[inline(always)]
pub fn judge<T: Tables>(
    tables: &T,
    now: &Now,
    direction: Direction,
    socket: &Tag,
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
    if grant.0 == GrantRef::IN_TRANSITION.0 || !same(&packet.far, &socket.destination) {
        return elsewhere(tables, now, direction, socket, packet);
    }
    let Some(slot) = tables.slot(grant.slot()) else { return dead(packet, Reason::NoGrant) };
    if slot.successor != 0 && slot.generation == grant.generation() {
        return match ask(tables, now, socket, packet) {
            Verdict::Allow(evidence) => PacketVerdict::Retag { from: grant, to: evidence.grant },
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
/// that talks to several, one whose tag is just being written, or a destination that was rewritten after
/// the check. What really leaves
/// must be granted in its own right.
#[inline(always)]
fn elsewhere<T: Tables>(
    tables: &T,
    now: &Now,
    direction: Direction,
    socket: &Tag,
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
fn ask<T: Tables>(tables: &T, now: &Now, socket: &Tag, packet: &Packet) -> Verdict {
    decide(tables, now, &Query { workload: socket.workload, to: packet.far, ask_ranges: true })
}

#[inline(always)]
fn same(a: &Endpoint, b: &Endpoint) -> bool {
    let (x, y) = (u128::from_ne_bytes(a.address.0), u128::from_ne_bytes(b.address.0));
    x == y && a.port.get() == b.port.get() && a.protocol.0 == b.protocol.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Port, Protocol};
    use crate::tables::{ExactKey, ExactRule, GrantSlot, PortSet, RangeKey, RangeRule};

    const WORKLOAD: WorkloadId = WorkloadId(16);
    const NOW: Now = Now { boot_ns: 100, tai_ns: 100 };

    fn to(last: u8) -> Endpoint {
        Endpoint::new(Address::from_v4([10, 0, 0, last]), Port::new(80), Protocol::TCP)
    }

    /// Destination 1 under slot 1 (ended, replaced by 3) and slot 3; destination 2 under slot 2.
    struct World {
        live: [bool; 4],
    }

    impl Tables for World {
        fn exact(&self, key: &ExactKey) -> Option<ExactRule> {
            let slot = if key.address == to(1).address { 3 } else { 2 };
            let known = key.address == to(1).address || key.address == to(2).address;
            let rule =
                ExactRule { slot, generation: 1, not_after_boot_ns: u64::MAX, name: 0, padding: 0 };
            (known && key.workload == WORKLOAD).then_some(rule)
        }
        fn range(&self, _: &RangeKey) -> Option<RangeRule> {
            None
        }
        fn port_set(&self, _: u32) -> Option<&PortSet> {
            None
        }
        fn slot(&self, index: u32) -> Option<GrantSlot> {
            let deadline = if *self.live.get(index as usize)? { 200 } else { 0 };
            let successor = if index == 1 { 3 } else { 0 };
            Some(GrantSlot {
                deadline_boot_ns: deadline,
                deadline_tai_ns: 200,
                generation: 1,
                successor,
            })
        }
    }

    fn tag(destination: u8, grant: GrantRef) -> Tag {
        Tag { workload: WORKLOAD, grant, destination: to(destination) }
    }

    fn egress(world: &World, tag: &Tag, destination: u8, reset: bool) -> PacketVerdict {
        let packet = Packet { far: to(destination), options: false, reset };
        judge(world, &NOW, Direction::Egress, tag, &packet)
    }

    #[test]
    fn a_packet_passes_only_while_the_grant_behind_its_socket_lives() {
        let live = World { live: [false, false, true, true] };
        let dead = World { live: [false, false, false, true] };
        let socket = tag(2, GrantRef::new(2, 1));
        assert_eq!(egress(&live, &socket, 2, false), PacketVerdict::Pass);
        assert_eq!(egress(&dead, &socket, 2, false), PacketVerdict::Drop(Reason::Ended));
        assert_eq!(egress(&dead, &socket, 2, true), PacketVerdict::Pass, "a reset tells both ends");
        let stale = tag(2, GrantRef::new(2, 9));
        assert_eq!(egress(&live, &stale, 2, false), PacketVerdict::Drop(Reason::StaleGeneration));
        let never = tag(2, GrantRef::NONE);
        assert_eq!(egress(&live, &never, 2, false), PacketVerdict::Drop(Reason::NoDestination));
    }

    #[test]
    fn a_replaced_grant_hands_its_socket_on_only_to_a_live_one_and_names_what_it_judged() {
        let socket = tag(1, GrantRef::new(1, 1));
        let renewed = World { live: [false, false, false, true] };
        let (from, next) = (GrantRef::new(1, 1), GrantRef::new(3, 1));
        let retag = PacketVerdict::Retag { from, to: next };
        assert_eq!(egress(&renewed, &socket, 1, false), retag);
        let over = World { live: [false; 4] };
        assert_eq!(egress(&over, &socket, 1, false), PacketVerdict::Drop(Reason::Superseded));
    }

    #[test]
    fn a_packet_that_goes_elsewhere_or_meets_a_half_written_tag_is_judged_by_where_it_goes() {
        let world = World { live: [false, false, false, true] };
        for grant in [GrantRef::new(3, 1), GrantRef::IN_TRANSITION] {
            let socket = tag(1, grant);
            let elsewhere = egress(&world, &socket, 2, false);
            assert_eq!(elsewhere, PacketVerdict::Drop(Reason::Rewritten), "its own grant is over");
            assert_eq!(egress(&world, &socket, 9, false), PacketVerdict::Drop(Reason::Rewritten));
            assert_eq!(egress(&world, &socket, 1, false), PacketVerdict::Pass);
        }
    }

    #[test]
    fn headers_that_carry_another_destination_never_leave() {
        let world = World { live: [true; 4] };
        let packet = Packet { far: to(2), options: true, reset: true };
        let socket = tag(2, GrantRef::new(2, 1));
        let verdict = judge(&world, &NOW, Direction::Egress, &socket, &packet);
        assert_eq!(verdict, PacketVerdict::Drop(Reason::HeaderOptions));
    }
}
