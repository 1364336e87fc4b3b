//! Capabilities: none is left, and none can come back.

use std::{fs, io};

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`; version 3 takes two of them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the bounding and the ambient set, which takes CAP_SETPCAP: before the change of user.
///
/// # Errors
/// The kernel refuses one, or does not say which there are.
pub fn shrink() -> io::Result<()> {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap")?;
    let last: libc::c_ulong = last.trim().parse().map_err(io::Error::other)?;
    for capability in 0..=last {
        prctl(libc::PR_CAPBSET_DROP, capability)?;
    }
    let clear = libc::c_ulong::try_from(libc::PR_CAP_AMBIENT_CLEAR_ALL);
    prctl(libc::PR_CAP_AMBIENT, clear.map_err(io::Error::other)?)
}

/// Empties the effective, permitted and inheritable sets.
///
/// # Errors
/// The kernel refuses it.
pub fn drop_all() -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [Data::default(); 2];
    // SAFETY: both are live and of the layout that version 3 of the call takes; the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn prctl(operation: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: these operations take numbers only and no pointer.
    let result = unsafe { libc::prctl(operation, argument, zero, zero, zero) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
