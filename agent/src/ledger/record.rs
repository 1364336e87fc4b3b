//! What the ledger keeps of one grant.

use grantd_grant::{GrantId, InvalidStoredGrant, StoredGrant, VerifiedGrant};
use serde::{Deserialize, Serialize};

/// Where a grant sits in the kernel and until when. Fixed at acceptance; deadlines only ever shorten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Index in the kernel's GRANTS.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
    /// Deadline, `CLOCK_BOOTTIME` nanoseconds.
    pub deadline_boot_ns: u64,
    /// Deadline, `CLOCK_TAI` nanoseconds.
    pub deadline_tai_ns: u64,
    /// Id of the workload's cgroup at acceptance: its incarnation.
    pub cgroup_id: u64,
    /// When it was accepted, Unix milliseconds.
    pub accepted_unix_ms: u64,
}

/// How far a grant has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// On disk, perhaps not yet in the kernel, not acknowledged. After a crash, the one who
    /// reconciles either programs it or ends it.
    Accepted,
    /// Read back from the kernel.
    InForce,
    /// Over for good; kept against replay.
    Ended {
        /// Why.
        cause: EndCause,
        /// When, Unix milliseconds.
        at_unix_ms: u64,
    },
}

impl State {
    /// Accepted or in force.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Accepted | Self::InForce => true,
            Self::Ended { .. } => false,
        }
    }

    /// For display: `accepted`, `in_force`, `ended`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::InForce => "in_force",
            Self::Ended { .. } => "ended",
        }
    }
}

/// Why a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// Its deadline passed.
    Expired,
    /// The control plane revoked it.
    Revoked,
    /// Root revoked it on this host.
    RevokedLocally,
    /// A newer grant took its place.
    Replaced,
    /// The Okta key behind its token, or the control-plane key behind itself, is no longer trusted.
    KeyWithdrawn,
    /// The host's config no longer covers it.
    NotCovered,
    /// The host was booted again.
    Rebooted,
    /// Its workload's cgroup is gone, or is another than the one that it was granted to.
    WorkloadGone,
    /// The kernel did not take it or lost it.
    KernelFailed,
}

impl EndCause {
    /// Snake case, as stored and audited.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::RevokedLocally => "revoked_locally",
            Self::Replaced => "replaced",
            Self::KeyWithdrawn => "key_withdrawn",
            Self::NotCovered => "not_covered",
            Self::Rebooted => "rebooted",
            Self::WorkloadGone => "workload_gone",
            Self::KernelFailed => "kernel_failed",
        }
    }
}

/// A grant with its place and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerGrant {
    /// The grant itself.
    pub grant: VerifiedGrant,
    /// Its place in the kernel.
    pub placement: Placement,
    /// How far it has come.
    pub state: State,
}

impl LedgerGrant {
    /// `jti`.
    #[must_use]
    pub fn id(&self) -> &GrantId {
        self.grant.id()
    }

    /// Whether one of its two deadlines has passed.
    #[must_use]
    pub const fn is_past(&self, boot_ns: u64, tai_ns: u64) -> bool {
        boot_ns >= self.placement.deadline_boot_ns || tai_ns >= self.placement.deadline_tai_ns
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Row {
            grant: self.grant.to_stored(),
            placement: self.placement,
            state: self.state,
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, InvalidRow> {
        let Row { grant, placement, state } = serde_json::from_slice(bytes)?;
        Ok(Self { grant: VerifiedGrant::restore(grant)?, placement, state })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    grant: StoredGrant,
    placement: Placement,
    state: State,
}

/// Why a row of the store cannot be what was stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRow {
    #[error("a row does not parse")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Grant(#[from] InvalidStoredGrant),
}
