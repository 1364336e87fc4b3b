//! Making sockets, connecting, sending datagrams, and setting options.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::{SockAddrContext, SockContext, SockoptContext};
use grantd_common::event::counter;
use grantd_common::packet::Peer;
use grantd_common::{
    Endpoint, EventKind, GrantRef, Hook, InboundKey, Match, Now, Protocol, Query, Reason,
    SocketState, Tables as _, Verdict, WorkloadId, decide, options,
};

use crate::emit::{Report, count, report_task};
use crate::ends;
use crate::identity::{self, Identity};
use crate::maps::Maps;
use crate::peer;
use crate::raw::{self, SocketKind};
use crate::storage::{Opened, Storage};
use crate::usage;

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
    let task = identity::current();
    if task.workload == WorkloadId::NONE {
        return ALLOW;
    }
    let kind = raw::socket_kind(ctx);
    let Err(refused) = born(ctx, &task, &kind) else { return ALLOW };
    count(counter::REASONS + refused as u32);
    let mut to = Endpoint::NONE;
    // Numbers beyond a byte (MPTCP is 262) are shown by the socket type alone.
    to.protocol = Protocol(u8::try_from(kind.protocol).unwrap_or(0));
    report_task(&Report {
        cookie: raw::create_cookie(ctx),
        workload: task.workload,
        to,
        socket_type: kind.kind,
        detail: kind.family,
        ..Report::refusal(Hook::SockCreate, refused, raw::now().boot_ns)
    });
    DENY
}

#[inline(always)]
fn born(ctx: &SockContext, task: &Identity, kind: &SocketKind) -> Result<(), Reason> {
    if !may_exist(kind) {
        return Err(Reason::SocketType);
    }
    if !task.slice_attached() {
        return Err(Reason::SliceNotReady);
    }
    let storage = raw::create_storage(ctx).ok_or(Reason::StorageFull)?;
    usage::take(task.workload)?;
    storage.set_birth(task.workload);
    storage.set(SocketState::COUNTED);
    Ok(())
}

#[inline(always)]
fn may_exist(k: &SocketKind) -> bool {
    let family = k.family == AF_INET || k.family == AF_INET6;
    let tcp = k.kind == SOCK_STREAM && k.protocol == Protocol::TCP.0 as u32;
    let udp = k.kind == SOCK_DGRAM && k.protocol == Protocol::UDP.0 as u32;
    family && (tcp || udp)
}

/// `connect4/6` and `sendmsg4/6`; `V6` is known to the compiler, because the verifier takes no pointer that may
/// be to either family's address. Each step is a function of its own, for the sake of the 512 bytes of stack
/// that they share.
#[inline(always)]
pub(crate) fn send<const V6: bool>(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let mut j = Judged::NOTHING;
    match look_up::<V6>(ctx, hook, &mut j) {
        NOT_OURS => return ALLOW,
        BESIDE_GRANTS => {
            j.evidence.grant = beside_grants(ctx, hook, j.workload, &j.to);
            j.reason = why(j.evidence.grant, j.reason);
        }
        _ => {}
    }
    if j.evidence.grant.0 == GrantRef::NONE.0 {
        return concluded(ctx, hook, &j, DENY);
    }
    let Some(s) = raw::storage(ctx) else { return DENY };
    let datagram = matches!(hook, Hook::Sendmsg4 | Hook::Sendmsg6);
    if datagram && known(s, &j) {
        count(counter::REPEATED);
        return ALLOW;
    }
    let now = raw::now();
    // A datagram socket that turns elsewhere ends what it had.
    ends::end(s, hook, &now, raw::cookie(ctx));
    let opened = Opened { boot_ns: now.boot_ns, netns: raw::netns(ctx), connected: !datagram };
    s.allow(&j.to, &j.evidence, &opened);
    concluded(ctx, hook, &j, ALLOW)
}

/// What the look-ups have found.
struct Judged {
    reason: u8,
    workload: WorkloadId,
    born: WorkloadId,
    to: Endpoint,
    /// [`GrantRef::NONE`]: it is refused.
    evidence: Match,
}

impl Judged {
    const NOTHING: Self = Self {
        reason: Reason::ForeignSocket as u8,
        workload: WorkloadId::NONE,
        born: WorkloadId::NONE,
        to: Endpoint::NONE,
        evidence: Match { grant: GrantRef::NONE, name: 0 },
    };
}

/// What [`look_up`] returns: neither task nor socket is confined, or the datagram belongs to a flow that is
/// known already.
const NOT_OURS: u32 = 0;
/// `Judged` says what it is.
const DECIDED: u32 = 1;
/// No grant covers it; it may be allowed without.
const BESIDE_GRANTS: u32 = 2;

#[inline(never)]
fn look_up<const V6: bool>(ctx: &SockAddrContext, hook: Hook, j: &mut Judged) -> u32 {
    let task = identity::current();
    let storage = raw::storage(ctx);
    j.born = match storage {
        Some(s) => s.read().workload,
        None => WorkloadId::NONE,
    };
    if task.workload == WorkloadId::NONE && j.born == WorkloadId::NONE {
        return NOT_OURS;
    }
    // An outsider that uses a workload's socket is judged by the socket.
    let outsider = task.workload == WorkloadId::NONE;
    j.workload = if outsider { j.born } else { task.workload };
    let Some(to) = target(ctx, V6) else {
        j.reason = Reason::SocketType as u8;
        return DECIDED;
    };
    j.to = to;
    // The packets of a socket that was born elsewhere would meet no hook of the slice and outlive the grant.
    let Some(s) = storage else { return DECIDED };
    if j.born != j.workload {
        return DECIDED;
    }
    if task.pending() {
        j.reason = Reason::WorkloadPending as u8;
        return DECIDED;
    }
    let now = raw::now();
    if repeated(s, &to, hook, &now) {
        count(counter::REPEATED);
        return NOT_OURS;
    }
    let ask_ranges = outsider || task.ranges();
    match decide(&Maps, &now, &Query { workload: j.workload, to, ask_ranges }) {
        Verdict::Allow(evidence) => {
            j.evidence = evidence;
            j.reason = Reason::Granted as u8;
            DECIDED
        }
        Verdict::Deny(reason) => {
            j.reason = reason as u8;
            BESIDE_GRANTS
        }
    }
}

/// Whether the socket rests on the same already, and that was reported.
#[inline(always)]
fn known(s: Storage, j: &Judged) -> bool {
    s.has(SocketState::OPEN)
        && s.read().grant.0 == j.evidence.grant.0
        && s.read().destination == j.to
}

/// Counts and reports what was decided.
#[inline(never)]
fn concluded(ctx: &SockAddrContext, hook: Hook, j: &Judged, verdict: i32) -> i32 {
    count(counter::REASONS + u32::from(j.reason));
    report_task(&Report {
        kind: if verdict == ALLOW { EventKind::Allowed } else { EventKind::Denied },
        reason: j.reason,
        cookie: raw::cookie(ctx),
        workload: j.workload,
        socket_workload: j.born,
        grant: j.evidence.grant,
        name: j.evidence.name,
        to: j.to,
        netns: raw::netns(ctx),
        ..Report::refusal(hook, Reason::NoGrant, raw::now().boot_ns)
    });
    verdict
}

#[inline(always)]
const fn why(grant: GrantRef, refused: u8) -> u8 {
    if grant.0 == GrantRef::SAME_WORKLOAD.0 {
        Reason::SameWorkload as u8
    } else if grant.0 == GrantRef::INBOUND.0 {
        Reason::Listener as u8
    } else {
        refused
    }
}

/// What no grant covers may still be the workload's own socket, over loopback, or the answer to a caller
/// whom the config lets in. [`GrantRef::NONE`] where it is neither.
#[inline(never)]
fn beside_grants(
    ctx: &SockAddrContext,
    hook: Hook,
    workload: WorkloadId,
    to: &Endpoint,
) -> GrantRef {
    if workload.0 <= WorkloadId::UNKNOWN.0 {
        return GrantRef::NONE;
    }
    let near = raw::near(ctx, to);
    if to.address.is_loopback() {
        match peer::find(ctx.as_ptr(), workload, &near, to) {
            Peer::Own | Peer::Open => return GrantRef::SAME_WORKLOAD,
            Peer::Other => {}
        }
    }
    let answer = matches!(hook, Hook::Sendmsg4 | Hook::Sendmsg6) && near.port.get() != 0;
    if answer && Maps::may_call(&InboundKey::new(workload, near.port, to)) {
        return GrantRef::INBOUND;
    }
    GrantRef::NONE
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
    match Maps.slot(s.grant.slot()) {
        Some(slot) => slot.successor == 0 && slot.refusal(s.grant.generation(), now).is_none(),
        None => false,
    }
}

/// `setsockopt` on a socket that was born in the slice. It is not asked for 32-bit system calls, which
/// the launcher refuses; the packet hooks see what the options would have done.
#[inline(always)]
pub(crate) fn set_option(ctx: &SockoptContext) -> i32 {
    let (level, option) = raw::option(ctx);
    if !options::refused(level, option) {
        if options::shares(level, option)
            && let Some(storage) = raw::option_storage(ctx)
        {
            storage.set(SocketState::SHARED);
        }
        raw::keep_option_value(ctx);
        return ALLOW;
    }
    let reason = Reason::SocketOption;
    count(counter::REASONS + reason as u32);
    let (task, storage) = (identity::current(), raw::option_storage(ctx));
    let born = match storage {
        Some(s) => s.read().workload,
        None => WorkloadId::NONE,
    };
    let workload = if task.workload == WorkloadId::NONE { born } else { task.workload };
    report_task(&Report {
        workload,
        socket_workload: born,
        detail: level.cast_unsigned() << 16 | (option.cast_unsigned() & 0xffff),
        ..Report::refusal(Hook::Setsockopt, reason, raw::now().boot_ns)
    });
    DENY
}
