//! Who is the current task?

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use grantd_common::{WorkloadEntry, WorkloadId, capacity};

use crate::maps::{SLICE_LEVEL, WORKLOADS};

/// What the current task's cgroups say.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// [`WorkloadId::NONE`] outside the slice; [`WorkloadId::UNKNOWN`] below the slice in no known
    /// workload.
    pub(crate) workload: WorkloadId,
    /// The flags of the entry that decided.
    flags: u32,
    /// The flags of the slice.
    slice: u32,
}

impl Identity {
    const OUTSIDE: Self = Self { workload: WorkloadId::NONE, flags: 0, slice: 0 };

    /// Whether the workload may hold ranges.
    #[inline(always)]
    pub(crate) const fn ranges(&self) -> bool {
        self.flags & WorkloadEntry::RANGES != 0
    }

    /// Whether the workload's cgroup is new and its predecessor's grants have not been ended.
    #[inline(always)]
    pub(crate) const fn pending(&self) -> bool {
        self.flags & WorkloadEntry::PENDING != 0
    }

    /// Whether the slice's own hooks see the packets of a socket that is made now.
    #[inline(always)]
    pub(crate) const fn slice_attached(&self) -> bool {
        self.slice & WorkloadEntry::ATTACHED != 0
    }
}

/// The current task's identity: the deepest known cgroup decides, so that nested children inherit.
#[inline(always)]
pub(crate) fn current() -> Identity {
    let level = SLICE_LEVEL.load() as i32;
    let slice = match entry_at(level) {
        Some(slice) if slice.flags & WorkloadEntry::SLICE != 0 => slice.flags,
        Some(_) | None => return Identity::OUTSIDE,
    };
    let mut found = Identity { workload: WorkloadId::UNKNOWN, flags: 0, slice };
    let mut below = 1;
    while below <= capacity::LEVELS_BELOW_SLICE as i32 {
        if let Some(entry) = entry_at(level + below) {
            found = Identity { workload: entry.workload, flags: entry.flags, slice };
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
