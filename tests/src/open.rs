//! Ways out that stay open for a process that was put into a workload's cgroup by hand where the guard
//! (BPF LSM) is not in effect: the one list. Each names its threat, which the daemon has to report as not
//! closed, and the probes that get through by it. Any other arrival fails the suite.

use crate::escapes::Who;

/// A way that stays open.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// The ID in `docs/threats.md`.
    pub threat: &'static str,
    /// Why.
    pub reason: &'static str,
    /// For whom.
    pub whom: Whom,
    /// The probes that are instances of it.
    pub probes: &'static [&'static str],
    /// Whether the daemon ends such sockets as soon as it sees them, so that some get through before it does and
    /// some do not.
    pub raced: bool,
}

/// Who gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Everybody.
    All,
    /// Whoever is root, by name alone.
    Root,
    /// Whoever has `CAP_NET_RAW`.
    Raw,
}

impl Open {
    /// Whether it is open for `who`.
    #[must_use]
    pub fn holds_for(&self, who: Who) -> bool {
        match self.whom {
            Whom::All => true,
            Whom::Root => who.uid() == 0,
            Whom::Raw => who == Who::Container,
        }
    }
}

/// The list.
pub const OPEN_WITHOUT_GUARD: &[Open] = &[
    Open {
        threat: "A2",
        reason: "a socket that was connected, or needs no connection, before its process came in: plain send meets no hook",
        whom: Whom::All,
        probes: &[
            "inherited_connected_send",
            "inherited_connected_write",
            "inherited_connected_udp",
            "inherited_connected_sendfile",
            "inherited_connected_splice",
            "inherited_connected_vmsplice",
            "inherited_connected_zerocopy",
            "inherited_listener",
            "inherited_raw",
            "inherited_packet",
            "uring_inherited_connected",
        ],
        raced: true,
    },
    Open {
        threat: "A2",
        reason: "the same, passed in by a process outside",
        whom: Whom::All,
        probes: &["passed_connected_tcp", "passed_connected_udp"],
        raced: false,
    },
    Open {
        threat: "A4",
        reason: "a process of the same user outside lends its descriptors, its registers and its memory",
        whom: Whom::All,
        probes: &["taken_connected_tcp", "victim_by_ptrace", "victim_by_memory"],
        raced: false,
    },
    Open {
        threat: "A6",
        reason: "root owns the cgroups, and moves itself out of one",
        whom: Whom::Root,
        probes: &["moved_out", "born_outside"],
        raced: false,
    },
    Open {
        threat: "C3",
        reason: "packet sockets pass below every cgroup hook",
        whom: Whom::Raw,
        probes: &["packet_datagram", "packet_raw", "packet_old"],
        raced: false,
    },
    Open {
        threat: "B6",
        reason: "the setsockopt hook is not asked for 32-bit calls, and the kernel itself reports a membership",
        whom: Whom::All,
        probes: &["int80_membership"],
        raced: false,
    },
    Open {
        threat: "D1",
        reason: "whoever listens at a unix socket of the file system sends for the workload",
        whom: Whom::All,
        probes: &["unix_stream_path", "unix_stream_symlink"],
        raced: false,
    },
    Open {
        threat: "D3",
        reason: "the same by other kinds of local sockets",
        whom: Whom::All,
        probes: &[
            "unix_packets_path",
            "unix_stream_abstract",
            "unix_datagram_sendto",
            "unix_datagram_connect",
        ],
        raced: false,
    },
    Open {
        threat: "C6",
        reason: "netlink sockets for users carry datagrams to any process of the same network namespace",
        whom: Whom::All,
        probes: &["netlink_user"],
        raced: false,
    },
];
