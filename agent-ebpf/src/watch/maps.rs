//! The maps of the watch object. `WORKLOADS` is the enforce object's.

use aya_ebpf::Global;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use grantd_common::{ABI_VERSION, PathKey, WorkloadEntry, WorkloadId, capacity};

/// `BPF_F_NO_PREALLOC`: memory follows the number of entries.
const NO_PREALLOC: u32 = 1;

/// Which ABI this object speaks, in the symbol's name.
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
/// What a cgroup that is made at a path becomes. Written by userspace alone.
#[map]
pub(crate) static PATHS: HashMap<PathKey, WorkloadEntry> =
    HashMap::with_max_entries(capacity::PATHS, NO_PREALLOC);
#[map]
pub(crate) static MOVES: RingBuf = RingBuf::with_byte_size(capacity::MOVES_BYTES, 0);
/// How many events found the ring full, or could not be made.
#[map]
pub(crate) static MOVES_LOST: Array<u64> = Array::with_max_entries(1, 0);
/// Room for a path, which the stack does not have.
#[map]
pub(crate) static PATH: PerCpuArray<PathKey> = PerCpuArray::with_max_entries(1, 0);
/// The workload that each process of the slice was last seen in.
#[btf_map]
pub(crate) static TASKS: TaskStorage = TaskStorage::new();

/// The definition of a task storage as loaders read it from the type information.
#[repr(C)]
pub(crate) struct TaskStorage {
    r#type: *const [i32; aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const WorkloadId,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; NO_PREALLOC as usize],
}

// SAFETY: the fields only carry types for the loader; nothing ever reads them.
unsafe impl Sync for TaskStorage {}

impl TaskStorage {
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
