//! Every packet of a socket that was born in the slice.

use aya_ebpf::programs::SkBuffContext;
use grantd_common::event::counter;
use grantd_common::packet::{Direction, PacketVerdict, judge};
use grantd_common::{Endpoint, EventKind, Hook, Reason};

use crate::emit::{Report, count, report};
use crate::maps::Maps;
use crate::raw::{self, Storage};

const PASS: i32 = 1;
const DROP: i32 = 0;

#[inline(always)]
pub(crate) fn check(ctx: &SkBuffContext, direction: Direction) -> i32 {
    let Some(storage) = raw::packet_storage(ctx) else {
        // Every socket of the slice is tagged when it is made: one without is not ours to let out.
        count(counter::DROPS + Reason::Untagged as u32);
        return DROP;
    };
    let Some(packet) = raw::packet(ctx, direction) else {
        return dropped(ctx, direction, storage, &Endpoint::NONE, Reason::Malformed);
    };
    match judge(&Maps, &raw::now(), direction, &storage.tag(), &packet) {
        PacketVerdict::Pass => PASS,
        PacketVerdict::Retag { from, to } => {
            storage.move_grant(from, to);
            PASS
        }
        PacketVerdict::Drop(reason) => dropped(ctx, direction, storage, &packet.far, reason),
    }
}

/// Counts every drop, and reports the first of a socket since it was last allowed: a packet that is
/// sent again and again is one fact.
#[inline(always)]
fn dropped(
    ctx: &SkBuffContext,
    direction: Direction,
    storage: Storage,
    far: &Endpoint,
    reason: Reason,
) -> i32 {
    count(counter::DROPS + reason as u32);
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
        hook,
        reason,
        boot_ns: raw::now().boot_ns,
        cookie: raw::packet_cookie(ctx),
        workload: state.workload,
        socket_workload: state.workload,
        grant: state.grant,
        name: state.name,
        to: *far,
        allowed_to: state.destination,
        socket_type: 0,
    });
    DROP
}
