//! Who is the current task?

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use grantd_common::{WorkloadEntry, WorkloadId, capacity};

use crate::maps::{SLICE_LEVEL, WORKLOADS};

/// The current task's workload and whether it may hold ranges. [`WorkloadId::NONE`] outside the
/// slice; [`WorkloadId::UNKNOWN`] below the slice in no known workload; the deepest known cgroup
/// decides, so that nested children inherit.
#[inline(always)]
pub(crate) fn current() -> (WorkloadId, bool) {
    let level = SLICE_LEVEL.load() as i32;
    match entry_at(level) {
        Some(slice) if slice.flags & WorkloadEntry::SLICE != 0 => {}
        Some(_) | None => return (WorkloadId::NONE, false),
    }
    let mut found = (WorkloadId::UNKNOWN, false);
    let mut below = 1;
    while below <= capacity::LEVELS_BELOW_SLICE as i32 {
        if let Some(entry) = entry_at(level + below) {
            found = (entry.workload, entry.flags & WorkloadEntry::RANGES != 0);
        }
        below += 1;
    }
    found
}

#[inline(always)]
fn entry_at(level: i32) -> Option<WorkloadEntry> {
    // SAFETY: a helper without pointers; 0 where the task has no ancestor at that level.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
    if id == 0 {
        return None;
    }
    // SAFETY: copied out at once; userspace replaces entries whole.
    unsafe { WORKLOADS.get(id) }.copied()
}
