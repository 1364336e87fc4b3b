//! Every packet of a socket that was born in the slice.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::SkBuffContext;
use grantd_common::event::counter;
use grantd_common::packet::{Direction, Packet, PacketVerdict, Peer, Peers, Tag, judge, stands};
use grantd_common::{
    Endpoint, EventKind, ExactKey, ExactRule, GrantSlot, Hook, InboundKey, PortSet, Protocol,
    RangeKey, RangeRule, Reason, SocketState, Tables, WorkloadId,
};

use crate::emit::{Report, count, report};
use crate::maps::Maps;
use crate::peer;
use crate::raw;
use crate::storage::Storage;

const PASS: i32 = 1;
const DROP: i32 = 0;
/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTEN: u32 = 10;

#[inline(always)]
pub(crate) fn check(ctx: &SkBuffContext, direction: Direction) -> i32 {
    let Some(storage) = raw::packet_storage(ctx) else {
        // Every socket of the slice is tagged when it is made: one without is not ours to let out.
        count(counter::DROPS + Reason::Untagged as u32);
        return DROP;
    };
    let mut packet = Packet::UNREAD;
    let refused = if raw::packet(ctx, direction, &mut packet) {
        judged(ctx, direction, storage, &packet)
    } else {
        Reason::Malformed as u32
    };
    if refused == ALLOWED {
        return passed(ctx, direction, storage, &packet);
    }
    dropped(ctx, direction, storage, &packet.far, refused)
}

/// What [`judged`] returns for a packet that goes on; else it is the number of a reason.
const ALLOWED: u32 = 0;

/// In a function of its own, for the sake of the 512 bytes of stack.
#[inline(never)]
fn judged(ctx: &SkBuffContext, direction: Direction, storage: Storage, packet: &Packet) -> u32 {
    let state = raw::state(ctx);
    let standing = packet.far.protocol.0 == Protocol::TCP.0 && stands(state);
    let tag = Tag { listening: state == LISTEN, standing, ..storage.tag() };
    match judge(&World(ctx), &raw::now(), direction, &tag, packet) {
        PacketVerdict::Drop(reason) => reason as u32,
        allowed @ (PacketVerdict::Pass | PacketVerdict::Confirm | PacketVerdict::Retag { .. }) => {
            note(storage, allowed);
            ALLOWED
        }
    }
}

/// What the verdict changes in the socket's storage.
#[inline(always)]
fn note(storage: Storage, verdict: PacketVerdict) {
    match verdict {
        PacketVerdict::Confirm => storage.set(SocketState::PEER_CONFIRMED),
        PacketVerdict::Retag { from, to } => storage.move_grant(from, to),
        PacketVerdict::Pass | PacketVerdict::Drop(_) => {}
    }
}

/// The kernel counts TCP's bytes by itself.
#[inline(always)]
fn passed(ctx: &SkBuffContext, direction: Direction, storage: Storage, packet: &Packet) -> i32 {
    if packet.far.protocol.0 == Protocol::UDP.0 {
        let headers = if packet.far.address.is_v4() { 20 + 8 } else { 40 + 8 };
        storage.count(direction, u64::from(ctx.len()).saturating_sub(headers));
    }
    PASS
}

/// Counts every drop, and reports the first of a socket since it was last allowed: a packet that is
/// sent again and again is one fact.
#[inline(never)]
fn dropped(
    ctx: &SkBuffContext,
    direction: Direction,
    storage: Storage,
    far: &Endpoint,
    reason: u32,
) -> i32 {
    count(counter::DROPS + reason);
    if !storage.first_drop() {
        return DROP;
    }
    let state = storage.read();
    let hook = match direction {
        Direction::Egress => Hook::Egress,
        Direction::Ingress => Hook::Ingress,
    };
    report(&Report {
        kind: EventKind::Dropped,
        cookie: raw::packet_cookie(ctx),
        workload: state.workload,
        socket_workload: state.workload,
        grant: state.grant,
        name: state.name,
        to: *far,
        allowed_to: state.destination,
        netns: state.netns,
        reason: (reason & 0xff) as u8,
        ..Report::refusal(hook, Reason::Malformed, raw::now().boot_ns)
    });
    DROP
}

/// The policy maps, and the sockets of the packet's network namespace.
struct World<'a>(&'a SkBuffContext);

impl Peers for World<'_> {
    #[inline(always)]
    fn peer(&self, workload: WorkloadId, near: &Endpoint, far: &Endpoint) -> Peer {
        peer::find(self.0.as_ptr(), workload, near, far)
    }

    #[inline(always)]
    fn may_call(&self, key: &InboundKey) -> bool {
        Maps::may_call(key)
    }
}

impl Tables for World<'_> {
    #[inline(always)]
    fn exact(&self, key: &ExactKey) -> Option<ExactRule> {
        Maps.exact(key)
    }

    #[inline(always)]
    fn range(&self, key: &RangeKey) -> Option<RangeRule> {
        Maps.range(key)
    }

    #[inline(always)]
    fn port_set(&self, index: u32) -> Option<&PortSet> {
        if index == 0 { None } else { crate::maps::PORTSETS.get(index) }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<GrantSlot> {
        Maps.slot(index)
    }
}
