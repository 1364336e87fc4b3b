//! Changes to the kernel maps, as plain data.

use grantd_common::{
    Address, ExactKey, ExactRule, GrantSlot, InboundKey, PortSet, Protocol, RangeKey, RangeRule,
    WorkloadEntry, WorkloadId,
};

/// A prefix of one workload and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Workload, protocol and address; bits after the prefix are zero.
    pub key: RangeKey,
    /// Length of the address prefix in bits, 0 to 128 (an IPv4 prefix is 96 longer).
    pub bits: u32,
}

impl Prefix {
    /// From its parts.
    #[must_use]
    pub const fn new(
        workload: WorkloadId,
        protocol: Protocol,
        address: Address,
        bits: u32,
    ) -> Self {
        Self { key: RangeKey::new(workload, protocol, address), bits }
    }
}

/// Callers from one prefix that a workload may be reached by at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Callers {
    /// Workload, port, protocol and address; bits after the prefix are zero.
    pub key: InboundKey,
    /// Length of the address prefix in bits, 0 to 128 (an IPv4 prefix is 96 longer).
    pub bits: u32,
}

/// One change. Each is idempotent, so that a batch may be applied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a cgroup known.
    PutWorkload {
        /// Its id.
        cgroup: u64,
        /// What it is.
        entry: WorkloadEntry,
    },
    /// Forgets a cgroup.
    DeleteWorkload {
        /// Its id.
        cgroup: u64,
    },
    /// Writes a grant's slot.
    PutSlot {
        /// Which.
        slot: u32,
        /// What.
        value: GrantSlot,
    },
    /// Writes a rule for one address and port.
    PutExact {
        /// Which.
        key: ExactKey,
        /// What.
        rule: ExactRule,
    },
    /// Removes one.
    DeleteExact {
        /// Which.
        key: ExactKey,
    },
    /// Writes a port set.
    PutPortSet {
        /// Which.
        index: u32,
        /// What.
        set: PortSet,
    },
    /// Points a prefix to a port set.
    PutRange {
        /// Which.
        prefix: Prefix,
        /// What.
        rule: RangeRule,
    },
    /// Removes a prefix.
    DeleteRange {
        /// Which.
        prefix: Prefix,
    },
    /// Lets callers in.
    PutInbound {
        /// Whom, where.
        callers: Callers,
    },
    /// Lets them in no longer.
    DeleteInbound {
        /// Whom, where.
        callers: Callers,
    },
    /// Says how many sockets a workload may hold.
    PutLimit {
        /// Which.
        workload: WorkloadId,
        /// How many.
        sockets: u64,
    },
}

impl Op {
    /// Makes the enforced slice known: what is in it is confined, and makes no socket yet.
    #[must_use]
    pub const fn slice(cgroup: u64) -> Self {
        Self::slice_with(cgroup, WorkloadEntry::SLICE)
    }

    /// The slice's own hooks are attached: tasks in it may make sockets.
    #[must_use]
    pub const fn slice_attached(cgroup: u64) -> Self {
        Self::slice_with(cgroup, WorkloadEntry::SLICE | WorkloadEntry::ATTACHED)
    }

    const fn slice_with(cgroup: u64, flags: u32) -> Self {
        Self::PutWorkload { cgroup, entry: WorkloadEntry { workload: WorkloadId::UNKNOWN, flags } }
    }
}
