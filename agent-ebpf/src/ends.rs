//! How connections begin at the other end, and how all of them end.

use aya_ebpf::programs::{SockContext, SockOpsContext};
use grantd_common::event::counter;
use grantd_common::{
    EventKind, GrantRef, Hook, InboundKey, Now, Protocol, Reason, SocketState, life,
};

use crate::emit::{Report, count, report, report_end};
use crate::maps::Maps;
use crate::raw;
use crate::storage::Storage;
use crate::usage;

/// What a life-cycle program returns: it has no say.
const DONE: i32 = 1;

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`, `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`, `BPF_SOCK_OPS_STATE_CB`.
const CONNECT: u32 = 3;
const ACCEPTED: u32 = 5;
const STATE: u32 = 10;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`: be told of changes of state.
const TELL_STATE: i32 = 1 << 2;
/// `TCP_CLOSE` (include/net/tcp_states.h).
const CLOSE: u32 = 7;

/// `sockops` of a socket that was born in the slice.
#[inline(always)]
pub(crate) fn operation(ctx: &SockOpsContext) -> i32 {
    match ctx.op() {
        CONNECT => {
            // Without it the end is not recorded by itself; the socket's own end still counts it.
            let _ = ctx.set_cb_flags(TELL_STATE);
        }
        ACCEPTED => {
            accepted(ctx);
        }
        STATE if ctx.arg(1) == CLOSE => {
            closed(ctx);
        }
        _ => {}
    }
    DONE
}

#[inline(never)]
fn closed(ctx: &SockOpsContext) -> i32 {
    if let Some(storage) = raw::operation_storage(ctx) {
        storage.set_counters(raw::tcp_counters(ctx));
        end(storage, Hook::SockOps, &raw::now(), raw::operation_cookie(ctx));
    }
    DONE
}

/// A listener of the workload has taken a call. The packet check let it in before.
#[inline(never)]
fn accepted(ctx: &SockOpsContext) -> i32 {
    let _ = ctx.set_cb_flags(TELL_STATE);
    let Some(storage) = raw::operation_storage(ctx) else { return DONE };
    let (now, from) = (raw::now(), raw::remote(ctx));
    storage.accepted(&from, now.boot_ns, raw::operation_netns(ctx));
    let state = storage.read();
    // The packet check let in whom the config names, and the workload itself.
    let called = Maps::may_call(&InboundKey::new(state.workload, raw::local_port(ctx), &from));
    let reason = if called { Reason::Listener } else { Reason::SameWorkload };
    count(counter::REASONS + reason as u32);
    report(&Report {
        kind: EventKind::Allowed,
        cookie: raw::operation_cookie(ctx),
        workload: state.workload,
        socket_workload: state.workload,
        grant: GrantRef::INBOUND,
        to: from,
        local_port: raw::local_port(ctx),
        netns: state.netns,
        ..Report::refusal(Hook::SockOps, reason, now.boot_ns)
    });
    DONE
}

/// `sock_release`: the last descriptor is closed. TCP goes on until its last state.
#[inline(always)]
pub(crate) fn released(ctx: &SockContext) -> i32 {
    let Some(storage) = raw::closed_storage(ctx) else { return DONE };
    if storage.has(SocketState::COUNTED) {
        storage.unset(SocketState::COUNTED);
        usage::give_back(storage.read().workload);
    }
    // A connection that ended, or never came about although it was allowed, has no later state to wait for.
    let over = raw::closed_state(ctx) == CLOSE;
    if over || raw::socket_kind(ctx).protocol == u32::from(Protocol::UDP.0) {
        end(storage, Hook::SockRelease, &raw::now(), raw::create_cookie(ctx));
    }
    DONE
}

/// Records the end of what the socket was allowed to, once.
#[inline(never)]
pub(crate) fn end(storage: Storage, hook: Hook, now: &Now, cookie: u64) {
    if !storage.has(SocketState::OPEN) {
        return;
    }
    storage.unset(SocketState::OPEN);
    let s = storage.read();
    let (kind, reason) = life::end(&Maps, now, s.workload, s.grant, &s.destination);
    let ended = Report {
        kind,
        cookie,
        workload: s.workload,
        socket_workload: s.workload,
        grant: s.grant,
        name: s.name,
        to: s.destination,
        netns: s.netns,
        ..Report::refusal(hook, reason, now.boot_ns)
    };
    report_end(&ended, storage);
}
