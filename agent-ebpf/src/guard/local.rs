//! What the config says of local sockets and user namespaces. Written by userspace alone.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use grantd_common::{LocalPeer, WorkloadId, capacity};

use crate::raw::Sock;

/// `BPF_F_NO_PREALLOC`: memory follows the number of entries.
const NO_PREALLOC: u32 = 1;

/// Local sockets outside that a workload may talk to.
#[map]
static LOCAL_PEERS: HashMap<LocalPeer, u32> =
    HashMap::with_max_entries(capacity::LOCAL_PEERS, NO_PREALLOC);
/// Bits of `grantd_common::guard::rule`, for workloads that have any.
#[map]
static GUARD_RULES: HashMap<WorkloadId, u32> =
    HashMap::with_max_entries(capacity::WORKLOADS, NO_PREALLOC);

/// Whether the config opens this local socket to the workload.
#[inline(always)]
pub(crate) fn listed(workload: WorkloadId, peer: Sock) -> bool {
    match peer.bound(workload) {
        Some(key) => LOCAL_PEERS.get_ptr(key).is_some(),
        None => false,
    }
}

#[inline(always)]
pub(crate) fn rules(workload: WorkloadId) -> u32 {
    // SAFETY: copied out at once; userspace replaces entries whole.
    unsafe { GUARD_RULES.get(workload) }.copied().unwrap_or(0)
}
