//! The kernel ABI of grantd: every struct that crosses between the kernel programs and userspace,
//! and the decisions that both sides must take alike.
//!
//! Rules of this crate: `no_std`, no dependencies, no `unsafe`; every shared struct is `repr(C)` with
//! explicit padding, holds no `bool`, `Option` or data-carrying enum, and stands in [`layout`] with
//! its size, alignment and offsets. Discriminants are explicit and never reused. A change of any
//! layout or meaning moves [`ABI_VERSION`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod address;
pub mod decide;
pub mod event;
pub mod guard;
pub mod layout;
pub mod life;
pub mod moves;
pub mod options;
pub mod packet;
pub mod reason;
pub mod tables;

pub use address::{Address, Endpoint, Port, Protocol};
pub use decide::{Match, Now, Query, Tables, Verdict, decide};
pub use event::{Event, EventKind, Hook, Ring};
pub use guard::LocalPeer;
pub use layout::Abi;
pub use moves::{Move, MoveKind, PathKey};
pub use reason::Reason;
pub use tables::{
    ExactKey, ExactRule, GrantRef, GrantSlot, InboundKey, PortRange, PortSet, RangeKey, RangeRule,
    SocketState, WorkloadEntry, WorkloadId,
};

/// Version of everything in this crate. The loader refuses a kernel object of another version, and
/// pins lie in a directory named after it.
pub const ABI_VERSION: u32 = 3;

/// The size of a type, as helpers of the kernel take it.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "asserted, when it is compiled")]
pub const fn size<T>() -> u32 {
    const { assert!(size_of::<T>() <= u32::MAX as usize) };
    size_of::<T>() as u32
}

/// Sizes of the kernel maps: what userspace checks pinned maps against, and where quotas come from.
pub mod capacity {
    /// Entries of `WORKLOADS`: cgroups that are workloads, and the slice itself.
    pub const WORKLOADS: u32 = 4096;
    /// Entries of `GRANTS`: slots, slot 0 never valid.
    pub const GRANTS: u32 = 32_768;
    /// Entries of `EXACT`: single address, single port.
    pub const EXACT: u32 = 1_048_576;
    /// Entries of `RANGES`: prefixes.
    pub const RANGES: u32 = 131_072;
    /// Entries of `PORTSETS`: index 0 never valid.
    pub const PORTSETS: u32 = 16_384;
    /// Entries of `INBOUND`: ports at which workloads may be reached.
    pub const INBOUND: u32 = 8192;
    /// Entries of `LOCAL_PEERS`: local sockets outside that workloads may talk to.
    pub const LOCAL_PEERS: u32 = 4096;
    /// Sockets that a workload may hold where the config says nothing.
    pub const DEFAULT_MAX_SOCKETS: u64 = 65_536;
    /// Entries of `PATHS`: the slice and every workload.
    pub const PATHS: u32 = WORKLOADS;
    /// Bytes of `MOVES`: some 800 events.
    pub const MOVES_BYTES: u32 = 64 << 10;
    /// Ranges in one port set.
    pub const PORTS_PER_SET: usize = 16;
    /// Bytes of each ring buffer: some 10,000 events. The reader maps each twice, so this counts fourfold
    /// in its resident memory.
    pub const RING_BYTES: u32 = 2 << 20;
    /// CPUs whose events are told apart.
    pub const CPUS: u32 = 4096;
    /// Entries of `SEEN` and of `ASIDE`: index = ring x [`CPUS`] + CPU.
    pub const SEEN: u32 = CPUS * crate::Ring::COUNT;
    /// Levels below the slice at which a workload's cgroup may lie.
    pub const LEVELS_BELOW_SLICE: u32 = 4;
    /// Bytes waiting in a ring beyond which every event wakes the reader.
    pub const RING_WAKE_BYTES: u64 = 64 << 10;
}
