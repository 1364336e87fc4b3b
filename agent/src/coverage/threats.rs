//! The list of known ways out, in the order of their IDs. A row that can be anything but closed needs a
//! line in `docs/known-issues.md` that names its ID.

use super::Extra::{Canary, Cut, Guard, NoUdpCallers, SelfCheck, Watch};
use super::Row;
use super::Rule::{self, Always, And, AsFar, Hooks, Only};
use super::State::{Closed, Open, Partly};

const ADDRESS: &[&str] = &["connect4", "connect6", "sendmsg4", "sendmsg6"];
const CREATE: &[&str] = &["sock_create", "egress"];
const PACKETS: &[&str] = &["egress", "ingress"];
const EVERY: &[&str] =
    &["sock_create", "connect4", "connect6", "sendmsg4", "sendmsg6", "egress", "ingress"];

const fn row(id: &'static str, way: &'static str, rule: Rule) -> Row {
    Row { id, way, rule }
}

const STARTED: &str = "closed for what `grantctl run` or a unit with our drop-in starts; without the guard \
                       not for a process that came into the slice otherwise";
const OTHERS: &str = "a process outside may send for the agent where its socket can be opened: hidden by \
                      the drop-in, refused by an account of its own; closed only by the guard";

pub(super) const ALL: &[Row] = &[
    row("A1", "an unconnected socket made outside is passed in", Hooks(ADDRESS)),
    row(
        "A2",
        "a connected socket is passed in",
        And(
            EVERY,
            Guard(&["guard_socket_sendmsg", "guard_file_receive"]),
            Partly,
            "`grantctl run` passes no descriptor on; without the guard one that is passed in later meets no hook",
        ),
    ),
    row(
        "A3",
        "a process is enrolled after it made sockets",
        And(
            EVERY,
            Guard(&["guard_socket_sendmsg"]),
            Partly,
            "unconnected ones are refused; without the guard connected ones go on: start agents inside",
        ),
    ),
    row(
        "A4",
        "descriptors or memory of an unconfined process of the same user",
        Only(
            Guard(&["guard_ptrace_access_check"]),
            Partly,
            "refused by an account of its own and by Yama; closed only by the guard",
        ),
    ),
    row(
        "A5",
        "files poisoned for an unconfined process that runs later",
        Always(Open, "files are not enforced: give the agent an account and a home of its own"),
    ),
    row(
        "A6",
        "a delegated cgroup lets the agent move itself out",
        Always(
            Partly,
            "a slice that root owns keeps an ordinary user in; a task of root moves itself out where it may \
             write the cgroup files, which is told where the kernel tells of it",
        ),
    ),
    row("A7", "a nested cgroup misses its rule", Hooks(EVERY)),
    row(
        "A8",
        "slice or cgroup are removed and made anew",
        And(
            EVERY,
            Watch,
            Partly,
            "a new slice is found within half a second, and only while the daemon runs: RefuseManualStop=yes",
        ),
    ),
    row("A9", "a foreign socket for a granted destination never expires", Hooks(ADDRESS)),
    row(
        "A10",
        "net_cls and net_prio of cgroup v1 take the place of a socket's cgroup",
        Always(Closed, "kernels from 6.1 on keep them apart"),
    ),
    row("B1", "IPv4 in IPv6 addresses", Hooks(ADDRESS)),
    row("B3", "unspecified addresses reach loopback", Hooks(ADDRESS)),
    row("B4", "IPv6 routing headers", Hooks(&["egress", "setsockopt"])),
    row("B5", "IPv4 source routes", Hooks(&["egress", "setsockopt"])),
    row(
        "B6",
        "link-local, broadcast and multicast",
        AsFar(
            &["connect4", "connect6", "sendmsg4", "sendmsg6", "setsockopt"],
            Partly,
            "nothing is sent there; a 32-bit system call may still join a group, of which the kernel tells \
             the link: `grantctl run` and the drop-in refuse such calls",
        ),
    ),
    row("B7", "Multipath TCP opens other paths", Hooks(CREATE)),
    row("B8", "UDP on a grant for TCP", Hooks(ADDRESS)),
    row(
        "B9",
        "an outsider connects in and reads",
        And(
            PACKETS,
            NoUdpCallers,
            Partly,
            "whom the config lets in by UDP (`listen`), the workload may send to from that port, also uncalled",
        ),
    ),
    row("C1", "raw sockets", Hooks(CREATE)),
    row("C2", "ping sockets", Hooks(CREATE)),
    row("C3", "packet sockets", Only(Guard(&["guard_socket_create"]), Partly, STARTED)),
    row(
        "C4",
        "devices and families beside the network stack: TUN, AF_XDP, vhost, Bluetooth, CAN",
        Always(Partly, "needs rights or devices that an agent has not where it runs as documented"),
    ),
    row("C5", "AF_VSOCK", Only(Guard(&["guard_socket_create"]), Partly, STARTED)),
    row(
        "C6",
        "other protocols and families",
        And(CREATE, Guard(&["guard_socket_create"]), Partly, STARTED),
    ),
    row(
        "C7",
        "io_uring past a filter of system calls",
        And(CREATE, Guard(&["guard_socket_create"]), Partly, STARTED),
    ),
    row(
        "C8",
        "32-bit system calls past a filter",
        And(CREATE, Guard(&["guard_socket_create"]), Partly, STARTED),
    ),
    row("C9", "user and network namespaces", Hooks(EVERY)),
    row("C10", "a packet mark as exemption", Always(Closed, "no mark exempts anything")),
    row(
        "C11",
        "programs are detached or unpinned behind the daemon's back",
        Only(SelfCheck, Partly, "links are pinned for root alone, and nothing compares them"),
    ),
    row("C12", "capabilities in a workload's task", Always(Partly, STARTED)),
    row("D1", "container engines send", Only(Guard(PEERS), Partly, OTHERS)),
    row(
        "D2",
        "service managers, message bus, at and cron send",
        Only(Guard(PEERS), Partly, OTHERS),
    ),
    row(
        "D3",
        "terminal multiplexers, ssh and gpg agents, editors send",
        Only(Guard(PEERS), Partly, OTHERS),
    ),
    row("D4", "name services send", Only(Guard(PEERS), Partly, OTHERS)),
    row("D5", "key requests make the kernel send", Always(Partly, STARTED)),
    row("D6", "proxies on loopback", Hooks(EVERY)),
    row(
        "D7",
        "network filesystems, spoolers, syslog",
        Always(
            Open,
            "the kernel or a service sends what the agent writes to a file: mount none for it",
        ),
    ),
    row("D8", "setuid programs, input into a terminal", Always(Partly, STARTED)),
    row(
        "E1",
        "tunnels through a resolver",
        AsFar(
            EVERY,
            Partly,
            "no resolver is reachable unless a grant names its address; then all it does is",
        ),
    ),
    row(
        "E2",
        "other resolvers and shapes of query",
        AsFar(
            EVERY,
            Partly,
            "no resolver is reachable unless a grant names its address; then all it does is",
        ),
    ),
    row(
        "E3",
        "other tenants of a granted address",
        Always(Open, "nothing reads what a connection carries"),
    ),
    row("E4", "a granted name is pointed elsewhere", Always(Closed, NO_NAMES)),
    row("E5", "patterns of names that match too much", Always(Closed, NO_NAMES)),
    row("E6", "an address is kept after the name moved", Always(Closed, NO_NAMES)),
    row(
        "E7",
        "other tenants of a granted name",
        Always(Open, "nothing reads what a connection carries"),
    ),
    row("E8", "an answer before its rule", Always(Closed, NO_NAMES)),
    row("E9", "address translation after the check", Hooks(&["egress"])),
    row(
        "F1",
        "live connections go on after their grant",
        And(
            PACKETS,
            Cut,
            Partly,
            "packets stop at once; sockets cannot be destroyed on this kernel",
        ),
    ),
    row("F2", "queued bytes leave later", Hooks(&["egress", "ingress", "setsockopt"])),
    row("F3", "the daemon is killed", Hooks(EVERY)),
    row(
        "F4",
        "clocks that stop or step",
        AsFar(
            EVERY,
            Partly,
            "both clocks count; a paused virtual machine goes on until its clock is set",
        ),
    ),
    row("F5", "a gap while programs are exchanged", Hooks(EVERY)),
    row("F6", "full maps", Hooks(&["sock_create", "egress"])),
    row(
        "F7",
        "kernel and daemon disagree about a layout",
        And(EVERY, Canary, Partly, "nothing has shown just now that denials are denied"),
    ),
    row(
        "F8",
        "a flood of denials hides the one that matters",
        Always(Partly, "rings are apart and losses are counted; one workload can fill its ring"),
    ),
    row("F9", "a process takes another's name or number", Hooks(EVERY)),
    row(
        "F10",
        "a guard that loads and never runs",
        Always(Closed, "only what was seen to take effect counts"),
    ),
];

const PEERS: &[&str] = &["guard_unix_stream_connect", "guard_unix_may_send"];
const NO_NAMES: &str = "names cannot be granted";
