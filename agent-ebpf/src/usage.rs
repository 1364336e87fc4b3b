//! How many sockets each workload holds: their tags are charged to grantd's memory, and no workload may
//! use up what the others need.

use grantd_common::{Reason, WorkloadId, capacity};

use crate::emit::fetch_add;
use crate::maps::{LIMITS, USAGE};

/// `BPF_NOEXIST`: two programs that meet here leave one entry.
const NO_EXIST: u64 = 1;

/// Counts one more socket of a workload.
#[inline(always)]
pub(crate) fn take(workload: WorkloadId) -> Result<(), Reason> {
    if USAGE.get_ptr(workload).is_none() {
        // One that is there already is as good.
        let _ = USAGE.insert(workload, 0, NO_EXIST);
    }
    let usage = USAGE.get_ptr_mut(workload).ok_or(Reason::StorageFull)?;
    // SAFETY: an aligned word of a map entry that lives as long as the program runs.
    let before = unsafe { fetch_add(usage, 1) };
    let max = match LIMITS.get_ptr(workload) {
        // SAFETY: as above; userspace replaces entries whole.
        Some(max) => unsafe { max.read_volatile() },
        None => capacity::DEFAULT_MAX_SOCKETS,
    };
    if before < max {
        return Ok(());
    }
    give_back(workload);
    Err(Reason::TooManySockets)
}

/// Counts one less.
#[inline(always)]
pub(crate) fn give_back(workload: WorkloadId) {
    if let Some(usage) = USAGE.get_ptr_mut(workload) {
        // SAFETY: as above; adding all ones is taking one away.
        unsafe { fetch_add(usage, u64::MAX) };
    }
}
