//! Reads of kernel structures, and the calls that take kernel pointers.
//!
//! Offsets are this kernel's, from its type information: see `agent/src/kernel/guard`.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_sock_from_file,
};
use grantd_common::{LocalPeer, WorkloadEntry, WorkloadId, capacity};

use crate::maps::{SLICE_LEVEL, WORKLOADS};
use crate::storage::Storage;

macro_rules! offsets {
    ($( $name:ident; )*) => {
        $(
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".rodata")]
            static $name: Global<u32> = Global::new(0);
        )*
    };
}

offsets! {
    SOCKET_SK;
    SK_FAMILY;
    SK_CGROUP;
    SK_KERNEL_BYTE;
    SK_KERNEL_MASK;
    UNIX_PATH;
    PATH_DENTRY;
    DENTRY_INODE;
    INODE_NUMBER;
    INODE_SB;
    SB_DEVICE;
    TASK_TGID;
    TASK_CGROUPS;
    SET_CGROUP;
    CGROUP_LEVEL;
    CGROUP_KN;
    CGROUP_ANCESTORS;
    KN_ID;
}

/// Reads one field; zeroes where there is nothing to read.
#[inline(always)]
fn field<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    // SAFETY: the destination is a live value of the stated size, and the helper fails, without a fault,
    // on an address that holds nothing.
    unsafe {
        let from = (base + u64::from(offset)) as *const c_void;
        bpf_probe_read_kernel((&raw mut value).cast(), grantd_common::size::<T>(), from);
    }
    value
}

/// A `struct socket` that a hook was given.
#[derive(Clone, Copy)]
pub(crate) struct Socket(pub(crate) *const u8);

impl Socket {
    /// Its `struct sock`; `None` for one that is not open yet or any more.
    #[inline(always)]
    pub(crate) fn sock(self) -> Option<Sock> {
        // SAFETY: a pointer that the verifier knows to be a `struct socket`, read at the place of a field:
        // so it knows what was read to be a `struct sock`, which the storage helper demands.
        let sk =
            unsafe { self.0.add(SOCKET_SK.load() as usize).cast::<*mut c_void>().read_volatile() };
        if sk.is_null() { None } else { Some(Sock(sk)) }
    }
}

/// The socket behind a `struct file`; `None` for a file of another kind.
#[inline(always)]
pub(crate) fn socket_of(file: *mut c_void) -> Option<Socket> {
    // SAFETY: the file that the hook was given.
    let socket = unsafe { bpf_sock_from_file(file.cast()) };
    if socket.is_null() { None } else { Some(Socket(socket.cast_const().cast())) }
}

/// A `struct sock`.
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) *mut c_void);

impl Sock {
    #[inline(always)]
    pub(crate) fn family(self) -> u32 {
        u32::from(field::<u16>(self.0 as u64, SK_FAMILY.load()))
    }

    /// Whether the kernel made it for itself: a network file system's, that a task's call makes it use.
    #[inline(always)]
    pub(crate) fn is_kernels_own(self) -> bool {
        u32::from(field::<u8>(self.0 as u64, SK_KERNEL_BYTE.load())) & SK_KERNEL_MASK.load() != 0
    }

    /// The birth tag; [`WorkloadId::NONE`] without one.
    #[inline(always)]
    pub(crate) fn tag(self) -> WorkloadId {
        match Storage::of(self.0) {
            Some(storage) => storage.read().workload,
            None => WorkloadId::NONE,
        }
    }

    /// Whose task made it.
    #[inline(always)]
    pub(crate) fn born(self) -> WorkloadId {
        workload_of(field(self.0 as u64, SK_CGROUP.load()))
    }

    /// Where a local socket is bound, as the key of what the config lists; `None` for one that is bound to
    /// an abstract name or not at all.
    #[inline(always)]
    pub(crate) fn bound(self, workload: WorkloadId) -> Option<LocalPeer> {
        let dentry: u64 = field(self.0 as u64, UNIX_PATH.load() + PATH_DENTRY.load());
        if dentry == 0 {
            return None;
        }
        let inode: u64 = field(dentry, DENTRY_INODE.load());
        let device = field(field(inode, INODE_SB.load()), SB_DEVICE.load());
        Some(LocalPeer { workload, device, inode: field(inode, INODE_NUMBER.load()) })
    }
}

/// The process id of a task, and whose it is.
#[inline(always)]
pub(crate) fn task(task: u64) -> (u32, WorkloadId) {
    let cgroup = field(field(task, TASK_CGROUPS.load()), SET_CGROUP.load());
    (field(task, TASK_TGID.load()), workload_of(cgroup))
}

/// Whose a cgroup is: the deepest known one at most so many levels below the slice decides, as for the
/// current task.
#[inline(never)]
fn workload_of(cgroup: u64) -> WorkloadId {
    let (slice, level): (u32, u32) = (SLICE_LEVEL.load(), field(cgroup, CGROUP_LEVEL.load()));
    if level < slice {
        return WorkloadId::NONE;
    }
    match entry(cgroup, slice) {
        Some(entry) if entry.flags & WorkloadEntry::SLICE != 0 => {}
        Some(_) | None => return WorkloadId::NONE,
    }
    let mut found = WorkloadId::UNKNOWN;
    let mut below = 1;
    while below <= capacity::LEVELS_BELOW_SLICE {
        if slice + below <= level
            && let Some(entry) = entry(cgroup, slice + below)
        {
            found = entry.workload;
        }
        below += 1;
    }
    found
}

#[inline(always)]
fn entry(cgroup: u64, level: u32) -> Option<WorkloadEntry> {
    let ancestor: u64 = field(cgroup, CGROUP_ANCESTORS.load() + level * 8);
    let id: u64 = field(field(ancestor, CGROUP_KN.load()), KN_ID.load());
    // SAFETY: copied out at once; userspace replaces entries whole.
    unsafe { WORKLOADS.get(id) }.copied()
}

#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}
