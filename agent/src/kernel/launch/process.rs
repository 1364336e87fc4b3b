//! A child that is born in a cgroup, with mounts of its own.

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `CLONE_INTO_CGROUP` of linux/sched.h (Linux 5.7).
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Exit code of a child that panicked (`EX_SOFTWARE`).
const PANICKED: u8 = 70;

/// `struct clone_args` of linux/sched.h, with everything up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child process that was started here.
#[derive(Debug)]
pub struct Child {
    /// Its number in this process's namespace; it stays its own until it is waited for.
    pub pid: libc::pid_t,
    /// A handle of it.
    pub handle: OwnedFd,
}

/// Starts a copy of this process inside `cgroup`, with mounts and System V IPC of its own. It runs
/// `child`, whose result is its exit code; the caller goes on with the handle.
///
/// # Errors
/// The kernel refuses it, or this process has more threads than this one: the copy would have their
/// locks and not them.
pub fn start(cgroup: BorrowedFd<'_>, child: impl FnOnce() -> u8) -> io::Result<Child> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has several threads"));
    }
    let namespaces = u64::try_from(libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_PIDFD);
    let mut handle: libc::c_int = -1;
    let arguments = CloneArgs {
        flags: namespaces.map_err(io::Error::other)? | INTO_CGROUP,
        pidfd: (&raw mut handle) as u64,
        exit_signal: u64::try_from(libc::SIGCHLD).map_err(io::Error::other)?,
        cgroup: u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        ..CloneArgs::default()
    };
    // SAFETY: the arguments are live, of the stated size, and name no memory but `handle`, which is live
    // too. Without CLONE_VM the child has a copy of all memory, so this is fork(2); there is no other
    // thread whose locks it could lack.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) };
    match libc::pid_t::try_from(pid).map_err(io::Error::other)? {
        0 => {
            // A panic must not unwind into what the parent goes on with.
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
            // SAFETY: ends this process at once. What the parent has buffered is the parent's to write.
            unsafe { libc::_exit(libc::c_int::from(code)) }
        }
        // SAFETY: a fresh descriptor that the kernel just gave to us alone.
        pid if pid > 0 => Ok(Child { pid, handle: unsafe { OwnedFd::from_raw_fd(handle) } }),
        _ => Err(io::Error::last_os_error()),
    }
}
