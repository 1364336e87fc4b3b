//! One function for each hook: `true` refuses.

use aya_ebpf::programs::LsmContext;
use grantd_common::event::counter;
use grantd_common::{Hook, Reason, WorkloadId, guard};

use crate::emit::{Report, count, report_task};
use crate::raw::{Sock, Socket};
use crate::{identity, local, raw};

/// `PTRACE_MODE_NOAUDIT`: the kernel only asks what to show, as for every process in a listing.
const NOT_TO_BE_TOLD: u32 = 4;

#[inline(always)]
pub(crate) fn socket_create(ctx: &LsmContext) -> bool {
    let task = identity::current().workload;
    // The kernel makes some for itself while a task runs: for a new network namespace.
    let (family, kernel): (i32, i32) = (ctx.arg(0), ctx.arg(3));
    if task.0 == WorkloadId::NONE.0 || kernel != 0 {
        return false;
    }
    let (kind, protocol): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let Some(reason) = guard::family(family.cast_unsigned(), protocol.cast_unsigned()) else {
        return false;
    };
    refuse(Refused {
        kind: kind.cast_unsigned(),
        detail: family.cast_unsigned(),
        ..Refused::new(Hook::GuardSocketCreate, reason, task)
    })
}

#[inline(always)]
pub(crate) fn socket_connect(ctx: &LsmContext) -> bool {
    used(Socket(ctx.arg(0)), Hook::GuardSocketConnect)
}

#[inline(always)]
pub(crate) fn socket_sendmsg(ctx: &LsmContext) -> bool {
    used(Socket(ctx.arg(0)), Hook::GuardSocketSendmsg)
}

#[inline(always)]
pub(crate) fn socket_recvmsg(ctx: &LsmContext) -> bool {
    used(Socket(ctx.arg(0)), Hook::GuardSocketRecvmsg)
}

/// Any file that is read or written: a kernel that splices into sockets by `sendpage` asks nothing else.
#[inline(always)]
pub(crate) fn file_permission(ctx: &LsmContext) -> bool {
    match raw::socket_of(ctx.arg::<*mut u8>(0).cast()) {
        Some(socket) => used(socket, Hook::GuardFilePermission),
        None => false,
    }
}

/// A socket that the task holds, however it came by it.
#[inline(always)]
fn used(socket: Socket, hook: Hook) -> bool {
    let task = identity::current().workload;
    if task.0 == WorkloadId::NONE.0 {
        return false;
    }
    let Some(sock) = socket.sock() else { return false };
    let (family, tag) = (sock.family(), sock.tag());
    let Some(reason) = guard::socket(task, family, tag) else { return false };
    if sock.is_kernels_own() {
        return false;
    }
    refuse(Refused { born: tag, detail: family, ..Refused::new(hook, reason, task) })
}

/// A descriptor that another process hands over, or that is taken from it.
#[inline(always)]
pub(crate) fn file_receive(ctx: &LsmContext) -> bool {
    let task = identity::current().workload;
    if task.0 == WorkloadId::NONE.0 {
        return false;
    }
    let Some(socket) = raw::socket_of(ctx.arg::<*mut u8>(0).cast()) else { return false };
    let Some(sock) = socket.sock() else { return false };
    let (family, tag, born) = (sock.family(), sock.tag(), sock.born());
    let Some(reason) = guard::received(task, family, tag, born) else { return false };
    refuse(Refused {
        born: if tag.0 == WorkloadId::NONE.0 { born } else { tag },
        detail: family,
        ..Refused::new(Hook::GuardFileReceive, reason, task)
    })
}

#[inline(always)]
pub(crate) fn unix_stream_connect(ctx: &LsmContext) -> bool {
    talks(Sock(ctx.arg::<*mut u8>(1).cast()), Hook::GuardUnixStreamConnect)
}

#[inline(always)]
pub(crate) fn unix_may_send(ctx: &LsmContext) -> bool {
    let Some(peer) = Socket(ctx.arg(1)).sock() else { return false };
    talks(peer, Hook::GuardUnixMaySend)
}

/// A local socket that the task wants to talk to.
#[inline(always)]
fn talks(peer: Sock, hook: Hook) -> bool {
    let task = identity::current().workload;
    if task.0 == WorkloadId::NONE.0 {
        return false;
    }
    let born = peer.born();
    let Some(reason) = guard::local(task, born, false) else { return false };
    if local::listed(task, peer) {
        return false;
    }
    refuse(Refused { born, detail: guard::AF_UNIX, ..Refused::new(hook, reason, task) })
}

#[inline(always)]
pub(crate) fn ptrace_access_check(ctx: &LsmContext) -> bool {
    let task = identity::current().workload;
    if task.0 == WorkloadId::NONE.0 {
        return false;
    }
    let (pid, target) = raw::task(ctx.arg::<*const u8>(0) as u64);
    let Some(reason) = guard::inspect(task, target) else { return false };
    if ctx.arg::<u32>(1) & NOT_TO_BE_TOLD != 0 {
        count(counter::REASONS + reason as u32);
        return true;
    }
    refuse(Refused { detail: pid, ..Refused::new(Hook::GuardPtraceAccessCheck, reason, task) })
}

#[inline(always)]
pub(crate) fn bpf(ctx: &LsmContext) -> bool {
    let task = identity::current().workload;
    if task.0 == WorkloadId::NONE.0 {
        return false;
    }
    let command: i32 = ctx.arg(0);
    refuse(Refused {
        detail: command.cast_unsigned(),
        ..Refused::new(Hook::GuardBpf, Reason::Bpf, task)
    })
}

#[inline(always)]
pub(crate) fn userns_create(_ctx: &LsmContext) -> bool {
    let task = identity::current().workload;
    if task.0 == WorkloadId::NONE.0 {
        return false;
    }
    let Some(reason) = guard::user_namespace(local::rules(task)) else { return false };
    refuse(Refused::new(Hook::GuardUsernsCreate, reason, task))
}

/// What is told of a refusal.
struct Refused {
    hook: Hook,
    reason: Reason,
    task: WorkloadId,
    /// Of the socket that it is about.
    born: WorkloadId,
    /// Of the socket that was to be made.
    kind: u32,
    detail: u32,
}

impl Refused {
    #[inline(always)]
    const fn new(hook: Hook, reason: Reason, task: WorkloadId) -> Self {
        Self { hook, reason, task, born: WorkloadId::NONE, kind: 0, detail: 0 }
    }
}

/// Counts and reports it.
#[inline(always)]
fn refuse(r: Refused) -> bool {
    count(counter::REASONS + r.reason as u32);
    // The daemon itself tries all of it, again and again.
    if r.task.0 == WorkloadId::CANARY.0 {
        return true;
    }
    report_task(&Report {
        workload: r.task,
        socket_workload: r.born,
        socket_type: r.kind,
        detail: r.detail,
        ..Report::refusal(r.hook, r.reason, raw::boot_ns())
    });
    true
}
