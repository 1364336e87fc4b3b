//! The answer to [`super::Request::Status`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The answer to "is it enforcing now".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Every mandatory hook is attached and the last self-check passed.
    pub enforcing: bool,
    /// Why not, when `enforcing` is false.
    pub not_enforcing: Vec<String>,
    /// New grants are refused by `grantctl freeze`.
    pub frozen: bool,
    /// Daemon version.
    pub version: String,
    /// SPIFFE URI of this host.
    pub host_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// When the daemon began enforcing or adopted the pins, Unix milliseconds.
    pub since_unix_ms: u64,
    /// Where programs and maps are pinned.
    pub pins: PathBuf,
    /// Workloads of the config.
    pub workloads: Vec<WorkloadStatus>,
    /// Live grants of all workloads.
    pub live_grants: u64,
    /// Earliest deadline of a live grant, Unix milliseconds.
    pub next_deadline_unix_ms: Option<u64>,
    /// Hook by hook, what this kernel does.
    pub coverage: Vec<Coverage>,
    /// Every known way out, and how far this host closes it just now.
    #[serde(default)]
    pub threats: Vec<Threat>,
    /// The proof, every few seconds, that enforcement takes effect.
    #[serde(default)]
    pub canary: CanaryStatus,
    /// Events known to be lost, by where.
    pub losses: Vec<Counter>,
    /// Verdicts, by reason.
    pub verdicts: Vec<Counter>,
    /// The local audit spool.
    pub audit: AuditStatus,
    /// Okta's keys and the control plane's.
    pub keys: KeysStatus,
    /// The push listener: what it took in and what it turned away, since the daemon started.
    #[serde(default)]
    pub listener: Vec<Counter>,
    /// Whether the kernel holds the wall clock to be synchronised.
    pub clock_synchronised: bool,
}

/// One workload in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// Its name in the config.
    pub name: String,
    /// Its cgroup's directory.
    pub cgroup: PathBuf,
    /// The cgroup's id while it exists.
    pub cgroup_id: Option<u64>,
    /// Whether the cgroup exists now.
    pub present: bool,
    /// Its live grants.
    pub live_grants: u64,
}

/// One hook in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The hook's name, such as `connect4`.
    pub hook: String,
    /// Whether our program is attached there.
    pub attached: bool,
    /// Where it is attached, or what stays open without it.
    pub detail: String,
}

/// One known way out in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threat {
    /// Its ID, such as `A1`.
    pub id: String,
    /// The way out.
    pub way: String,
    /// `closed`, `partly` or `open`.
    pub state: String,
    /// By what, or what is missing.
    pub reason: String,
    /// Where it is documented.
    pub doc: String,
}

/// The canary in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// Rounds since the daemon started in which a denial was denied, a granted connection passed, and both
    /// left their records.
    pub passed: u64,
    /// Rounds in which not.
    pub failed: u64,
    /// Rounds in which both came out as they should, and a record is missing where a ring of the kernel overflowed
    /// meanwhile. More than 12 in a row are failed ones.
    #[serde(default)]
    pub unclear: u64,
    /// Milliseconds since the last round ended; absent before the first.
    pub age_ms: Option<u64>,
    /// What is wrong now; also in `not_enforcing`.
    pub problem: Option<String>,
}

/// A named number in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What is counted, snake case.
    pub name: String,
    /// How often: since the maps were made, or since the daemon started for what it counts itself.
    pub count: u64,
}

/// The audit spool in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Directory of the spool.
    pub directory: PathBuf,
    /// Records on disk since the daemon started.
    pub written: u64,
    /// Records that could not be queued or written since the daemon started.
    pub lost: u64,
    /// Sequence number of the newest record.
    pub last_sequence: u64,
    /// Bytes that the spool takes on disk.
    pub bytes: u64,
    /// The last write error that still stands.
    pub error: Option<String>,
}

/// Verification keys in [`Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysStatus {
    /// Usable Okta keys.
    pub okta_keys: u64,
    /// Seconds since the last successful fetch of Okta's keys.
    pub okta_age_s: Option<u64>,
    /// Too old to accept new grants by.
    pub okta_stale: bool,
    /// Pinned control-plane keys that are valid now.
    pub control_plane_keys: u64,
}
