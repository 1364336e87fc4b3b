//! What a workload did on the network.

use std::net::SocketAddr;

use super::{Code, Grant, Process, Workload};

/// Which way a connection was opened, seen from this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The workload opened it.
    #[default]
    Outbound,
    /// Somebody else opened it.
    Inbound,
    /// Both ends are on this host.
    Local,
}

/// Where in the kernel's stream of events this one stood, so that what was lost can be proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStamp {
    /// The CPU that emitted it.
    pub cpu: u32,
    /// That CPU's own sequence.
    pub sequence: u64,
    /// CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
}

/// What a connection carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes towards the workload.
    pub bytes_in: u64,
    /// Bytes from the workload.
    pub bytes_out: u64,
    /// Packets towards the workload.
    pub packets_in: u64,
    /// Packets from the workload.
    pub packets_out: u64,
}

/// A verdict about a connection, datagram, socket or packet, or the end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The socket's cookie, the same from `Open` to `Close` or `Reset`; 0 if there is none.
    pub cookie: u64,
    /// IP protocol number: 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// Who opened it.
    pub direction: Direction,
    /// The initiator's address; port 0 if not known yet.
    pub source: Option<SocketAddr>,
    /// Where it was to go; none if the socket itself was refused.
    pub destination: Option<SocketAddr>,
    /// The name that was asked for.
    pub destination_name: String,
    /// Where the packet really went when its header differs from what was asked for.
    pub rewritten_to: Option<SocketAddr>,
    /// The hook that judged: `connect4`, `skb_egress`, …
    pub hook: Code,
    /// Why it was denied, closed or cut; empty for allowed.
    pub reason: Code,
    /// How many attempts this record stands for. 0 is written as 1.
    pub count: u64,
    /// Who tried.
    pub workload: Option<Workload>,
    /// The grant that allowed it, or that ended.
    pub grant: Option<Grant>,
    /// The process that tried.
    pub process: Option<Process>,
    /// What it carried, for closed and cut.
    pub traffic: Option<Traffic>,
    /// How long it lived in milliseconds, for closed and cut.
    pub duration_ms: Option<u64>,
    /// Where the kernel's stream stood.
    pub kernel: Option<KernelStamp>,
}

impl Default for Connection {
    fn default() -> Self {
        Connection {
            cookie: 0,
            protocol: 0,
            direction: Direction::default(),
            source: None,
            destination: None,
            destination_name: String::new(),
            rewritten_to: None,
            hook: Code::Borrowed(""),
            reason: Code::Borrowed(""),
            count: 1,
            workload: None,
            grant: None,
            process: None,
            traffic: None,
            duration_ms: None,
            kernel: None,
        }
    }
}
