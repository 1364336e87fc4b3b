//! What the daemon itself did, and what it found.

use super::{Code, Grant, Peer, Process, Workload};

/// What kind of call it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiKind {
    /// Something new: a grant.
    Create,
    /// A question.
    #[default]
    Read,
    /// A change of state: freeze, reload.
    Update,
    /// A removal: a revocation.
    Delete,
}

/// A call that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiCall {
    /// Who called.
    pub peer: Peer,
    /// What kind of call.
    pub kind: ApiKind,
    /// The operation: `POST /v1/grants`, `ctl.freeze`, …
    pub operation: String,
    /// The id of the request, if it has one.
    pub request_id: String,
    /// HTTP status, or 0 for a control-socket call that was answered, 1 for one that was refused.
    pub status: u16,
    /// The problem's code; empty for success.
    pub reason: Code,
    /// The problem in words.
    pub detail: String,
    /// The grant or revocation that the call was about, by `jti`, once authenticated.
    pub about: String,
    /// How long the answer took, in microseconds.
    pub duration_us: Option<u64>,
}

/// One protection of this host's kernel and whether it is in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The protection's name or threat id.
    pub name: String,
    /// Whether it is in effect.
    pub active: bool,
    /// Why not, or how.
    pub detail: String,
}

/// What happened to the daemon or to enforcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleKind {
    /// The daemon started and enforces.
    Start,
    /// The daemon stops; enforcement stays.
    Stop,
    /// The config was read again.
    Reload,
    /// Enforcement that an earlier run left in the kernel was taken over.
    Adopt,
    /// New grants are refused until thawed.
    Freeze,
    /// New grants are taken again.
    Thaw,
    /// Enforcement was lifted by the host's root.
    Disarm,
}

/// A change of state of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// What happened.
    pub kind: LifecycleKind,
    /// Whether it succeeded.
    pub success: bool,
    /// Why not, as a code; empty for success.
    pub reason: Code,
    /// In words.
    pub detail: String,
    /// Who asked for it; none for the service manager.
    pub peer: Option<Peer>,
    /// SHA-256 of the config file in hexadecimal.
    pub config_sha256: String,
    /// SHA-256 of the ceiling in hexadecimal.
    pub ceiling_sha256: String,
    /// Live grants at that moment.
    pub live_grants: Option<u64>,
    /// What this kernel gives.
    pub coverage: Vec<Coverage>,
}

impl Lifecycle {
    /// A successful change of state, with nothing else known yet.
    #[must_use]
    pub fn new(kind: LifecycleKind) -> Self {
        Lifecycle {
            kind,
            success: true,
            reason: Code::Borrowed(""),
            detail: String::new(),
            peer: None,
            config_sha256: String::new(),
            ceiling_sha256: String::new(),
            live_grants: None,
            coverage: Vec::new(),
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// Kernel state, pins, files or settings are not what the daemon left.
    Tamper,
    /// A denied probe went through, or a granted one did not.
    CanaryFailed,
    /// Enforcement is not in effect for something that should be confined.
    NotEnforcing,
    /// The wall clock was stepped.
    ClockStep,
    /// A grant's `jti` came back with other content.
    ReplayOtherHash,
    /// The ledger could not be trusted and was moved aside.
    LedgerCorrupt,
    /// A key set that is needed is stale or gone.
    KeysStale,
    /// The kernel's own event could not be decoded.
    DecodeFailed,
    /// The spool had a torn or damaged record, or wrong permissions, and was repaired.
    SpoolRepaired,
    /// A process left the enforced slice.
    TaskLeft,
    /// A process came into the slice with sockets that were made outside.
    LateEnrolment,
    /// Another than root can move a workload's processes.
    WorkloadDelegated,
    /// A workload's task has rights by which it could undo what confines it.
    WorkloadPrivileged,
}

impl FindingKind {
    /// The code in `finding_info.types`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FindingKind::Tamper => "tamper",
            FindingKind::CanaryFailed => "canary_failed",
            FindingKind::NotEnforcing => "not_enforcing",
            FindingKind::ClockStep => "clock_step",
            FindingKind::ReplayOtherHash => "replay_other_hash",
            FindingKind::LedgerCorrupt => "ledger_corrupt",
            FindingKind::KeysStale => "keys_stale",
            FindingKind::DecodeFailed => "decode_failed",
            FindingKind::SpoolRepaired => "spool_repaired",
            FindingKind::TaskLeft => "task_left",
            FindingKind::LateEnrolment => "late_enrolment",
            FindingKind::WorkloadDelegated => "workload_delegated",
            FindingKind::WorkloadPrivileged => "workload_privileged",
        }
    }
}

/// Something that someone should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// In words: what, where, what to do.
    pub detail: String,
    /// The grant that it is about.
    pub grant: Option<Grant>,
    /// The workload that it is about.
    pub workload: Option<Workload>,
    /// The process that did it.
    pub process: Option<Process>,
    /// The peer that did it.
    pub peer: Option<Peer>,
    /// Facts, by name. Names are written as they are given.
    pub evidence: Vec<(Code, String)>,
}

impl Finding {
    /// A finding with nothing else known yet.
    #[must_use]
    pub fn new(kind: FindingKind, detail: impl Into<String>) -> Self {
        Finding {
            kind,
            detail: detail.into(),
            grant: None,
            workload: None,
            process: None,
            peer: None,
            evidence: Vec::new(),
        }
    }
}

/// Where events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossSource {
    /// The kernel's ring was full.
    KernelRing,
    /// The kernel's table of counted denials was full.
    KernelQuota,
    /// What came from the kernel could not be decoded.
    Decode,
    /// The queue to the spool was full.
    Queue,
    /// The oldest records made room for new ones.
    Retention,
    /// Records that were on disk could not be read back after a crash.
    Damage,
}

impl LossSource {
    /// The code in `unmapped.loss.source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            LossSource::KernelRing => "kernel_ring",
            LossSource::KernelQuota => "kernel_quota",
            LossSource::Decode => "decode",
            LossSource::Queue => "queue",
            LossSource::Retention => "retention",
            LossSource::Damage => "damage",
        }
    }
}

/// What one lane of the queue lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneLoss {
    /// The lane's name.
    pub lane: Code,
    /// Events lost.
    pub events: u64,
    /// Connection attempts that those events stood for.
    pub attempts: u64,
}

/// Events that are not in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where they were lost.
    pub source: LossSource,
    /// How many events.
    pub events: u64,
    /// How many connection attempts those events stood for, where that is known.
    pub attempts: u64,
    /// Their first and last sequence number: of `metadata.sequence` for [`LossSource::Queue`],
    /// [`LossSource::Retention`] and [`LossSource::Damage`], else of the CPU's own sequence.
    pub sequences: Option<(u64, u64)>,
    /// The CPU whose sequence it is.
    pub cpu: Option<u32>,
    /// The workload whose events they were, where that is known.
    pub workload: Option<Workload>,
    /// Time of the first lost event, in Unix milliseconds.
    pub first_ms: Option<u64>,
    /// Time of the last lost event, in Unix milliseconds.
    pub last_ms: Option<u64>,
    /// The same count, lane by lane.
    pub lanes: Vec<LaneLoss>,
}

impl Loss {
    /// A loss with nothing else known yet.
    #[must_use]
    pub fn new(source: LossSource, events: u64) -> Self {
        Loss {
            source,
            events,
            attempts: 0,
            sequences: None,
            cpu: None,
            workload: None,
            first_ms: None,
            last_ms: None,
            lanes: Vec::new(),
        }
    }
}
