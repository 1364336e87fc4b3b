//! Grants and revocations.

use super::{Code, Grant, Peer, Workload};

/// Who approved a grant, as the control plane signed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    /// The approver's Okta uid.
    pub by: String,
    /// When, in Unix seconds.
    pub at_s: u64,
    /// The approval's id.
    pub id: String,
}

/// A grant that is in force: in the ledger, in the kernel, and read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantInForce {
    /// The grant.
    pub grant: Grant,
    /// The workload that it is for.
    pub workload: Workload,
    /// What it opens, one line each, such as `tcp db-1.internal:5432`.
    pub destinations: Vec<String>,
    /// `iat` in Unix seconds.
    pub issued_s: u64,
    /// SHA-256 of the signed grant in hexadecimal.
    pub jws_sha256: String,
    /// The older grant that this one takes over from.
    pub replaces: String,
    /// The approval, if there was one.
    pub approval: Option<Approval>,
    /// Who pushed it; none if the ledger restored it at start.
    pub peer: Option<Peer>,
    /// From the first byte of the push to the read-back, in microseconds.
    pub apply_us: Option<u64>,
}

/// Why a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// Its deadline passed.
    Expired,
    /// A revocation named it.
    Revoked,
    /// A newer grant took over.
    Replaced,
    /// The key that signed it, or its Okta token, was withdrawn.
    KeyWithdrawn,
    /// The unit that it was bound to was started again.
    WorkloadRestarted,
    /// The workload is no longer on this host or in its config.
    WorkloadGone,
    /// The host's own ceiling no longer covers it.
    CeilingChanged,
    /// The host was booted since it was accepted.
    Reboot,
    /// The ledger was lost, so nothing that it held can be vouched for.
    LedgerLost,
    /// The wall clock was set forward past its end.
    ClockStepped,
    /// Enforcement was lifted by the host's root.
    Disarmed,
    /// The kernel could not be made to hold it.
    KernelFailed,
}

impl EndCause {
    /// The code in `status_code`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            EndCause::Expired => "expired",
            EndCause::Revoked => "revoked",
            EndCause::Replaced => "replaced",
            EndCause::KeyWithdrawn => "key_withdrawn",
            EndCause::WorkloadRestarted => "workload_restarted",
            EndCause::WorkloadGone => "workload_gone",
            EndCause::CeilingChanged => "ceiling_changed",
            EndCause::Reboot => "reboot",
            EndCause::LedgerLost => "ledger_lost",
            EndCause::ClockStepped => "clock_stepped",
            EndCause::Disarmed => "disarmed",
            EndCause::KernelFailed => "kernel_failed",
        }
    }
}

/// A grant that is no longer in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantEnded {
    /// The grant.
    pub grant: Grant,
    /// The workload that it was for.
    pub workload: Workload,
    /// What it opened, as in [`GrantInForce::destinations`].
    pub destinations: Vec<String>,
    /// Why it ended.
    pub cause: EndCause,
    /// The grant that replaced it.
    pub replaced_by: String,
    /// The revocation that ended it.
    pub revocation: String,
    /// Who ended it, where somebody did.
    pub peer: Option<Peer>,
    /// How many live connections were cut; none if not counted.
    pub connections_cut: Option<u64>,
    /// More, for a reader.
    pub detail: String,
}

impl GrantEnded {
    /// The end of `grant`, with nothing else known yet.
    #[must_use]
    pub fn new(grant: Grant, workload: Workload, cause: EndCause) -> Self {
        GrantEnded {
            grant,
            workload,
            cause,
            destinations: Vec::new(),
            replaced_by: String::new(),
            revocation: String::new(),
            peer: None,
            connections_cut: None,
            detail: String::new(),
        }
    }
}

/// A grant that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantRefused {
    /// The reason's code.
    pub reason: Code,
    /// The number of the check that failed (1 to 17); 0 if none of them.
    pub check: u8,
    /// The refusal in words, without a byte of the token.
    pub detail: String,
    /// What the grant said, once its signature held; none before.
    pub grant: Option<Grant>,
    /// The workload that it named, once its signature held.
    pub workload: Option<Workload>,
    /// What it asked for, once its signature held.
    pub destinations: Vec<String>,
    /// Who pushed it.
    pub peer: Option<Peer>,
}

/// A revocation that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationApplied {
    /// The revocation's `jti`, or an id made up for a local one.
    pub id: String,
    /// Its `seq`; none for a local one.
    pub seq: Option<u64>,
    /// What it selects, such as `jti=01JD…`, `sub=00u1ab`, `all`.
    pub selectors: Vec<String>,
    /// Later grants of a selected subject with `iat` up to this Unix second are refused too.
    pub issued_before_s: Option<u64>,
    /// The grants that it ended, by `jti`.
    pub ended: Vec<String>,
    /// Who revoked.
    pub peer: Option<Peer>,
    /// From the first byte of the push to the read-back, in microseconds.
    pub apply_us: Option<u64>,
}

/// A revocation that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationRefused {
    /// The reason's code.
    pub reason: Code,
    /// The refusal in words.
    pub detail: String,
    /// The revocation's `jti`, once its signature held; empty before.
    pub id: String,
    /// Who pushed it.
    pub peer: Option<Peer>,
}
