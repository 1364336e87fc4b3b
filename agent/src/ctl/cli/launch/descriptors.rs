//! No descriptor that was opened outside reaches the command, except harmless ones on 0 to 2.
//!
//! A socket keeps the cgroup in which it was made, so an inherited one would not meet the workload's
//! packet filter.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, RawFd},
};

use nix::{
    errno::Errno,
    libc::O_CLOEXEC,
    sys::stat::{SFlag, fstat, major, minor},
    unistd::{close, isatty},
};

use super::LaunchError;

/// Closes every descriptor from 3 up. To be called before this process has opened any of its own:
/// what it opens later is close-on-exec, as everything that the standard library opens.
pub(super) fn close_inherited() -> Result<(), LaunchError> {
    for fd in open_from_3()? {
        match close(fd) {
            // The one that listed the directory is closed already.
            Ok(()) | Err(Errno::EBADF) => {}
            Err(e) => return Err(LaunchError::os("close an inherited descriptor")(e)),
        }
    }
    Ok(())
}

/// Refuses anything on 0 to 2 but files, pipes, terminals and the harmless memory devices.
pub(super) fn check_standard() -> Result<(), LaunchError> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let standard: [(RawFd, BorrowedFd<'_>); 3] =
        [(0, stdin.as_fd()), (1, stdout.as_fd()), (2, stderr.as_fd())];
    for (fd, handle) in standard {
        let stat = fstat(handle).map_err(LaunchError::os("look at descriptors 0 to 2"))?;
        let mode = SFlag::from_bits_truncate(stat.st_mode);
        let harmless = || is_memory_device(stat.st_rdev) || isatty(handle).unwrap_or(false);
        if let Some(kind) = refused_kind(mode, harmless) {
            return Err(LaunchError::Descriptor { fd, kind });
        }
    }
    Ok(())
}

/// What to call a descriptor of this type that may not be passed on; `None` when it may.
fn refused_kind(mode: SFlag, harmless_device: impl FnOnce() -> bool) -> Option<&'static str> {
    match mode & SFlag::S_IFMT {
        SFlag::S_IFREG | SFlag::S_IFIFO => None,
        SFlag::S_IFCHR if harmless_device() => None,
        // Such as a tun device, which is a network.
        SFlag::S_IFCHR => Some("a device other than a terminal or /dev/null"),
        SFlag::S_IFSOCK => Some("a socket"),
        // What the command does not get to see could be reached by way of it.
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFBLK => Some("a block device"),
        // io_uring instances, epoll sets, BPF objects: each can carry sockets or power.
        _ => Some("an anonymous kernel object"),
    }
}

/// null, zero, full, random or urandom (linux/Documentation/admin-guide/devices.txt).
fn is_memory_device(device: u64) -> bool {
    major(device) == 1 && matches!(minor(device), 3 | 5 | 7 | 8 | 9)
}

/// Shows that no descriptor from 3 up survives `exec`.
pub(super) fn check_rest() -> Result<(), LaunchError> {
    for fd in open_from_3()? {
        match fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) {
            Ok(info) if closes_on_exec(&info) => {}
            Ok(_) => return Err(LaunchError::DescriptorLeft { fd }),
            // The one that listed the directory is closed already.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(LaunchError::os("read /proc/self/fdinfo")(e)),
        }
    }
    Ok(())
}

/// Reads the octal `flags:` line of a fdinfo file (proc(5)); one that does not parse says no.
fn closes_on_exec(fdinfo: &str) -> bool {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & O_CLOEXEC != 0)
}

fn open_from_3() -> Result<Vec<RawFd>, LaunchError> {
    let failed = || LaunchError::os("list /proc/self/fd");
    let mut fds = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        match name.to_str().and_then(|name| name.parse().ok()) {
            Some(fd) if fd >= 3 => fds.push(fd),
            Some(_) => {}
            None => return Err(failed()(io::Error::from(io::ErrorKind::InvalidData))),
        }
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_kernel_objects_on_the_standard_descriptors_are_refused() {
        let refused = |mode| refused_kind(mode, || true);
        assert_eq!(refused(SFlag::S_IFSOCK), Some("a socket"));
        for mode in [SFlag::S_IFBLK, SFlag::S_IFDIR] {
            assert!(refused(mode).is_some(), "{mode:?} would be passed on");
        }
        assert!(refused(SFlag::empty()).is_some(), "an io_uring on stdin would be passed on");
        assert!(refused_kind(SFlag::S_IFCHR, || false).is_some(), "/dev/net/tun on stdin");
    }

    #[test]
    fn files_pipes_and_terminals_on_the_standard_descriptors_pass() {
        for mode in [SFlag::S_IFREG, SFlag::S_IFIFO, SFlag::S_IFCHR] {
            assert_eq!(refused_kind(mode, || true), None);
        }
    }

    #[test]
    fn a_real_socket_is_told_from_a_real_device() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mode = SFlag::from_bits_truncate(fstat(&socket).unwrap().st_mode);
        assert_eq!(refused_kind(mode, || true), Some("a socket"));
        let device = |path| fstat(fs::File::open(path).unwrap()).unwrap().st_rdev;
        assert!(is_memory_device(device("/dev/null")));
        assert!(is_memory_device(device("/dev/urandom")));
        assert!(!is_memory_device(device("/dev/kmsg")), "the kernel's log on stdin");
    }

    #[test]
    fn only_the_close_on_exec_flag_counts_as_closed() {
        assert!(closes_on_exec("pos:\t0\nflags:\t02100000\nmnt_id:\t1\n"));
        assert!(!closes_on_exec("pos:\t0\nflags:\t0100002\n"));
        assert!(!closes_on_exec("pos:\t0\n"));
        assert!(!closes_on_exec("flags:\tnonsense\n"));
    }
}
