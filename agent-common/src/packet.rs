//! The packet check: what a socket of a workload may send and receive. Pure, like [`crate::decide`].

use crate::address::{Endpoint, Protocol};
use crate::decide::{Now, Query, Tables, Verdict, decide};
use crate::reason::Reason;
use crate::tables::{GrantRef, InboundKey, WorkloadId};

/// What the headers of one packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The far end: destination when leaving, source when coming in.
    pub far: Endpoint,
    /// The near end: the workload's own side.
    pub near: Endpoint,
    /// IPv4 options, or an IPv6 extension header.
    pub options: bool,
    /// A TCP segment that only resets: no payload, RST set.
    pub reset: bool,
    /// A TCP segment with SYN and ACK set: the answer to a call.
    pub answer: bool,
}

impl Packet {
    /// Before the headers are read.
    pub const UNREAD: Self = Self {
        far: Endpoint::NONE,
        near: Endpoint::NONE,
        options: false,
        reset: false,
        answer: false,
    };
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
    /// It is a TCP socket that listens.
    pub listening: bool,
    /// It is a TCP socket whose handshake is over: [`stands`].
    pub standing: bool,
    /// [`crate::SocketState::PEER_CONFIRMED`].
    pub confirmed: bool,
}

/// Whether a TCP socket in this state (include/net/tcp_states.h) is past its handshake: it has one far end, and
/// never asks for another. One that still calls may be answered by whoever comes to listen there.
#[inline(always)]
#[must_use]
pub const fn stands(state: u32) -> bool {
    // TCP_ESTABLISHED; TCP_FIN_WAIT1, TCP_FIN_WAIT2; TCP_CLOSE_WAIT, TCP_LAST_ACK; TCP_CLOSING.
    matches!(state, 1 | 4 | 5 | 8 | 9 | 11)
}

/// Whose socket is at the far end, in the same network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Not one of this workload, or none.
    Other,
    /// One of this workload that waits for calls or for datagrams of anybody: another may stand in its
    /// place later.
    Open,
    /// The one other end of this connection, of this workload and past its handshake.
    Own,
}

/// What a packet check asks beyond the policy maps.
pub trait Peers {
    /// Whose socket the far end is. Only asked for loopback addresses: elsewhere a socket that is bound to
    /// every address would seem to be the far end of anything.
    fn peer(&self, workload: WorkloadId, near: &Endpoint, far: &Endpoint) -> Peer;
    /// `INBOUND`: whether the host's config lets this caller in.
    fn may_call(&self, key: &InboundKey) -> bool;
}

/// What becomes of the packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketVerdict {
    /// It goes on.
    Pass,
    /// It goes on, and the far end need not be looked for again: [`crate::SocketState::PEER_CONFIRMED`].
    Confirm,
    /// It goes on, and the socket from now on rests on another grant, since its own is over. To be
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
pub fn judge<T: Tables + Peers>(
    world: &T,
    now: &Now,
    direction: Direction,
    socket: &Tag,
    packet: &Packet,
) -> PacketVerdict {
    let open = match by_tag(world, now, direction, socket, packet) {
        Ok(verdict) => return verdict,
        Err(open) => open,
    };
    if open.ask_grants {
        let query = Query { workload: socket.workload, to: packet.far, ask_ranges: true };
        match decide(world, now, &query) {
            Verdict::Allow(evidence) if open.over => {
                return PacketVerdict::Retag { from: socket.grant, to: evidence.grant };
            }
            Verdict::Allow(_) => return PacketVerdict::Pass,
            Verdict::Deny(_) if open.over => return dead(packet, open.reason),
            Verdict::Deny(_) => {}
        }
    }
    match beside_grants(world, socket, packet) {
        Peer::Own if open.confirm && socket.standing => PacketVerdict::Confirm,
        Peer::Own | Peer::Open => PacketVerdict::Pass,
        Peer::Other => PacketVerdict::Drop(open.reason),
    }
}

/// What the tag leaves open.
struct Open {
    /// The grants decide first.
    ask_grants: bool,
    /// The socket's own grant is over: only another one that lives can carry it on.
    over: bool,
    /// An own far end need not be looked for again.
    confirm: bool,
    /// Why it is dropped if nothing allows it.
    reason: Reason,
}

/// What can be told from the tag and the slot alone, without a further look-up.
#[inline(always)]
fn by_tag<T: Tables>(
    world: &T,
    now: &Now,
    direction: Direction,
    socket: &Tag,
    packet: &Packet,
) -> Result<PacketVerdict, Open> {
    if packet.options {
        return Ok(PacketVerdict::Drop(Reason::HeaderOptions));
    }
    let open = |ask_grants, confirm, reason| Err(Open { ask_grants, over: false, confirm, reason });
    let over = |reason| Err(Open { ask_grants: true, over: true, confirm: false, reason });
    if socket.listening {
        // It is called by its own workload, or by whom the config lets in, and answers.
        return match direction {
            Direction::Egress if packet.answer || packet.reset => Ok(PacketVerdict::Pass),
            Direction::Egress => Ok(PacketVerdict::Drop(Reason::ListenerSends)),
            Direction::Ingress => open(false, false, Reason::Inbound),
        };
    }
    let grant = socket.grant;
    let straight = same(&packet.far, &socket.destination);
    if straight && (grant.0 == GrantRef::SAME_WORKLOAD.0 || grant.0 == GrantRef::INBOUND.0) {
        if socket.confirmed && packet.far.protocol.0 == Protocol::TCP.0 {
            return Ok(PacketVerdict::Pass);
        }
        return open(false, true, refused(direction));
    }
    if grant.slot() == 0 {
        // What comes in to a socket that was never allowed anywhere is nobody's answer.
        return open(
            false,
            false,
            match direction {
                Direction::Egress => Reason::NoDestination,
                Direction::Ingress => Reason::Inbound,
            },
        );
    }
    if !straight || grant.0 == GrantRef::IN_TRANSITION.0 {
        // An unconnected datagram socket that talks to several, one whose tag is just being written, or a
        // destination that was rewritten after the check: what really leaves must be allowed in its own
        // right.
        return open(true, false, refused(direction));
    }
    let Some(slot) = world.slot(grant.slot()) else { return Ok(dead(packet, Reason::NoGrant)) };
    if slot.successor != 0 && slot.generation == grant.generation() {
        return over(Reason::Superseded);
    }
    match slot.refusal(grant.generation(), now) {
        None => Ok(PacketVerdict::Pass),
        // Nobody has ended it yet, and while the daemon is dead nobody will. What came after it is no heir:
        // before a grant is written, those that have expired are ended.
        Some(Reason::Expired) => over(Reason::Expired),
        Some(reason) => Ok(dead(packet, reason)),
    }
}

/// A reset still goes through, so that both ends learn of a cut connection.
#[inline(always)]
const fn dead(packet: &Packet, reason: Reason) -> PacketVerdict {
    if packet.reset { PacketVerdict::Pass } else { PacketVerdict::Drop(reason) }
}

#[inline(always)]
const fn refused(direction: Direction) -> Reason {
    match direction {
        Direction::Egress => Reason::Rewritten,
        Direction::Ingress => Reason::Inbound,
    }
}

/// What is allowed with no grant: the workload's own sockets over loopback, and callers that the config
/// names.
#[inline(always)]
fn beside_grants<T: Tables + Peers>(world: &T, socket: &Tag, packet: &Packet) -> Peer {
    if packet.far.address.is_loopback() {
        match world.peer(socket.workload, &packet.near, &packet.far) {
            Peer::Other => {}
            found @ (Peer::Own | Peer::Open) => return found,
        }
    }
    if world.may_call(&InboundKey::new(socket.workload, packet.near.port, &packet.far)) {
        return Peer::Open;
    }
    Peer::Other
}

#[inline(always)]
pub(crate) fn same(a: &Endpoint, b: &Endpoint) -> bool {
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

    /// The workload's own side of every packet here.
    fn near() -> Endpoint {
        Endpoint::new(Address::from_v4([127, 0, 0, 1]), Port::new(8080), Protocol::TCP)
    }

    /// Loopback port 1 is a connection of the workload itself, port 2 a listener of it.
    fn on_loopback(port: u16) -> Endpoint {
        Endpoint::new(Address::from_v4([127, 0, 0, 1]), Port::new(port), Protocol::TCP)
    }

    fn packet(far: Endpoint) -> Packet {
        Packet { far, near: near(), options: false, reset: false, answer: false }
    }

    impl Peers for World {
        fn peer(&self, workload: WorkloadId, _: &Endpoint, far: &Endpoint) -> Peer {
            assert!(far.address.is_loopback(), "a wildcard listener would match any address");
            match (workload, far.port.get()) {
                (WORKLOAD, 1) => Peer::Own,
                (WORKLOAD, 2) => Peer::Open,
                _ => Peer::Other,
            }
        }
        /// Only 10.0.0.7 may call, and only at port 8080.
        fn may_call(&self, key: &InboundKey) -> bool {
            *key == InboundKey::new(WORKLOAD, Port::new(8080), &to(7))
        }
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
                deadline_tai_ns: if index == 3 { 300 } else { 200 },
                generation: 1,
                successor,
            })
        }
    }

    fn tag(destination: u8, grant: GrantRef) -> Tag {
        let destination = to(destination);
        let (listening, standing, confirmed) = (false, true, false);
        Tag { workload: WORKLOAD, grant, destination, listening, standing, confirmed }
    }

    fn egress(world: &World, tag: &Tag, destination: u8, reset: bool) -> PacketVerdict {
        let packet = Packet { reset, ..packet(to(destination)) };
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
    fn an_expired_grant_hands_its_socket_on_as_well_and_an_ended_one_to_nobody() {
        // Destination 1 is under slot 3, which lives longer than slot 2.
        let world = World { live: [false, false, true, true] };
        let late = Now { boot_ns: 100, tai_ns: 200 };
        let judged = |world: &World, destination| {
            let socket = tag(destination, GrantRef::new(2, 1));
            let packet = packet(to(destination));
            [NOW, late].map(|now| judge(world, &now, Direction::Egress, &socket, &packet))
        };
        let (from, next) = (GrantRef::new(2, 1), GrantRef::new(3, 1));
        let handed_on = PacketVerdict::Retag { from, to: next };
        assert_eq!(judged(&world, 1), [PacketVerdict::Pass, handed_on]);
        let expired = PacketVerdict::Drop(Reason::Expired);
        assert_eq!(judged(&world, 2), [PacketVerdict::Pass, expired], "no other covers it");
        let ended = World { live: [false, false, false, true] };
        assert_eq!(judged(&ended, 1), [PacketVerdict::Drop(Reason::Ended); 2]);
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
    fn a_connection_within_the_workload_needs_no_grant_and_another_one_in_its_place_gets_nothing() {
        let world = World { live: [false; 4] };
        for direction in [Direction::Egress, Direction::Ingress] {
            let to = |port: u16, confirmed: bool| {
                let socket = Tag {
                    destination: on_loopback(port),
                    confirmed,
                    ..tag(1, GrantRef::SAME_WORKLOAD)
                };
                judge(&world, &NOW, direction, &socket, &packet(on_loopback(port)))
            };
            assert_eq!(to(1, false), PacketVerdict::Confirm);
            let calls = Tag {
                destination: on_loopback(1),
                standing: false,
                ..tag(1, GrantRef::SAME_WORKLOAD)
            };
            let called = judge(&world, &NOW, direction, &calls, &packet(on_loopback(1)));
            assert_eq!(called, PacketVerdict::Pass, "another may answer its next call");
            assert_eq!(to(2, false), PacketVerdict::Pass, "a listener may be another's later");
            let other = PacketVerdict::Drop(refused(direction));
            assert_eq!(to(3, false), other, "the far end is somebody else's");
            assert_eq!(to(3, true), PacketVerdict::Pass, "it was confirmed and cannot change");
            let socket = Tag { confirmed: true, ..tag(1, GrantRef::SAME_WORKLOAD) };
            let far = super::tests::to(9);
            let elsewhere = judge(&world, &NOW, direction, &socket, &packet(far));
            assert_eq!(elsewhere, other, "confirmed for one far end only");
        }
    }

    #[test]
    fn a_listener_is_called_by_its_own_workload_or_by_whom_the_config_names_and_only_answers() {
        let world = World { live: [true; 4] };
        let socket = Tag { listening: true, ..tag(2, GrantRef::new(2, 1)) };
        let ingress = |far| judge(&world, &NOW, Direction::Ingress, &socket, &packet(far));
        assert_eq!(ingress(on_loopback(1)), PacketVerdict::Pass);
        assert_eq!(ingress(to(7)), PacketVerdict::Pass);
        for other in [on_loopback(3), to(2), to(8)] {
            assert_eq!(ingress(other), PacketVerdict::Drop(Reason::Inbound), "{other:?}");
        }
        let egress = |packet| judge(&world, &NOW, Direction::Egress, &socket, &packet);
        let call = packet(to(2));
        assert_eq!(egress(Packet { answer: true, ..call }), PacketVerdict::Pass);
        assert_eq!(egress(Packet { reset: true, ..call }), PacketVerdict::Pass);
        assert_eq!(egress(call), PacketVerdict::Drop(Reason::ListenerSends));
    }

    #[test]
    fn who_was_let_in_stays_only_as_long_as_the_config_lets_it() {
        let world = World { live: [false; 4] };
        let accepted = |last| Tag { ..tag(last, GrantRef::INBOUND) };
        for direction in [Direction::Egress, Direction::Ingress] {
            let judged = |last| judge(&world, &NOW, direction, &accepted(last), &packet(to(last)));
            assert_eq!(judged(7), PacketVerdict::Pass);
            assert_eq!(judged(8), PacketVerdict::Drop(refused(direction)));
        }
    }

    #[test]
    fn a_socket_that_was_never_allowed_anywhere_hears_nobody_even_if_a_grant_names_him() {
        let world = World { live: [true; 4] };
        let never = tag(2, GrantRef::NONE);
        let heard = judge(&world, &NOW, Direction::Ingress, &never, &packet(to(2)));
        assert_eq!(heard, PacketVerdict::Drop(Reason::Inbound));
        let own = judge(&world, &NOW, Direction::Ingress, &never, &packet(on_loopback(1)));
        assert_eq!(own, PacketVerdict::Pass);
    }

    #[test]
    fn only_a_state_after_the_handshake_has_a_far_end_for_good() {
        let standing: Vec<u32> = (0..16).filter(|state| stands(*state)).collect();
        assert_eq!(standing, [1, 4, 5, 8, 9, 11], "SYN_SENT is 2, SYN_RECV 3, CLOSE 7, LISTEN 10");
    }

    #[test]
    fn headers_that_carry_another_destination_never_leave() {
        let world = World { live: [true; 4] };
        let packet = Packet { options: true, reset: true, ..packet(to(2)) };
        let socket = tag(2, GrantRef::new(2, 1));
        let verdict = judge(&world, &NOW, Direction::Egress, &socket, &packet);
        assert_eq!(verdict, PacketVerdict::Drop(Reason::HeaderOptions));
    }
}
