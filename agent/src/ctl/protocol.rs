//! What travels over the control socket: one JSON object a line, a request one way, its reply the other.
//!
//! ```text
//! → {"v":1,"request":{"op":"grants","workload":"coding-agent"}}
//! ← {"v":1,"reply":{"kind":"grants","grants":[…],"next":null}}
//! ```
//!
//! Unknown operations and unknown fields of a request are refused; a reader of replies ignores fields
//! that it does not know, so that an older `grantctl` can read a newer daemon of the same version.

mod status;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use status::{
    AuditStatus, CanaryStatus, Counter, Coverage, KeysStatus, Status, Threat, WorkloadStatus,
};

/// Version of the protocol; both sides refuse any other.
pub const PROTOCOL_VERSION: u16 = 1;
/// Longest request line in bytes, newline included.
pub const MAX_REQUEST_LINE: usize = 64 * 1024;
/// Longest reply line in bytes, newline included. Lists are cut into pages that fit.
pub const MAX_REPLY_LINE: usize = 1024 * 1024;
/// Most grants in one page of [`Reply::Grants`].
pub const GRANTS_PER_PAGE: usize = 200;

/// One request line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLine {
    /// [`PROTOCOL_VERSION`].
    pub v: u16,
    /// What is asked.
    pub request: Request,
}

/// One reply line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyLine {
    /// [`PROTOCOL_VERSION`].
    pub v: u16,
    /// The answer.
    pub reply: Reply,
}

/// What can be asked. Whoever may open the socket may read; only root may change ([`Request::changes`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Is it enforcing now, and what is the state of everything that this depends on.
    Status {},
    /// Live grants, ordered by id, a page at a time.
    Grants {
        /// Only this workload's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        workload: Option<String>,
        /// Only ids after this one: the `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// One grant, also an ended one that the ledger still remembers.
    GrantShow {
        /// The grant's `jti`.
        id: String,
    },
    /// Ends grants now: the local kill switch.
    Revoke {
        /// Which grants.
        selector: RevokeSelector,
    },
    /// No new grants until thawed; grants in force run on to their deadlines.
    Freeze {},
    /// Takes grants again.
    Thaw {},
    /// Makes sure that a workload's cgroup exists and that the kernel knows it.
    Enrol {
        /// A workload's name in the config.
        workload: String,
    },
    /// Reads the config file again; a faulty one changes nothing.
    Reload {},
}

impl Request {
    /// Whether the request changes anything, and so needs uid 0.
    #[must_use]
    pub const fn changes(&self) -> bool {
        match self {
            Self::Status {} | Self::Grants { .. } | Self::GrantShow { .. } => false,
            Self::Revoke { .. }
            | Self::Freeze {}
            | Self::Thaw {}
            | Self::Enrol { .. }
            | Self::Reload {} => true,
        }
    }
}

/// Which grants a local revocation ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeSelector {
    /// The grant with this `jti`.
    Id(String),
    /// Every grant of this workload.
    Workload(String),
    /// Every grant of this subject (Okta `uid`, else `sub`).
    Sub(String),
    /// Every grant of this Okta client.
    Cid(String),
    /// Every grant of this transaction of the control plane.
    Txn(String),
    /// Every grant.
    All,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Grants`].
    Grants(GrantPage),
    /// To [`Request::GrantShow`].
    Grant(Box<GrantView>),
    /// To [`Request::Revoke`]: in force in the kernel when this is sent.
    Revoked(Revoked),
    /// To [`Request::Freeze`].
    Frozen,
    /// To [`Request::Thaw`].
    Thawed,
    /// To [`Request::Enrol`].
    Enrolled(Enrolled),
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// Nothing was done.
    Error(CtlError),
}

/// A page of live grants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GrantPage {
    /// Ordered by id.
    pub grants: Vec<GrantView>,
    /// Present when there are more: pass it as `after`.
    pub next: Option<String>,
}

/// What a revocation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Ids of the grants that ended, at most [`Revoked::MAX_IDS`] of them.
    pub ids: Vec<String>,
    /// How many ended.
    pub ended: u64,
}

impl Revoked {
    /// Most ids that a reply lists.
    pub const MAX_IDS: usize = 1_000;
}

/// Where a process of a workload is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The workload's name.
    pub workload: String,
    /// Absolute path of the cgroup's directory.
    pub cgroup: PathBuf,
    /// The cgroup's id, which is its directory's inode number.
    pub cgroup_id: u64,
    /// The account that the config names for the workload.
    pub user: Option<String>,
    /// Paths that the config hides from the workload besides what is always hidden.
    #[serde(default)]
    pub hide: Vec<PathBuf>,
    /// Paths that the config leaves to the workload although they lie below what is hidden.
    #[serde(default)]
    pub unhide: Vec<PathBuf>,
}

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// SHA-256 of the file that is now in force, hexadecimal.
    pub config_sha256: String,
    /// Grants that ended because the new config no longer covers them.
    pub ended: u64,
    /// Settings that only a restart applies, by key.
    pub needs_restart: Vec<String>,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CtlError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what, where, what to do.
    pub message: String,
}

impl CtlError {
    /// An error with its text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Kinds of [`CtlError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a request of this protocol: shape, size, field.
    BadRequest,
    /// The other side speaks another protocol version.
    Version,
    /// The caller may not do this.
    NotPermitted,
    /// No such grant or workload.
    NotFound,
    /// Too many connections, or the daemon is not ready or is stopping: try again.
    Busy,
    /// The config file has faults; what was in force stays.
    InvalidConfig,
    /// The ledger could not be written; nothing was changed.
    LedgerFailed,
    /// The kernel refused or did not read back as written.
    KernelFailed,
    /// A defect of the daemon.
    Internal,
}

/// One grant, as the ledger and the kernel hold it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GrantView {
    /// `jti`.
    pub id: String,
    /// The control plane's transaction.
    pub txn: String,
    /// Workload that it opens something for.
    pub workload: String,
    /// Okta subject.
    pub sub: String,
    /// Okta client, where the token had one.
    pub cid: Option<String>,
    /// Each as `tcp db-1.internal:5432` or `udp 10.20.0.0/24:8000-8010`.
    pub destinations: Vec<String>,
    /// When the host accepted it, Unix milliseconds.
    pub accepted_unix_ms: u64,
    /// When it ends by itself, Unix milliseconds.
    pub deadline_unix_ms: u64,
    /// Seconds until then; 0 once ended.
    pub seconds_left: u64,
    /// `accepted`, `in_force` or `ended`.
    pub state: String,
    /// Why it ended, when it has.
    pub ended_cause: Option<String>,
    /// What was read back from the kernel for this answer; absent once ended.
    pub kernel: Option<KernelView>,
}

/// A grant's slot, read back from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelView {
    /// Index of the grant's slot.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
    /// Deadline in the slot, `CLOCK_BOOTTIME` nanoseconds.
    pub deadline_boot_ns: u64,
    /// Map entries that name the slot.
    pub entries: u64,
    /// Whether the kernel holds what the ledger says.
    pub matches: bool,
}
