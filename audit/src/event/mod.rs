//! What can be recorded, as plain data.
//!
//! Everything here is text, numbers and addresses. No type of this crate holds a token, a signature or
//! a key: a grant is named by its `jti`, an Okta token by `ath`, the hash that the grant itself carries.
//! Text may be of any length and content; what is written is bounded and escaped ([`crate::ocsf`]).
//!
//! An empty string, a `None` and an empty list all mean "not known" and leave the field out of the record.

mod access;
mod connection;
mod host;
mod parts;
mod weight;

pub use access::{
    Approval, EndCause, GrantEnded, GrantInForce, GrantRefused, RevocationApplied,
    RevocationRefused,
};
pub use connection::{Connection, Direction, KernelStamp, Traffic};
pub use host::{
    ApiCall, ApiKind, Coverage, Finding, FindingKind, LaneLoss, Lifecycle, LifecycleKind, Loss,
    LossSource,
};
pub use parts::{Cgroup, Code, Container, Grant, Peer, Process, Subject, Workload};

/// One thing that happened. The class and type ids are those of OCSF 1.8.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection, or a datagram to a new destination, was allowed (400101).
    ConnectionAllowed(Connection),
    /// A connection, datagram, socket or packet was refused (400105).
    ConnectionDenied(Connection),
    /// A connection ended by itself (400102).
    ConnectionClosed(Connection),
    /// A live connection was cut because its grant ended (400103).
    ConnectionCut(Connection),
    /// A grant is in the kernel and was read back (300501, Success).
    GrantInForce(GrantInForce),
    /// A grant is no longer in the kernel (300502).
    GrantEnded(GrantEnded),
    /// A grant was refused, nothing was programmed (300501, Failure).
    GrantRefused(GrantRefused),
    /// A revocation is in force in the kernel (600304, Success).
    RevocationApplied(RevocationApplied),
    /// A revocation was refused (600304, Failure).
    RevocationRefused(RevocationRefused),
    /// A call to the push listener or to the control socket was answered (6003).
    ApiCall(ApiCall),
    /// The daemon or its enforcement changed state (6002).
    Lifecycle(Lifecycle),
    /// Something that should not be (200401).
    Finding(Finding),
    /// Events are missing from the record, this many and these (200401).
    Loss(Loss),
}

/// Which events share a bounded queue, so that a flood of one kind cannot push out another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Lane {
    /// Grants, revocations, lifecycle, findings, losses: few, and the last to be given up.
    Vital = 0,
    /// What callers provoke: answered calls, refused grants and refused revocations.
    Requests = 1,
    /// Denied connections.
    Denied = 2,
    /// Allowed, closed and cut connections: the first to be given up.
    Allowed = 3,
}

impl Lane {
    /// Every lane, in the order of their numbers.
    pub const ALL: [Lane; 4] = [Lane::Vital, Lane::Requests, Lane::Denied, Lane::Allowed];

    /// The lane's name in records and in `grantctl status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Vital => "vital",
            Lane::Requests => "requests",
            Lane::Denied => "denied",
            Lane::Allowed => "allowed",
        }
    }
}

impl Event {
    /// The queue that this event waits in.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Event::GrantInForce(_)
            | Event::GrantEnded(_)
            | Event::RevocationApplied(_)
            | Event::Lifecycle(_)
            | Event::Finding(_)
            | Event::Loss(_) => Lane::Vital,
            Event::GrantRefused(_) | Event::RevocationRefused(_) | Event::ApiCall(_) => {
                Lane::Requests
            }
            Event::ConnectionDenied(_) => Lane::Denied,
            Event::ConnectionAllowed(_) | Event::ConnectionClosed(_) | Event::ConnectionCut(_) => {
                Lane::Allowed
            }
        }
    }

    /// How many connection attempts this event accounts for: 0 for everything that is not a verdict.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        match self {
            Event::ConnectionAllowed(c) | Event::ConnectionDenied(c) => c.count.max(1),
            Event::ConnectionClosed(_)
            | Event::ConnectionCut(_)
            | Event::GrantInForce(_)
            | Event::GrantEnded(_)
            | Event::GrantRefused(_)
            | Event::RevocationApplied(_)
            | Event::RevocationRefused(_)
            | Event::ApiCall(_)
            | Event::Lifecycle(_)
            | Event::Finding(_)
            | Event::Loss(_) => 0,
        }
    }
}
