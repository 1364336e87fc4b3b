//! Which cgroups are ours, and who enters and leaves them.

use aya_ebpf::bindings::BPF_ANY;
use grantd_common::{Move, MoveKind, WorkloadEntry, WorkloadId, capacity};

use crate::maps::{MOVES, MOVES_LOST, PATHS, SLICE_LEVEL, WORKLOADS};
use crate::raw::{self, Cgroup, Task};

/// A cgroup was made: one at a path of ours is known from here on. The slice's hooks are not attached to
/// it, and what a workload's predecessor was granted has not ended: the entry says so.
#[inline(always)]
pub(crate) fn made(cgroup: Cgroup, path: u64) {
    if !cgroup.is_unified() {
        return;
    }
    let Some(path) = raw::path(path) else { return };
    // SAFETY: copied out at once; userspace replaces entries whole.
    let Some(entry) = (unsafe { PATHS.get(path) }).copied() else { return };
    let id = cgroup.id();
    if WORKLOADS.insert(id, entry, u64::from(BPF_ANY)).is_err() {
        lost();
    }
    tell(&about(MoveKind::Made, id, entry.workload));
}

/// What is gone makes room.
#[inline(always)]
pub(crate) fn removed(cgroup: Cgroup) {
    if !cgroup.is_unified() {
        return;
    }
    let id = cgroup.id();
    // SAFETY: copied out at once.
    let Some(entry) = (unsafe { WORKLOADS.get(id) }).copied() else { return };
    if WORKLOADS.remove(id).is_err() {
        lost();
    }
    tell(&about(MoveKind::Removed, id, entry.workload));
}

/// A process was moved to another cgroup.
#[inline(always)]
pub(crate) fn moved(cgroup: Cgroup, task: Task) {
    if !cgroup.is_unified() {
        return;
    }
    let (from, to) = (task.seen_in(), workload_of(cgroup));
    if from.0 == to.0 {
        return;
    }
    if !task.see_in(to) {
        lost();
    }
    let (by_pid, by_uid) = raw::current();
    let kind = if to.0 == WorkloadId::NONE.0 { MoveKind::Left } else { MoveKind::Entered };
    tell(&Move {
        pid: task.pid(),
        from,
        start_boot_ns: task.start_boot_ns(),
        by_pid,
        by_uid,
        comm: task.comm(),
        ..about(kind, cgroup.id(), to)
    });
}

/// A process was started inside the slice: it is remembered, so that it is noticed when it leaves.
#[inline(always)]
pub(crate) fn born(task: Task) {
    if !task.leads() {
        return;
    }
    let workload = workload_of(task.cgroup());
    if workload.0 != WorkloadId::NONE.0 && !task.see_in(workload) {
        lost();
    }
}

/// Whose a cgroup is: the deepest known one at most so many levels below the slice decides.
#[inline(always)]
fn workload_of(cgroup: Cgroup) -> WorkloadId {
    let (slice, level) = (SLICE_LEVEL.load(), cgroup.level());
    if level < slice {
        return WorkloadId::NONE;
    }
    match entry(cgroup.ancestor(slice)) {
        Some(entry) if entry.flags & WorkloadEntry::SLICE != 0 => {}
        Some(_) | None => return WorkloadId::NONE,
    }
    let mut found = WorkloadId::UNKNOWN;
    let mut below = 1;
    while below <= capacity::LEVELS_BELOW_SLICE {
        if slice + below <= level
            && let Some(entry) = entry(cgroup.ancestor(slice + below))
        {
            found = entry.workload;
        }
        below += 1;
    }
    found
}

#[inline(always)]
fn entry(cgroup: Cgroup) -> Option<WorkloadEntry> {
    // SAFETY: copied out at once; userspace replaces entries whole.
    unsafe { WORKLOADS.get(cgroup.id()) }.copied()
}

#[inline(always)]
fn about(kind: MoveKind, cgroup: u64, workload: WorkloadId) -> Move {
    Move {
        kind: kind as u32,
        pid: 0,
        from: WorkloadId::NONE,
        to: workload,
        cgroup,
        boot_ns: raw::boot_ns(),
        start_boot_ns: 0,
        by_pid: 0,
        by_uid: 0,
        comm: [0; 16],
    }
}

#[inline(always)]
fn tell(event: &Move) {
    if MOVES.output::<Move>(event, 0).is_err() {
        lost();
    }
}

/// Counted for the daemon, which then looks for itself.
#[inline(always)]
fn lost() {
    let Some(count) = MOVES_LOST.get_ptr_mut(0) else { return };
    // SAFETY: a pointer into an array map's element; two that count at once may count as one, and one is
    // enough to be noticed.
    unsafe { count.write_volatile(count.read_volatile().wrapping_add(1)) };
}
