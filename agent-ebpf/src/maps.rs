//! The kernel maps. Userspace is the one writer of all but `SOCKETS`, the rings and `COUNTERS`, and
//! in userspace it is the enforcer alone.

use aya_ebpf::Global;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use grantd_common::event::counter;
use grantd_common::{
    ABI_VERSION, ExactKey, ExactRule, GrantSlot, InboundKey, PortSet, RangeKey, RangeRule,
    SocketState, Tables, WorkloadEntry, WorkloadId, capacity,
};

/// `BPF_F_NO_PREALLOC`: memory follows the number of entries.
const NO_PREALLOC: u32 = 1;

/// Which ABI this object speaks, in the symbol's name: the loader sets it, and fails on an object
/// that does not have it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static GRANTD_ABI_3: Global<u32> = Global::new(0);
const _: () = assert!(ABI_VERSION == 3, "name the symbol above after the ABI");

/// Depth of the enforced slice below the cgroup root; set by the loader.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static SLICE_LEVEL: Global<u32> = Global::new(0);

#[map]
pub(crate) static WORKLOADS: HashMap<u64, WorkloadEntry> =
    HashMap::with_max_entries(capacity::WORKLOADS, 0);
#[map]
pub(crate) static GRANTS: Array<GrantSlot> = Array::with_max_entries(capacity::GRANTS, 0);
#[map]
pub(crate) static EXACT: HashMap<ExactKey, ExactRule> =
    HashMap::with_max_entries(capacity::EXACT, NO_PREALLOC);
#[map]
pub(crate) static RANGES: LpmTrie<RangeKey, RangeRule> =
    LpmTrie::with_max_entries(capacity::RANGES, NO_PREALLOC);
#[map]
pub(crate) static PORTSETS: Array<PortSet> = Array::with_max_entries(capacity::PORTSETS, 0);
#[map]
pub(crate) static DENIALS: RingBuf = RingBuf::with_byte_size(capacity::RING_BYTES, 0);
#[map]
pub(crate) static FLOWS: RingBuf = RingBuf::with_byte_size(capacity::RING_BYTES, 0);
/// One entry for each ring: non-zero when its reader sleeps and wants to be woken by the next event.
#[map]
pub(crate) static WAKE: Array<u32> = Array::with_max_entries(grantd_common::Ring::COUNT, 0);
/// Which events the audit spool holds for good: one sequence number for each ring and CPU. Written
/// and read by userspace alone; it is here to outlive a killed daemon.
#[map]
pub(crate) static SEEN: Array<u64> = Array::with_max_entries(capacity::SEEN, 0);
/// The newest run of events that were taken and leave no record, for each ring and CPU: their first
/// sequence number and the one after their last. Written and read like `SEEN`.
#[map]
pub(crate) static ASIDE: Array<[u64; 2]> = Array::with_max_entries(capacity::SEEN, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);
/// Sockets that the tasks of each workload have made and not closed. Written by the programs alone.
#[map]
pub(crate) static USAGE: HashMap<WorkloadId, u64> =
    HashMap::with_max_entries(capacity::WORKLOADS, 0);
/// How many each may hold; [`capacity::DEFAULT_MAX_SOCKETS`] where there is no entry.
#[map]
pub(crate) static LIMITS: HashMap<WorkloadId, u64> =
    HashMap::with_max_entries(capacity::WORKLOADS, 0);
#[map]
pub(crate) static INBOUND: LpmTrie<InboundKey, u32> =
    LpmTrie::with_max_entries(capacity::INBOUND, NO_PREALLOC);
#[btf_map]
pub(crate) static SOCKETS: InheritedSkStorage = InheritedSkStorage::new();

/// `BPF_F_NO_PREALLOC`, which the kind demands, and `BPF_F_CLONE`: a connection that a listener accepts
/// starts with the listener's tag, before any program could give it one.
const INHERITED: usize = 1 | 1 << 9;

/// The definition of a socket storage as loaders read it from the type information: `aya_ebpf`'s has fixed
/// flags.
#[repr(C)]
pub(crate) struct InheritedSkStorage {
    r#type: *const [i32; aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketState,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; INHERITED],
}

// SAFETY: the fields only carry types for the loader; nothing ever reads them.
unsafe impl Sync for InheritedSkStorage {}

impl InheritedSkStorage {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}

/// The maps as the shared decision reads them.
#[derive(Clone, Copy)]
pub(crate) struct Maps;

impl Maps {
    /// Whether the host's config lets this caller reach the workload.
    #[inline(always)]
    pub(crate) fn may_call(key: &InboundKey) -> bool {
        INBOUND.get(Key::new(InboundKey::ALL_BITS, *key)).is_some()
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn exact(&self, key: &ExactKey) -> Option<ExactRule> {
        // SAFETY: the value is copied out at once; a concurrent removal leaves the memory readable
        // until this program ends (RCU), and the slot's generation tells a stale rule.
        unsafe { EXACT.get(key) }.copied()
    }

    #[inline(always)]
    fn range(&self, key: &RangeKey) -> Option<RangeRule> {
        RANGES.get(Key::new(RangeKey::ALL_BITS, *key)).copied()
    }

    #[inline(always)]
    fn port_set(&self, index: u32) -> Option<&PortSet> {
        if index == 0 {
            return None;
        }
        PORTSETS.get(index)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<GrantSlot> {
        let slot = GRANTS.get_ptr(index)?;
        // SAFETY: a pointer into an array map's element; volatile, since userspace may write it.
        Some(unsafe { slot.read_volatile() })
    }
}
