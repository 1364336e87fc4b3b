//! Reads of kernel structures, and the calls that take kernel pointers.
//!
//! Offsets are this kernel's, from its type information: see `agent/src/kernel/watch.rs`.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns,
    bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_task_storage_get,
};
use grantd_common::moves::PATH_BYTES;
use grantd_common::{PathKey, WorkloadId};

use crate::maps::{PATH, TASKS};

macro_rules! offsets {
    ($( $(#[$doc:meta])* $name:ident; )*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".rodata")]
            static $name: Global<u32> = Global::new(0);
        )*
    };
}

offsets! {
    CGROUP_LEVEL;
    CGROUP_KN;
    CGROUP_ROOT;
    CGROUP_ANCESTORS;
    ROOT_HIERARCHY;
    KN_ID;
    TASK_PID;
    TASK_TGID;
    TASK_START;
    TASK_COMM;
    TASK_CGROUPS;
    SET_CGROUP;
}

/// The hierarchy of cgroup v2.
const UNIFIED: u32 = 0;
/// `BPF_LOCAL_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

/// Reads one field; zeroes where there is nothing to read.
#[inline(always)]
fn field<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the destination is a live value of the stated size, and the helper fails, without a fault,
    // on an address that holds nothing.
    unsafe {
        let from = (base + u64::from(offset)) as *const core::ffi::c_void;
        bpf_probe_read_kernel((&raw mut value).cast(), grantd_common::size::<T>(), from);
    }
    value
}

/// A `struct cgroup`.
#[derive(Clone, Copy)]
pub(crate) struct Cgroup(pub(crate) u64);

impl Cgroup {
    #[inline(always)]
    pub(crate) fn id(self) -> u64 {
        field(field(self.0, CGROUP_KN.load()), KN_ID.load())
    }

    /// Whether it is one of cgroup v2: cgroups of other hierarchies may lie at the same path.
    #[inline(always)]
    pub(crate) fn is_unified(self) -> bool {
        let root: u64 = field(self.0, CGROUP_ROOT.load());
        root != 0 && field::<u32>(root, ROOT_HIERARCHY.load()) == UNIFIED
    }

    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        field(self.0, CGROUP_LEVEL.load())
    }

    /// Its ancestor at a level that is not below its own.
    #[inline(always)]
    pub(crate) fn ancestor(self, level: u32) -> Self {
        Self(field(self.0, CGROUP_ANCESTORS.load() + level * 8))
    }
}

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task(pub(crate) u64);

impl Task {
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        field(self.0, TASK_TGID.load())
    }

    /// Whether it stands for its process: other threads are not told apart.
    #[inline(always)]
    pub(crate) fn leads(self) -> bool {
        field::<u32>(self.0, TASK_PID.load()) == self.pid()
    }

    #[inline(always)]
    pub(crate) fn start_boot_ns(self) -> u64 {
        field(self.0, TASK_START.load())
    }

    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; 16] {
        field(self.0, TASK_COMM.load())
    }

    /// Its cgroup of cgroup v2.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> Cgroup {
        Cgroup(field(field(self.0, TASK_CGROUPS.load()), SET_CGROUP.load()))
    }

    /// The workload that it was last seen in; [`WorkloadId::NONE`] where it was not seen.
    #[inline(always)]
    pub(crate) fn seen_in(self) -> WorkloadId {
        let stored = self.storage(0);
        if stored.is_null() {
            return WorkloadId::NONE;
        }
        // SAFETY: a non-null pointer into the storage of a task that lives.
        unsafe { stored.read() }
    }

    /// Remembers where it is. `false` where the kernel has no room for that.
    #[inline(always)]
    pub(crate) fn see_in(self, workload: WorkloadId) -> bool {
        let stored = self.storage(CREATE);
        if stored.is_null() {
            return false;
        }
        // SAFETY: as above.
        unsafe { stored.write(workload) };
        true
    }

    #[inline(always)]
    fn storage(self, flags: u64) -> *mut WorkloadId {
        // SAFETY: the map is one of tasks, and the pointer is the one that the tracepoint was given.
        unsafe {
            bpf_task_storage_get(
                (&raw const TASKS).cast_mut().cast(),
                self.0 as *mut _,
                core::ptr::null_mut(),
                flags,
            )
            .cast()
        }
    }
}

/// The path that a tracepoint was given, with zeroes behind; `None` for one that is too long.
#[inline(always)]
pub(crate) fn path(of: u64) -> Option<&'static PathKey> {
    let buffer = PATH.get_ptr_mut(0)?;
    // SAFETY: this CPU's own buffer of the stated size; the tracepoints of cgroups hold a lock, and
    // nothing else uses it.
    unsafe {
        buffer.write_bytes(0, 1);
        let length = bpf_probe_read_kernel_str(
            buffer.cast(),
            grantd_common::size::<PathKey>(),
            of as *const _,
        );
        // A path that fills the buffer may have been cut off.
        if length <= 1 || length >= PATH_BYTES as i64 {
            return None;
        }
        Some(&*buffer)
    }
}

/// The current task's process and user.
#[inline(always)]
pub(crate) fn current() -> (u32, u32) {
    // SAFETY: helpers without arguments.
    unsafe {
        let user = (bpf_get_current_uid_gid() & 0xffff_ffff) as u32;
        ((bpf_get_current_pid_tgid() >> 32) as u32, user)
    }
}

#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}
