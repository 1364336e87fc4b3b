//! Where the daemon's files are, by its config file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

const DEFAULT_RUN: &str = "/run/grantd";
const DEFAULT_STATE: &str = "/var/lib/grantd";
const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
const DEFAULT_SLICE: &str = "agents.slice";

/// Paths that commands need.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paths {
    /// The control socket.
    pub(super) socket: PathBuf,
    /// The audit spool.
    pub(super) audit: PathBuf,
    /// Where enforcement is attached and pinned.
    pub(super) enforcement: EnforcementPaths,
    /// This host's identity; empty when the file does not say.
    pub(super) host_id: String,
}

/// Where enforcement is attached and pinned, as far as the config says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnforcementPaths {
    /// The mount below which programs and maps are pinned.
    pub bpffs: PathBuf,
    /// Where the root hooks are attached; `None` is the cgroup2 mount.
    pub cgroup_root: Option<PathBuf>,
    /// The enforced slice, as the config writes it; relative to the cgroup2 mount.
    pub slice: PathBuf,
}

/// The few keys that matter here. Anything else in the file, faults included, is of no concern: a
/// revocation must reach the daemon also when the file was just edited wrongly.
#[derive(Default, Deserialize)]
struct Lenient {
    #[serde(default)]
    host_id: String,
    #[serde(default)]
    audit: LenientAudit,
    #[serde(default)]
    paths: LenientPaths,
    #[serde(default)]
    enforcement: LenientEnforcement,
}

#[derive(Default, Deserialize)]
struct LenientPaths {
    run: Option<PathBuf>,
    state: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct LenientAudit {
    dir: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct LenientEnforcement {
    bpffs: Option<PathBuf>,
    cgroup_root: Option<PathBuf>,
    slice: Option<PathBuf>,
}

impl Paths {
    /// By the file at `config`, with defaults for what it does not say or cannot be read; `socket`
    /// wins over both.
    pub(super) fn of(config: &Path, socket: Option<&Path>) -> Self {
        let text = fs::read_to_string(config).unwrap_or_default();
        let Lenient { host_id, audit, paths, enforcement } =
            toml::from_str(&text).unwrap_or_default();
        let or = |path: Option<PathBuf>, default: &str| path.unwrap_or_else(|| default.into());
        let in_run = || or(paths.run.clone(), DEFAULT_RUN).join("ctl.sock");
        Self {
            socket: socket.map_or_else(in_run, Path::to_owned),
            audit: audit.dir.unwrap_or_else(|| or(paths.state, DEFAULT_STATE).join("audit")),
            host_id,
            enforcement: EnforcementPaths {
                bpffs: or(enforcement.bpffs, DEFAULT_BPFFS),
                cgroup_root: enforcement.cgroup_root,
                slice: or(enforcement.slice, DEFAULT_SLICE),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, socket: Option<&str>) -> Paths {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, text).unwrap();
        Paths::of(&file, socket.map(Path::new))
    }

    #[test]
    fn without_a_config_file_the_defaults_hold() {
        let paths = Paths::of(Path::new("/nonexistent/config.toml"), None);
        assert_eq!(paths.socket, Path::new("/run/grantd/ctl.sock"));
        assert_eq!(paths.audit, Path::new("/var/lib/grantd/audit"));
        assert_eq!(paths.enforcement.bpffs, Path::new("/sys/fs/bpf"));
    }

    #[test]
    fn the_kill_switch_finds_the_socket_although_the_config_has_faults() {
        let paths =
            of("nonsense = 1\n[paths]\nrun = \"/r\"\nstate = \"/s\"\n[okta]\nissuer = 3\n", None);
        assert_eq!(paths.socket, Path::new("/r/ctl.sock"));
        assert_eq!(paths.audit, Path::new("/s/audit"));
    }

    #[test]
    fn a_spool_elsewhere_is_found() {
        let paths = of("[paths]\nstate = \"/s\"\n[audit]\ndir = \"/a\"\n", None);
        assert_eq!(paths.audit, Path::new("/a"));
    }

    #[test]
    fn the_option_wins_over_the_file() {
        let paths = of("[paths]\nrun = \"/r\"\n", Some("/x.sock"));
        assert_eq!(paths.socket, Path::new("/x.sock"));
    }
}
