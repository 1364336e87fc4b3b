//! What can go wrong below, each with what to do about it.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;

/// A failed kernel operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon was built without its kernel programs.
    #[error(
        "this build holds no kernel programs: build them with `cargo xtask build-ebpf` and build grantd again"
    )]
    NoObject,
    /// The kernel programs are of another ABI.
    #[error(
        "the kernel programs are not of ABI {expected}: build them again with `cargo xtask build-ebpf`"
    )]
    ObjectAbi {
        /// The ABI of this daemon.
        expected: u32,
    },
    /// No bpffs where the config says.
    #[error("{} is not a mounted bpffs: run `mount -t bpf bpf {}`, or set [enforcement] bpffs to where it is mounted", path.display(), path.display())]
    NoBpffs {
        /// What the config names.
        path: PathBuf,
    },
    /// No cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted (cgroup v1 cannot be enforced): boot with systemd.unified_cgroup_hierarchy=1, or run `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NoCgroup2,
    /// A cgroup directory that is missing or not on cgroup v2.
    #[error("cgroup {}: {problem}", path.display())]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The kernel refuses BPF to this process.
    #[error(
        "the kernel refuses {operation}: grantd needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (run it as root or by its systemd unit)"
    )]
    NotPermitted {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel lacks something that grantd needs.
    #[error(
        "this kernel cannot {operation}; grantd needs Linux 6.1 or later with CONFIG_CGROUP_BPF and CONFIG_DEBUG_INFO_BTF"
    )]
    Unsupported {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A pin of another shape than this ABI's.
    #[error("the pinned map {} is {found}, expected {expected}: stop the agents, run `grantctl disarm --yes`, and start grantd again", path.display())]
    PinShape {
        /// The pin.
        path: PathBuf,
        /// What lies there.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// Pins of another ABI version.
    #[error("{} holds pins of another version of grantd, whose sockets this one cannot take over: stop the agents, run that version's `grantctl disarm --yes`, and start grantd again", path.display())]
    OtherAbi {
        /// The directory.
        path: PathBuf,
    },
    /// A file operation on a pin.
    #[error("{operation} {}", path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A map is full.
    #[error("the kernel map {map} is full: nothing of this change is kept")]
    MapFull {
        /// Which map.
        map: &'static str,
    },
    /// A map operation failed.
    #[error("cannot {operation} the kernel map {map}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// On which map.
        map: &'static str,
        /// Why it failed.
        source: MapError,
    },
    /// What was read back is not what was written.
    #[error("the kernel map {map} does not hold what was written: {entry}")]
    ReadBack {
        /// Which map.
        map: &'static str,
        /// Which entry.
        entry: String,
    },
    /// A hook could not be attached or replaced.
    #[error("cannot attach {hook} to {}", cgroup.display())]
    Attach {
        /// Which hook.
        hook: &'static str,
        /// Where.
        cgroup: PathBuf,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program is attached, and the kernel does not run it.
    #[error(
        "{hook} is attached, and the kernel does not run it for the slice: look for a program that something else attached with an override, and restart grantd"
    )]
    NotInEffect {
        /// Which hook.
        hook: &'static str,
    },
    /// sock_diag refused something.
    #[error(
        "cannot {operation} of a network namespace; grantd needs CAP_NET_ADMIN and CAP_BPF, and a kernel with CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY"
    )]
    Diag {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A ring buffer could not be opened.
    #[error("cannot read the ring buffer {ring}")]
    Ring {
        /// Which ring.
        ring: &'static str,
        /// Why it failed.
        source: MapError,
    },
}

impl Error {
    /// Sorts a failed load by what a person can do about it.
    pub(super) fn loading(
        operation: String,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        // EACCES is the verifier's word on the program, and no matter of privilege.
        match io_cause(&error).and_then(io::Error::raw_os_error) {
            Some(libc::EPERM) => {
                Self::NotPermitted { operation, source: io::Error::from_raw_os_error(libc::EPERM) }
            }
            _ => Self::Unsupported { operation, source: Box::new(error) },
        }
    }
}

/// The innermost I/O error of a chain.
pub(super) fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut current = Some(error);
    let mut found = None;
    while let Some(e) = current {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            found = Some(io);
        }
        current = e.source();
    }
    found
}
