//! The kernel maps. Userspace is the one writer of all but `SOCKETS`, the rings and `COUNTERS`, and
//! in userspace it is the enforcer alone.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use grantd_common::event::counter;
use grantd_common::{
    ABI_VERSION, ExactKey, ExactRule, GrantSlot, PortSet, RangeKey, RangeRule, SocketState, Tables,
    WorkloadEntry, capacity,
};

/// `BPF_F_NO_PREALLOC`: memory follows the number of entries.
const NO_PREALLOC: u32 = 1;

/// Which ABI this object speaks, in the symbol's name: the loader sets it, and fails on an object
/// that does not have it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
pub(crate) static GRANTD_ABI_2: Global<u32> = Global::new(0);
const _: () = assert!(ABI_VERSION == 2, "name the symbol above after the ABI");

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
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);
#[btf_map]
pub(crate) static SOCKETS: SkStorage<SocketState> = SkStorage::new();

/// The maps as the shared decision reads them.
pub(crate) struct Maps;

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
