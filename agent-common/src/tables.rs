//! Keys and values of the kernel maps.

use crate::address::{Address, Endpoint, Port, Protocol};
use crate::capacity;
use crate::decide::Now;
use crate::reason::Reason;

/// A workload's number on this host: stable over restarts, given out by the ledger.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId(pub u32);

impl WorkloadId {
    /// Not confined at all.
    pub const NONE: Self = Self(0);
    /// Below the slice, in no known workload: confined, and nothing is granted.
    pub const UNKNOWN: Self = Self(1);
    /// The canary's reserved workload.
    pub const CANARY: Self = Self(2);
    /// The first number that the ledger gives out.
    pub const FIRST: Self = Self(16);
}

/// Value of `WORKLOADS`, keyed by cgroup id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Which workload the cgroup is.
    pub workload: WorkloadId,
    /// [`WorkloadEntry::SLICE`], [`WorkloadEntry::RANGES`], [`WorkloadEntry::ATTACHED`] and
    /// [`WorkloadEntry::PENDING`].
    pub flags: u32,
}

impl WorkloadEntry {
    /// The enforced slice itself: everything below is confined.
    pub const SLICE: u32 = 1;
    /// The workload holds at least one rule in `RANGES`. Set before the first is written.
    pub const RANGES: u32 = 2;
    /// The slice's own hooks are attached to this cgroup. Until then no task in it may make a socket:
    /// no packet hook would see it.
    pub const ATTACHED: u32 = 4;
    /// The cgroup was made anew and the daemon has not yet ended what its predecessor was granted.
    /// Sockets are tagged as the workload's, and reach nothing.
    pub const PENDING: u32 = 8;
}

/// Data of an `INBOUND` key: who may reach a workload at a port. The kernel matches its leading
/// `prefix_len` bits, so what must match whole comes first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboundKey {
    /// Whose listener, network order.
    pub workload: [u8; 4],
    /// Its port.
    pub port: Port,
    /// Protocol.
    pub protocol: Protocol,
    /// Always zero.
    pub padding: u8,
    /// The caller's address prefix.
    pub address: Address,
}

impl InboundKey {
    /// Bits before the address.
    pub const FIXED_BITS: u32 = 64;
    /// Bits of a whole key: what a look-up asks for.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 128;

    /// From its parts; `from` is the caller.
    #[inline(always)]
    #[must_use]
    pub const fn new(workload: WorkloadId, port: Port, from: &Endpoint) -> Self {
        Self {
            workload: workload.0.to_be_bytes(),
            port,
            protocol: from.protocol,
            padding: 0,
            address: from.address,
        }
    }
}

/// Value of `GRANTS`: one slot for each grant, to which its rules and sockets point.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantSlot {
    /// End of the grant on `CLOCK_BOOTTIME`, nanoseconds. 0: ended.
    pub deadline_boot_ns: u64,
    /// End of the grant on `CLOCK_TAI`, nanoseconds: a wall clock stepped forward ends it too.
    pub deadline_tai_ns: u64,
    /// Moves with every reuse of the slot; rules and sockets of another generation are dead.
    pub generation: u32,
    /// The slot of the grant that replaced this one; 0 for none.
    pub successor: u32,
}

impl GrantSlot {
    /// A slot that allows nothing.
    pub const EMPTY: Self =
        Self { deadline_boot_ns: 0, deadline_tai_ns: 0, generation: 0, successor: 0 };

    /// Why this slot does not allow, or `None` where it does.
    #[inline(always)]
    #[must_use]
    pub const fn refusal(&self, generation: u32, now: &Now) -> Option<Reason> {
        if self.generation != generation {
            Some(Reason::StaleGeneration)
        } else if self.deadline_boot_ns == 0 {
            Some(Reason::Ended)
        } else if self.deadline_boot_ns <= now.boot_ns || self.deadline_tai_ns <= now.tai_ns {
            Some(Reason::Expired)
        } else {
            None
        }
    }
}

/// Key of `EXACT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExactKey {
    /// Whose rule.
    pub workload: WorkloadId,
    /// Destination port.
    pub port: Port,
    /// Protocol.
    pub protocol: Protocol,
    /// Always zero.
    pub padding: u8,
    /// Destination address.
    pub address: Address,
}

impl ExactKey {
    /// From a workload and an endpoint.
    #[inline(always)]
    #[must_use]
    pub const fn new(workload: WorkloadId, to: &Endpoint) -> Self {
        Self { workload, port: to.port, protocol: to.protocol, padding: 0, address: to.address }
    }
}

/// Value of `EXACT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactRule {
    /// The grant's slot.
    pub slot: u32,
    /// The slot's generation when the rule was written.
    pub generation: u32,
    /// When the rule itself ends (a name's answer), `CLOCK_BOOTTIME` nanoseconds; `u64::MAX`: with the grant.
    pub not_after_boot_ns: u64,
    /// Which name the address was an answer to; 0: granted as an address.
    pub name: u32,
    /// Always zero.
    pub padding: u32,
}

/// Data of a `RANGES` key. The kernel matches its leading `prefix_len` bits, so what must match
/// whole comes first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeKey {
    /// Whose rule, network order.
    pub workload: [u8; 4],
    /// Protocol.
    pub protocol: Protocol,
    /// Always zero.
    pub padding: [u8; 3],
    /// Address prefix.
    pub address: Address,
}

impl RangeKey {
    /// Bits before the address.
    pub const FIXED_BITS: u32 = 64;
    /// Bits of a whole key: what a look-up asks for.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 128;

    /// From its parts.
    #[inline(always)]
    #[must_use]
    pub const fn new(workload: WorkloadId, protocol: Protocol, address: Address) -> Self {
        Self { workload: workload.0.to_be_bytes(), protocol, padding: [0; 3], address }
    }
}

/// Value of `RANGES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeRule {
    /// Index into `PORTSETS`; 0: none.
    pub port_set: u32,
}

/// One range of ports in a [`PortSet`], and the grant that gives it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// First port, host order.
    pub from: u16,
    /// Last port, host order.
    pub to: u16,
    /// The grant's slot; 0: unused entry.
    pub slot: u32,
    /// The slot's generation when the rule was written.
    pub generation: u32,
}

impl PortRange {
    /// An entry that matches nothing.
    pub const UNUSED: Self = Self { from: 1, to: 0, slot: 0, generation: 0 };
}

/// Value of `PORTSETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSet {
    /// Whose set: a reader that still holds the number of a set that was given to another workload
    /// finds out here.
    pub workload: WorkloadId,
    /// Protocol of the rules that point here.
    pub protocol: Protocol,
    /// Always zero.
    pub padding: [u8; 3],
    /// The ranges; unused entries are [`PortRange::UNUSED`].
    pub ranges: [PortRange; capacity::PORTS_PER_SET],
}

impl PortSet {
    /// A set that matches nothing.
    pub const EMPTY: Self = Self {
        workload: WorkloadId::NONE,
        protocol: Protocol(0),
        padding: [0; 3],
        ranges: [PortRange::UNUSED; capacity::PORTS_PER_SET],
    };
}

/// Slot and generation in one word, so that a packet program on another CPU never sees one without
/// the other.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GrantRef(pub u64);

impl GrantRef {
    /// No grant: never allowed anything.
    pub const NONE: Self = Self(0);
    /// An address hook is just writing where the socket is allowed to.
    pub const IN_TRANSITION: Self = Self(u64::MAX);
    /// No grant: the other end is a socket of the same workload. Like the next, a slot that no map holds.
    pub const SAME_WORKLOAD: Self = Self(u64::MAX - 1);
    /// No grant: the other end called, or the host's config lets it call.
    pub const INBOUND: Self = Self(u64::MAX - 2);

    /// From its parts.
    #[inline(always)]
    #[must_use]
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | slot as u64)
    }

    /// The slot; 0 for none.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the slot")]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// The slot's generation.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Value of `SOCKETS` (socket storage): what the kernel knows about one socket of a workload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketState {
    /// Birth tag: the workload whose task made the socket.
    pub workload: WorkloadId,
    /// Which name it was asked for by; 0: an address.
    pub name: u32,
    /// The grant that last allowed it.
    pub grant: GrantRef,
    /// Where it was last allowed to.
    pub destination: Endpoint,
    /// [`SocketState::DROP_REPORTED`] and the ones after it.
    pub flags: u32,
    /// When it was last allowed, `CLOCK_BOOTTIME` nanoseconds.
    pub allowed_boot_ns: u64,
    /// Bytes out, bytes in, packets out, packets in, of datagrams; the kernel itself counts for TCP.
    pub counters: [u64; 4],
    /// The socket's network namespace (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// The cgroup of the task that it was last allowed to.
    pub cgroup: u64,
    /// That task's process id.
    pub pid: u32,
    /// Its user id.
    pub uid: u32,
    /// Its `comm`.
    pub comm: [u8; 16],
    /// Room for later fields; always zero. The size of this struct stays over ABIs, so that an upgrade
    /// adopts the sockets of live connections.
    pub reserved: [u64; 1],
}

impl SocketState {
    /// A dropped packet of this socket was reported since it was last allowed; the next ones are
    /// only counted.
    pub const DROP_REPORTED: u32 = 1;
    /// Counted in `USAGE`.
    pub const COUNTED: u32 = 2;
    /// It stands for a connection, or a datagram socket with a fixed peer: `connect` was allowed.
    pub const CONNECTED: u32 = 4;
    /// The other end called.
    pub const ACCEPTED: u32 = 8;
    /// The other end was seen to be a socket of the same workload, and cannot become another.
    pub const PEER_CONFIRMED: u32 = 16;
    /// A record of its end is due: it was allowed and no end was reported since.
    pub const OPEN: u32 = 32;
    /// `SO_REUSEADDR` or `SO_REUSEPORT` was set on it, at any time: another's socket may be at the same
    /// address and port. Never taken away, since what came in beside it stays.
    pub const SHARED: u32 = 64;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { boot_ns: 1000, tai_ns: 5000 };

    fn slot(boot: u64, tai: u64) -> GrantSlot {
        GrantSlot { deadline_boot_ns: boot, deadline_tai_ns: tai, generation: 3, successor: 0 }
    }

    #[test]
    fn a_slot_allows_only_before_both_deadlines_and_only_its_own_generation() {
        assert_eq!(slot(1001, 5001).refusal(3, &NOW), None);
        assert_eq!(slot(1000, 5001).refusal(3, &NOW), Some(Reason::Expired), "boot clock reached");
        assert_eq!(slot(1001, 5000).refusal(3, &NOW), Some(Reason::Expired), "wall clock reached");
        assert_eq!(slot(0, 5001).refusal(3, &NOW), Some(Reason::Ended));
        assert_eq!(slot(1001, 5001).refusal(2, &NOW), Some(Reason::StaleGeneration));
        assert_eq!(slot(1001, 5001).refusal(4, &NOW), Some(Reason::StaleGeneration));
    }

    #[test]
    fn the_empty_slot_allows_nothing_whatever_the_clocks_say() {
        for boot_ns in [0, 1, u64::MAX] {
            assert!(GrantSlot::EMPTY.refusal(0, &Now { boot_ns, tai_ns: 0 }).is_some());
        }
    }
}
