//! Making sockets, connecting, and sending datagrams.

use aya_ebpf::programs::{SockAddrContext, SockContext};
use grantd_common::event::counter;
use grantd_common::{
    Endpoint, EventKind, GrantRef, Hook, Match, Now, Protocol, Query, Reason, Verdict, WorkloadId,
    decide,
};

use crate::emit::{Report, count, report};
use crate::identity;
use crate::maps::Maps;
use crate::raw::{self, SocketKind, Storage};

const ALLOW: i32 = 1;
/// The system call fails with EPERM.
const DENY: i32 = 0;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// `sock_create`: only TCP streams and UDP datagrams, each tagged with its maker's workload.
#[inline(always)]
pub(crate) fn create(ctx: &SockContext) -> i32 {
    let (workload, _) = identity::current();
    if workload == WorkloadId::NONE {
        return ALLOW;
    }
    let kind = raw::socket_kind(ctx);
    let refused = if !may_exist(&kind) {
        Reason::SocketType
    } else if let Some(storage) = raw::create_storage(ctx) {
        storage.set_birth(workload);
        return ALLOW;
    } else {
        Reason::StorageFull
    };
    count(counter::REASONS + refused as u32);
    let mut to = Endpoint::NONE;
    // Numbers beyond a byte (MPTCP is 262) are shown by the socket type alone.
    to.protocol = Protocol(u8::try_from(kind.protocol).unwrap_or(0));
    report(&Report {
        kind: EventKind::Denied,
        hook: Hook::SockCreate,
        reason: refused,
        boot_ns: raw::now().boot_ns,
        cookie: raw::create_cookie(ctx),
        workload,
        socket_workload: WorkloadId::NONE,
        grant: GrantRef::NONE,
        name: 0,
        to,
        allowed_to: Endpoint::NONE,
        socket_type: kind.kind,
    });
    DENY
}

#[inline(always)]
fn may_exist(k: &SocketKind) -> bool {
    let family = k.family == AF_INET || k.family == AF_INET6;
    let tcp = k.kind == SOCK_STREAM && k.protocol == Protocol::TCP.0 as u32;
    let udp = k.kind == SOCK_DGRAM && k.protocol == Protocol::UDP.0 as u32;
    family && (tcp || udp)
}

/// `connect4/6` and `sendmsg4/6`.
#[inline(always)]
pub(crate) fn send(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let (task, task_ranges) = identity::current();
    let storage = raw::storage(ctx);
    let born = match storage {
        Some(s) => s.read().workload,
        None => WorkloadId::NONE,
    };
    if task == WorkloadId::NONE && born == WorkloadId::NONE {
        return ALLOW;
    }
    let v6 = matches!(hook, Hook::Connect6 | Hook::Sendmsg6);
    let now = raw::now();
    // An outsider that uses a workload's socket is judged by the socket.
    let (workload, ask_ranges) =
        if task == WorkloadId::NONE { (born, true) } else { (task, task_ranges) };
    let to = target(ctx, v6);
    let judged = match (storage, &to) {
        (Some(s), Some(to)) if born == workload => {
            if repeated(s, to, hook, &now) {
                count(counter::REPEATED);
                return ALLOW;
            }
            decide(&Maps, &now, &Query { workload, to: *to, ask_ranges })
        }
        (_, None) => Verdict::Deny(Reason::SocketType),
        // Its packets would meet no hook of the slice and outlive the grant.
        (_, Some(_)) => Verdict::Deny(Reason::ForeignSocket),
    };
    let to = to.unwrap_or(Endpoint::NONE);
    let (kind, reason, evidence) = match judged {
        Verdict::Allow(evidence) => (EventKind::Allowed, Reason::Granted, evidence),
        Verdict::Deny(reason) => {
            (EventKind::Denied, reason, Match { grant: GrantRef::NONE, name: 0 })
        }
    };
    if let (EventKind::Allowed, Some(s)) = (kind, storage) {
        s.allow(&to, &evidence, now.boot_ns);
    }
    count(counter::REASONS + reason as u32);
    report(&Report {
        kind,
        hook,
        reason,
        boot_ns: now.boot_ns,
        cookie: raw::cookie(ctx),
        workload,
        socket_workload: born,
        grant: evidence.grant,
        name: evidence.name,
        to,
        allowed_to: Endpoint::NONE,
        socket_type: 0,
    });
    if matches!(kind, EventKind::Allowed) { ALLOW } else { DENY }
}

/// The destination, an unspecified one already rewritten to what the kernel would use.
#[inline(always)]
fn target(ctx: &SockAddrContext, v6: bool) -> Option<Endpoint> {
    let mut to = raw::destination(ctx, v6)?;
    if to.address.is_unspecified() {
        raw::rewrite_to_loopback(ctx, v6, to.address.is_v4());
        to.address = to.address.loopback_of_same_family();
    }
    Some(to)
}

/// A further datagram of a flow that was allowed and reported: the look-up is spared while the same
/// grant lives. Rules that a name gave end by themselves and are always looked up.
#[inline(always)]
fn repeated(storage: Storage, to: &Endpoint, hook: Hook, now: &Now) -> bool {
    if !matches!(hook, Hook::Sendmsg4 | Hook::Sendmsg6) {
        return false;
    }
    let s = storage.read();
    if s.grant.slot() == 0 || s.name != 0 || s.destination != *to {
        return false;
    }
    use grantd_common::Tables as _;
    match Maps.slot(s.grant.slot()) {
        Some(slot) => slot.successor == 0 && slot.refusal(s.grant.generation(), now).is_none(),
        None => false,
    }
}
