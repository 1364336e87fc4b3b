//! What the kernel programs report through the ring buffers.

use crate::address::{Address, Endpoint, Port, Protocol};
use crate::reason::Reason;
use crate::tables::WorkloadId;

/// The two rings: a flood of denials must not push out evidence of what was allowed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ring {
    /// What was refused.
    Denials = 0,
    /// What was allowed.
    Flows = 1,
}

impl Ring {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Denials, Self::Flows];
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// What happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A connection, or the first datagram to a destination, was allowed.
    Allowed = 1,
    /// Opening a socket, connecting or sending was refused.
    Denied = 2,
    /// The first packet of a socket was dropped since it was last allowed.
    Dropped = 3,
    /// A connection ended by itself.
    Closed = 4,
    /// A connection was ended because its grant was over.
    Reset = 5,
}

impl EventKind {
    /// From the byte in an event.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Allowed),
            2 => Some(Self::Denied),
            3 => Some(Self::Dropped),
            4 => Some(Self::Closed),
            5 => Some(Self::Reset),
            _ => None,
        }
    }
}

/// Which hook saw it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `cgroup/sock_create`
    SockCreate = 1,
    /// `cgroup/connect4`
    Connect4 = 2,
    /// `cgroup/connect6`
    Connect6 = 3,
    /// `cgroup/sendmsg4`
    Sendmsg4 = 4,
    /// `cgroup/sendmsg6`
    Sendmsg6 = 5,
    /// `cgroup_skb/egress`
    Egress = 6,
    /// `cgroup_skb/ingress`
    Ingress = 7,
    /// `sockops`
    SockOps = 8,
    /// `cgroup/sock_release`
    SockRelease = 9,
    /// `cgroup/setsockopt`
    Setsockopt = 10,
    // 11 to 19: further cgroup hooks.
    /// The guard: `lsm_cgroup/socket_create`
    GuardSocketCreate = 20,
    /// The guard: `lsm_cgroup/socket_connect`
    GuardSocketConnect = 21,
    /// The guard: `lsm_cgroup/socket_sendmsg`
    GuardSocketSendmsg = 22,
    /// The guard: `lsm_cgroup/socket_recvmsg`
    GuardSocketRecvmsg = 23,
    /// The guard: `lsm_cgroup/file_receive`
    GuardFileReceive = 24,
    /// The guard: `lsm_cgroup/unix_stream_connect`
    GuardUnixStreamConnect = 25,
    /// The guard: `lsm_cgroup/unix_may_send`
    GuardUnixMaySend = 26,
    /// The guard: `lsm_cgroup/ptrace_access_check`
    GuardPtraceAccessCheck = 27,
    /// The guard: `lsm_cgroup/bpf`
    GuardBpf = 28,
    /// The guard: `lsm_cgroup/userns_create`
    GuardUsernsCreate = 29,
    /// The guard, on kernels that splice into sockets without asking `socket_sendmsg` (before 6.5):
    /// `lsm_cgroup/file_permission`
    GuardFilePermission = 30,
}

impl Hook {
    /// From the byte in an event.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::SockCreate),
            2 => Some(Self::Connect4),
            3 => Some(Self::Connect6),
            4 => Some(Self::Sendmsg4),
            5 => Some(Self::Sendmsg6),
            6 => Some(Self::Egress),
            7 => Some(Self::Ingress),
            8 => Some(Self::SockOps),
            9 => Some(Self::SockRelease),
            10 => Some(Self::Setsockopt),
            20 => Some(Self::GuardSocketCreate),
            21 => Some(Self::GuardSocketConnect),
            22 => Some(Self::GuardSocketSendmsg),
            23 => Some(Self::GuardSocketRecvmsg),
            24 => Some(Self::GuardFileReceive),
            25 => Some(Self::GuardUnixStreamConnect),
            26 => Some(Self::GuardUnixMaySend),
            27 => Some(Self::GuardPtraceAccessCheck),
            28 => Some(Self::GuardBpf),
            29 => Some(Self::GuardUsernsCreate),
            30 => Some(Self::GuardFilePermission),
            _ => None,
        }
    }

    /// The name that records and coverage show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SockCreate => "sock_create",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::SockOps => "sock_ops",
            Self::SockRelease => "sock_release",
            Self::Setsockopt => "setsockopt",
            Self::GuardSocketCreate => "guard_socket_create",
            Self::GuardSocketConnect => "guard_socket_connect",
            Self::GuardSocketSendmsg => "guard_socket_sendmsg",
            Self::GuardSocketRecvmsg => "guard_socket_recvmsg",
            Self::GuardFileReceive => "guard_file_receive",
            Self::GuardUnixStreamConnect => "guard_unix_stream_connect",
            Self::GuardUnixMaySend => "guard_unix_may_send",
            Self::GuardPtraceAccessCheck => "guard_ptrace_access_check",
            Self::GuardBpf => "guard_bpf",
            Self::GuardUsernsCreate => "guard_userns_create",
            Self::GuardFilePermission => "guard_file_permission",
        }
    }
}

/// One event as it lies in a ring. Enums travel as bytes and are checked by [`Event::decode`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// [`EventKind`].
    pub kind: u8,
    /// [`Hook`].
    pub hook: u8,
    /// [`Reason`].
    pub reason: u8,
    /// Always zero.
    pub padding: u8,
    /// The CPU that wrote it.
    pub cpu: u32,
    /// Counts up by one for each event of this ring on this CPU, lost ones included.
    pub sequence: u64,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// Socket cookie; 0 where there is none.
    pub cookie: u64,
    /// The current task's cgroup id; 0 for packets, which have no task of their own.
    pub cgroup: u64,
    /// Process id (thread group) in the initial namespace; 0 for packets.
    pub pid: u32,
    /// Thread id; 0 for packets.
    pub tid: u32,
    /// User id; 0 for packets.
    pub uid: u32,
    /// Group id; 0 for packets.
    pub gid: u32,
    /// The workload that the verdict was taken for.
    pub workload: WorkloadId,
    /// The socket's birth tag; [`WorkloadId::NONE`] without one.
    pub socket_workload: WorkloadId,
    /// The grant's slot that the verdict rests on; 0 for none.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// The destination. For `sock_create`: only the protocol.
    pub to: Endpoint,
    /// Socket type (`SOCK_STREAM`, …) for `sock_create`; else 0.
    pub socket_type: u32,
    /// Where the socket was allowed to, if the packet goes elsewhere ([`Reason::Rewritten`]).
    pub allowed_to: Endpoint,
    /// Name number of the rule; 0: an address.
    pub name: u32,
    /// The task's `comm`, NUL-padded; empty for packets.
    pub comm: [u8; 16],
    /// The local port, where it is known; else 0.
    pub local_port: Port,
    /// Always zero.
    pub padding2: u16,
    /// More about a refusal, as its hook says: a socket option (`level << 16 | option`), an address
    /// family, a process id; else 0.
    pub detail: u32,
    /// The socket's network namespace (`SO_NETNS_COOKIE`); 0 where the hook cannot tell.
    pub netns: u64,
    /// For [`EventKind::Closed`] and [`EventKind::Reset`]: when it was allowed, `CLOCK_BOOTTIME`
    /// nanoseconds; else 0.
    pub opened_boot_ns: u64,
    /// For the same: bytes out, bytes in, packets out, packets in.
    pub counters: [u64; 4],
    /// Room for later fields within the same ABI; always zero.
    pub reserved: [u64; 2],
}

/// Why bytes are not an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not exactly as long as an event of this ABI.
    Length(usize),
    /// A kind that this version does not know.
    Kind(u8),
    /// A hook that this version does not know.
    Hook(u8),
    /// A reason that this version does not know.
    Reason(u8),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length(n) => write!(f, "{n} bytes are not one event of {} bytes", Event::SIZE),
            Self::Kind(v) => write!(f, "unknown event kind {v}"),
            Self::Hook(v) => write!(f, "unknown hook {v}"),
            Self::Reason(v) => write!(f, "unknown reason {v}"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl Event {
    /// Bytes of one event in a ring.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads an event by checked copy. Returns it with its enums already checked.
    ///
    /// # Errors
    /// Another length, or a kind, hook or reason that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<(Self, EventKind, Hook, Reason), DecodeError> {
        let event = Self::read(bytes).ok_or(DecodeError::Length(bytes.len()))?;
        let kind = EventKind::from_u8(event.kind).ok_or(DecodeError::Kind(event.kind))?;
        let hook = Hook::from_u8(event.hook).ok_or(DecodeError::Hook(event.hook))?;
        let reason = Reason::from_u8(event.reason).ok_or(DecodeError::Reason(event.reason))?;
        Ok((event, kind, hook, reason))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let event = Self {
            kind: r.u8()?,
            hook: r.u8()?,
            reason: r.u8()?,
            padding: r.u8()?,
            cpu: r.u32()?,
            sequence: r.u64()?,
            boot_ns: r.u64()?,
            cookie: r.u64()?,
            cgroup: r.u64()?,
            pid: r.u32()?,
            tid: r.u32()?,
            uid: r.u32()?,
            gid: r.u32()?,
            workload: WorkloadId(r.u32()?),
            socket_workload: WorkloadId(r.u32()?),
            slot: r.u32()?,
            generation: r.u32()?,
            to: r.endpoint()?,
            socket_type: r.u32()?,
            allowed_to: r.endpoint()?,
            name: r.u32()?,
            comm: r.take()?,
            local_port: Port(r.take()?),
            padding2: r.take().map(u16::from_ne_bytes)?,
            detail: r.u32()?,
            netns: r.u64()?,
            opened_boot_ns: r.u64()?,
            counters: [r.u64()?, r.u64()?, r.u64()?, r.u64()?],
            reserved: [r.u64()?, r.u64()?],
        };
        r.0.is_empty().then_some(event)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
    fn endpoint(&mut self) -> Option<Endpoint> {
        Some(Endpoint {
            address: Address(self.take()?),
            port: Port(self.take()?),
            protocol: Protocol(self.u8()?),
            padding: self.u8()?,
        })
    }
}

/// Indexes of `COUNTERS`, a per-CPU array of `u64`.
pub mod counter {
    use super::Ring;

    /// Verdicts by reason: index = reason.
    pub const REASONS: u32 = 0;
    /// Events written to each ring, lost ones included: the sequence.
    pub const SEQUENCE: u32 = 64;
    /// Events that found their ring full.
    pub const LOST: u32 = SEQUENCE + Ring::COUNT;
    /// Packets dropped, by reason.
    pub const DROPS: u32 = 128;
    /// Datagrams to the destination that their socket was last allowed to, under the same grant:
    /// part of a flow that was reported already.
    pub const REPEATED: u32 = 192;
    /// Entries of the map.
    pub const COUNT: u32 = 256;
}
