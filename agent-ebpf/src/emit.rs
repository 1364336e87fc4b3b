//! Reports to userspace: ring buffers, and counters where a ring is full.

use core::arch::asm;

use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    bpf_get_smp_processor_id,
};
use grantd_common::event::counter;
use grantd_common::{
    Endpoint, Event, EventKind, GrantRef, Hook, Port, Reason, Ring, SocketState, WorkloadId,
    capacity,
};

use crate::maps::{COUNTERS, DENIALS, FLOWS, WAKE};
use crate::storage::Storage;

/// `BPF_RB_AVAIL_DATA`.
const AVAILABLE: u64 = 0;
/// `BPF_RB_NO_WAKEUP`.
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`.
const FORCE_WAKEUP: u64 = 2;

/// What a hook knows of a verdict; the rest is read here.
pub(crate) struct Report {
    pub(crate) kind: EventKind,
    pub(crate) hook: Hook,
    pub(crate) reason: u8,
    pub(crate) boot_ns: u64,
    pub(crate) cookie: u64,
    pub(crate) workload: WorkloadId,
    pub(crate) socket_workload: WorkloadId,
    pub(crate) grant: GrantRef,
    pub(crate) name: u32,
    pub(crate) to: Endpoint,
    pub(crate) allowed_to: Endpoint,
    pub(crate) socket_type: u32,
    pub(crate) local_port: Port,
    pub(crate) detail: u32,
    pub(crate) netns: u64,
}

/// Whose doing it was. Known when a program is compiled: kernels such as 6.1 and 6.12 refuse packet and
/// life-cycle programs that only contain a question about the current task.
#[derive(Clone, Copy)]
enum Who {
    /// A packet has no task of its own: whatever runs just now is not who sent it.
    Nobody,
    /// The current task.
    Current,
    /// Who was allowed, as the socket remembers it.
    Recorded(Storage),
}

impl Report {
    /// A refusal of something that has no destination: all else is to be filled in.
    #[inline(always)]
    pub(crate) fn refusal(hook: Hook, reason: Reason, boot_ns: u64) -> Self {
        Self {
            kind: EventKind::Denied,
            hook,
            reason: reason as u8,
            boot_ns,
            cookie: 0,
            workload: WorkloadId::NONE,
            socket_workload: WorkloadId::NONE,
            grant: GrantRef::NONE,
            name: 0,
            to: Endpoint::NONE,
            allowed_to: Endpoint::NONE,
            socket_type: 0,
            local_port: Port([0, 0]),
            detail: 0,
            netns: 0,
        }
    }
}

/// Adds one to a counter and returns what it was. Programs may be preempted, so this is atomic
/// although the counter belongs to one CPU.
#[inline(always)]
pub(crate) fn count(index: u32) -> u64 {
    match COUNTERS.get_ptr_mut(index) {
        // SAFETY: an aligned u64 in a map element that outlives the program.
        Some(p) => unsafe { fetch_add(p, 1) },
        None => 0,
    }
}

/// `core` offers no read-modify-write atomics for the BPF target; the instruction exists since
/// kernel 5.12.
///
/// # Safety
/// `p` is an aligned `u64` in a map element.
#[inline(always)]
pub(crate) unsafe fn fetch_add(p: *mut u64, by: u64) -> u64 {
    let mut value = by;
    // SAFETY: one instruction, which touches the pointed-to word and its operand register.
    unsafe {
        asm!("{v} = atomic_fetch_add((u64 *)({p} + 0), {v})", p = in(reg) p, v = inout(reg) value);
    };
    value
}

/// Writes one event that is nobody's doing. A full ring never alters the verdict: the event is counted as
/// lost, and its sequence number stays unused.
#[inline(never)]
pub(crate) fn report(r: &Report) {
    write(r, Who::Nobody);
}

/// The same for what the current task does.
#[inline(never)]
pub(crate) fn report_task(r: &Report) {
    write(r, Who::Current);
}

/// The same for the end of what a socket was allowed to: task, time and traffic are those that its storage
/// remembers.
#[inline(never)]
pub(crate) fn report_end(r: &Report, storage: Storage) {
    write(r, Who::Recorded(storage));
}

#[inline(always)]
fn write(r: &Report, who: Who) {
    let (ring, map) = match r.kind {
        EventKind::Allowed | EventKind::Closed | EventKind::Reset => (Ring::Flows, &FLOWS),
        EventKind::Denied | EventKind::Dropped => (Ring::Denials, &DENIALS),
    };
    let sequence = count(counter::SEQUENCE + ring as u32);
    let Some(mut entry) = map.reserve::<Event>(0) else {
        count(counter::LOST + ring as u32);
        return;
    };
    let (task, opened_boot_ns, counters) = match who {
        Who::Recorded(storage) => {
            let s = storage.read();
            (Task::recorded(s), s.allowed_boot_ns, s.counters)
        }
        Who::Nobody => (Task::NONE, 0, [0; 4]),
        Who::Current => (Task::current(), 0, [0; 4]),
    };
    entry.write(Event {
        kind: r.kind as u8,
        hook: r.hook as u8,
        reason: r.reason,
        padding: 0,
        // SAFETY: a helper without arguments.
        cpu: unsafe { bpf_get_smp_processor_id() },
        sequence,
        boot_ns: r.boot_ns,
        cookie: r.cookie,
        cgroup: task.cgroup,
        pid: (task.pid_tgid >> 32) as u32,
        tid: low(task.pid_tgid),
        uid: low(task.uid_gid),
        gid: (task.uid_gid >> 32) as u32,
        workload: r.workload,
        socket_workload: r.socket_workload,
        slot: r.grant.slot(),
        generation: r.grant.generation(),
        to: r.to,
        socket_type: r.socket_type,
        allowed_to: r.allowed_to,
        name: r.name,
        comm: task.comm,
        local_port: r.local_port,
        padding2: 0,
        detail: r.detail,
        netns: r.netns,
        opened_boot_ns,
        counters,
        reserved: [0; 2],
    });
    entry.submit(wake(ring, map.query(AVAILABLE)));
}

/// A wake-up for each event would double the cost of a connect: the reader is woken when it sleeps,
/// or when much has gathered; in between it comes by itself every few milliseconds.
#[inline(always)]
fn wake(ring: Ring, waiting: u64) -> u64 {
    if let Some(armed) = WAKE.get_ptr_mut(ring as u32) {
        // SAFETY: an aligned u32 in a map element that outlives the program. Two programs that both
        // see it armed wake the reader twice, which does no harm.
        unsafe {
            if armed.read_volatile() != 0 {
                armed.write_volatile(0);
                return FORCE_WAKEUP;
            }
        }
    }
    if waiting >= capacity::RING_WAKE_BYTES { FORCE_WAKEUP } else { NO_WAKEUP }
}

/// The lower of two numbers that a helper returns in one word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the upper half is the other number")]
const fn low(pair: u64) -> u32 {
    pair as u32
}

struct Task {
    cgroup: u64,
    pid_tgid: u64,
    uid_gid: u64,
    comm: [u8; 16],
}

impl Task {
    const NONE: Self = Self { cgroup: 0, pid_tgid: 0, uid_gid: 0, comm: [0; 16] };

    #[inline(always)]
    const fn recorded(s: &SocketState) -> Self {
        Self {
            cgroup: s.cgroup,
            pid_tgid: (s.pid as u64) << 32,
            uid_gid: s.uid as u64,
            comm: s.comm,
        }
    }

    #[inline(always)]
    fn current() -> Self {
        // SAFETY: helpers without arguments.
        unsafe {
            Self {
                cgroup: bpf_get_current_cgroup_id(),
                pid_tgid: bpf_get_current_pid_tgid(),
                uid_gid: bpf_get_current_uid_gid(),
                comm: bpf_get_current_comm().unwrap_or([0; 16]),
            }
        }
    }
}
