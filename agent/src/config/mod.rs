//! The one configuration file: TOML in, typed values out, or every fault at once.
//!
//! Each fault names the file, line, key, value and what would be right. Unknown keys are faults: a
//! misspelt limit must not be silently absent. `docs/configuration.md` is the reference of all keys.

#![forbid(unsafe_code)]

mod canary;
mod ceiling;
mod control_plane;
mod daemon;
mod enforcement;
mod fault;
mod file;
mod guard;
mod listen;
mod okta;
mod reader;
mod units;
mod values;
mod workload;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use grantd_grant::{HostId, HostPolicy, HostPolicyParts};
use toml::de::DeTable;

pub use control_plane::{ControlPlaneConfig, TlsFiles};
pub use daemon::{AuditConfig, PathsConfig, Unsynchronised};
pub use enforcement::{CgroupPath, EnforcementConfig, MAX_LEVELS_BELOW_SLICE};
pub use fault::{ConfigFaults, Fault};
pub use file::{FileError, FileFacts, Untrusted, read_secret, read_trusted};
pub use guard::GuardMode;
pub use listen::Listen;
pub use okta::OktaConfig;
pub use workload::{LaunchConfig, WorkloadConfig};

use crate::text::chain;
use fault::Sink;
use reader::Section;

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/grantd/config.toml";
/// Largest configuration file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// The host's identity, as a person should write it.
const HOST_ID: &str = "this host's SPIFFE ID, such as \"spiffe://example.org/host/build-7\"";

/// Everything that the daemon is told. Immutable; a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from.
    pub file: PathBuf,
    /// SHA-256 of the file's bytes.
    pub hash: ConfigHash,
    /// This host's identity.
    pub host_id: HostId,
    /// Where the keys of access tokens come from.
    pub okta: OktaConfig,
    /// The push listener.
    pub control_plane: ControlPlaneConfig,
    /// What is confined, and where the kernel side lives.
    pub enforcement: EnforcementConfig,
    /// What is done about BPF LSM.
    pub guard: GuardMode,
    /// Time between two rounds of the canary.
    pub canary_period: Duration,
    /// Where each workload's processes are found, in the order of the file.
    pub workloads: Vec<WorkloadConfig>,
    /// The audit spool.
    pub audit: AuditConfig,
    /// Directories.
    pub paths: PathsConfig,
    /// What an unsynchronised clock means.
    pub unsynchronised: Unsynchronised,
    /// What grants are decided with.
    pub policy: Arc<HostPolicy>,
}

/// SHA-256 of a configuration file's bytes; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConfigHash(pub [u8; 32]);

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigHash({self})")
    }
}

/// What a configuration is read with besides its text.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The file, for messages.
    pub file: &'a Path,
    /// Kind, owner and mode of the file.
    pub facts: &'a FileFacts,
    /// systemd's `$CREDENTIALS_DIRECTORY`, where the daemon was given one.
    pub credentials: Option<&'a Path>,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn load(file: &Path) -> Result<Self, ConfigFaults> {
        let (bytes, facts) = file::read_with_facts(file, MAX_BYTES)
            .map_err(|error| ConfigFaults::one(file, chain(&error), readable()))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let problem = format!("is not UTF-8 from byte {} on", error.valid_up_to());
            ConfigFaults::one(file, problem, "save it as UTF-8 text".to_owned())
        })?;
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let credentials = credentials.as_deref().filter(|directory| directory.is_absolute());
        Self::parse(text, &Origin { file, facts: &facts, credentials })
    }

    /// Checks a configuration's text. Reads nothing else.
    ///
    /// # Errors
    /// Every fault of the text, and of the file's kind, owner and mode.
    pub fn parse(text: &str, origin: &Origin<'_>) -> Result<Self, ConfigFaults> {
        let sink = Sink::new(text);
        for reason in origin.facts.untrusted() {
            let trusted = "whoever can write it decides what this host allows";
            sink.add(None, "", None, reason.to_string(), trusted);
        }
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map(|span| span.start);
            sink.add(at, "", None, format!("not TOML: {}", error.message()), "correct the syntax");
        }
        // What follows a syntax error was guessed by the parser: faults in it would be guesses too.
        let config =
            if errors.is_empty() { read(document.get_ref(), &sink, origin, text) } else { None };
        let faults = sink.into_faults();
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ if faults.is_empty() => Err(ConfigFaults::one(
                origin.file,
                "could not be read, for no reason that was recorded".to_owned(),
                "this is a defect of grantd: report it with the file".to_owned(),
            )),
            _ => Err(ConfigFaults { file: origin.file.to_owned(), faults }),
        }
    }
}

fn read<'d>(
    document: &'d DeTable<'d>,
    sink: &'d Sink<'d>,
    origin: &Origin<'_>,
    text: &str,
) -> Option<Config> {
    let mut root = Section::root(document, sink);
    let host_id =
        root.required("host_id", HOST_ID).and_then(|value| value.parse(HOST_ID, HostId::new));
    let okta = root
        .required("okta", "an [okta] section")
        .and_then(|value| value.table("[okta]", okta::read));
    let control_plane =
        root.required("control_plane", "a [control_plane] section").and_then(|value| {
            value.table("[control_plane]", |section| {
                control_plane::read(section, origin.credentials)
            })
        });
    let enforcement = enforcement::read(&mut root);
    let guard = guard::read(&mut root);
    let canary_period = canary::read(&mut root);
    let workloads = workload::read(&mut root, enforcement.as_ref());
    let names = workloads
        .as_ref()
        .map(|workloads| workloads.iter().map(|(config, _)| config.name.clone()).collect());
    let ceiling = ceiling::read(&mut root, names.as_ref());
    let denies = ceiling::read_denies(&mut root);
    let paths = daemon::read_paths(&mut root);
    let audit = daemon::read_audit(&mut root, paths.as_ref());
    let unsynchronised = daemon::read_time(&mut root);
    daemon::refuse_later(&mut root);
    root.finish();

    let (okta, okta_policy) = okta?;
    let (control_plane, control_plane_policy) = control_plane?;
    let (workloads, workload_policies) = workloads?.into_iter().unzip();
    let mut denies = denies?;
    denies.extend(ceiling::own_port(control_plane.listen));
    let host_id = host_id?;
    let parts = HostPolicyParts {
        host_id: host_id.clone(),
        control_plane: control_plane_policy,
        okta: okta_policy,
        workloads: workload_policies,
        ceiling: ceiling?,
        denies,
    };
    Some(Config {
        file: origin.file.to_owned(),
        hash: hash(text),
        host_id,
        okta,
        control_plane,
        enforcement: enforcement?,
        guard: guard?,
        canary_period: canary_period?,
        workloads,
        audit: audit?,
        paths: paths?,
        unsynchronised: unsynchronised?,
        policy: Arc::new(policy(parts, sink)?),
    })
}

/// Checks the parts against each other. What it finds was not found with its line above, and is
/// reported without one.
fn policy(parts: HostPolicyParts, sink: &Sink<'_>) -> Option<HostPolicy> {
    HostPolicy::new(parts)
        .map_err(|faults| {
            for fault in faults {
                sink.add(None, &fault.key, Some(&fault.value), "is refused", fault.expected);
            }
        })
        .ok()
}

fn hash(text: &str) -> ConfigHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    ConfigHash(hash)
}

fn readable() -> String {
    "name a readable file, by default /etc/grantd/config.toml".to_owned()
}
