//! What a launched command may not ask of the kernel, as data: one table for both architectures, from
//! which the filter is assembled and with which the drop-in for systemd units is compared.

use super::filter::Arch;

/// What a system call that is denied answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As to one without the right.
    NotPermitted,
    /// As on a kernel that does not have it, so that software takes its older way.
    NoSuchCall,
}

/// One system call that is denied whatever its arguments are.
#[derive(Clone, Copy, Debug)]
pub struct Denied {
    /// Its name, as systemd spells it too.
    pub name: &'static str,
    /// Its number on x86_64, where it exists there.
    x86_64: Option<u32>,
    /// Its number on aarch64, where it exists there.
    aarch64: Option<u32>,
    /// What it answers.
    pub answer: Answer,
}

impl Denied {
    pub(super) const fn number(&self, arch: Arch) -> Option<u32> {
        match arch {
            Arch::X86_64 => self.x86_64,
            Arch::Aarch64 => self.aarch64,
        }
    }
}

const fn both(name: &'static str, x86_64: u32, aarch64: u32) -> Denied {
    let (x86_64, aarch64) = (Some(x86_64), Some(aarch64));
    Denied { name, x86_64, aarch64, answer: Answer::NotPermitted }
}

/// Calls from 424 on have one number everywhere.
const fn new(name: &'static str, number: u32) -> Denied {
    both(name, number, number)
}

const fn absent(name: &'static str, number: u32) -> Denied {
    Denied { answer: Answer::NoSuchCall, ..new(name, number) }
}

const fn x86_only(name: &'static str, number: u32) -> Denied {
    Denied { name, x86_64: Some(number), aarch64: None, answer: Answer::NotPermitted }
}

/// The newest call that was looked at (`file_setattr`, Linux 6.17). Later ones answer ENOSYS: nobody has
/// asked yet what they let out.
pub(super) const NEWEST: u32 = 469;

/// Calls that are denied whatever their arguments are.
pub const DENIED: &[Denied] = &[
    // Its flags lie in memory, where a filter cannot see them; libraries fall back to clone [C9].
    absent("clone3", 435),
    // Makes and uses sockets past this filter [C7].
    absent("io_uring_setup", 425),
    absent("io_uring_enter", 426),
    absent("io_uring_register", 427),
    // Has the kernel start a program outside the workload for a key [D5].
    both("add_key", 248, 217),
    both("request_key", 249, 218),
    both("keyctl", 250, 219),
    // Takes descriptors and memory of other processes [A4].
    new("pidfd_getfd", 438),
    both("process_vm_readv", 310, 270),
    both("process_vm_writev", 311, 271),
    both("kcmp", 312, 272),
    // Looks into the kernel or changes what it does [C11].
    both("bpf", 321, 280),
    both("perf_event_open", 298, 241),
    both("userfaultfd", 323, 282),
    both("syslog", 103, 116),
    both("init_module", 175, 105),
    both("finit_module", 313, 273),
    both("delete_module", 176, 106),
    both("kexec_load", 246, 104),
    both("kexec_file_load", 320, 294),
    both("reboot", 169, 142),
    x86_only("iopl", 172),
    x86_only("ioperm", 173),
    x86_only("modify_ldt", 154),
    // Another network, or another view of the files [C9, D1].
    both("setns", 308, 268),
    both("mount", 165, 40),
    both("umount2", 166, 39),
    both("pivot_root", 155, 41),
    both("chroot", 161, 51),
    new("open_tree", 428),
    new("move_mount", 429),
    new("fsopen", 430),
    new("fsconfig", 431),
    new("fsmount", 432),
    new("fspick", 433),
    new("mount_setattr", 442),
    new("open_tree_attr", 467),
    both("open_by_handle_at", 304, 265),
    both("swapon", 167, 224),
    both("swapoff", 168, 225),
    both("quotactl", 179, 60),
    new("quotactl_fd", 443),
    both("acct", 163, 89),
    both("vhangup", 153, 58),
    // The host's clock and name [P13].
    both("settimeofday", 164, 170),
    both("clock_settime", 227, 112),
    both("sethostname", 170, 161),
    both("setdomainname", 171, 162),
];

/// A call that is denied by its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) x86_64: u32,
    pub(super) aarch64: u32,
}

impl Judged {
    pub(super) const fn number(self, arch: Arch) -> u32 {
        match arch {
            Arch::X86_64 => self.x86_64,
            Arch::Aarch64 => self.aarch64,
        }
    }
}

pub(super) const SOCKET: Judged = Judged { x86_64: 41, aarch64: 198 };
pub(super) const SOCKETPAIR: Judged = Judged { x86_64: 53, aarch64: 199 };
pub(super) const CLONE: Judged = Judged { x86_64: 56, aarch64: 220 };
pub(super) const UNSHARE: Judged = Judged { x86_64: 272, aarch64: 97 };
pub(super) const PERSONALITY: Judged = Judged { x86_64: 135, aarch64: 92 };
pub(super) const IOCTL: Judged = Judged { x86_64: 16, aarch64: 29 };

/// Families of sockets that a command may make, with systemd's names; any other answers EAFNOSUPPORT.
/// What the three can reach is judged by the kernel programs, the hidden paths and Landlock.
pub const FAMILIES: &[(&str, u32)] = &[("AF_UNIX", 1), ("AF_INET", 2), ("AF_INET6", 10)];
/// `AF_NETLINK`, of which only `NETLINK_ROUTE` is allowed: runtimes list the host's own addresses by it
/// (getifaddrs, Node, Go), it reaches nothing but the kernel, and every change by it takes CAP_NET_ADMIN.
pub(super) const NETLINK: u32 = 16;
pub(super) const NETLINK_ROUTE: u32 = 0;

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
pub(super) const NAMESPACES: u32 = 0x7e02_0000;
/// `CLONE_NEWTIME`, which only unshare takes: in clone it is a part of the exit signal.
pub(super) const TIME_NAMESPACE: u32 = 0x80;

/// ioctl commands that put input into a terminal: `TIOCSTI`, `TIOCLINUX` [D8].
pub(super) const TERMINAL_INPUT: [u32; 2] = [0x5412, 0x541c];
/// Values of personality(2) that are allowed: Linux, and the question which it is.
pub(super) const PERSONALITIES: [u32; 2] = [0, u32::MAX];
