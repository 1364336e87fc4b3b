//! What about this host would let an agent out, or keep grantd from enforcing, each with what to do.
//!
//! A check is a function of a [`Subject`] and of files below one root, so that tests plant a fault and see it
//! found. Nothing is changed.

mod accounts;
mod cgroups;
mod devices;
mod kernel;
mod sockets;
mod system;
mod this_host;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use this_host::examine_this_host;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Enforcement does not work, or can be undone by an agent.
    Fault,
    /// A known way out is open.
    Warning,
    /// Closed by other means here; better all the same.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name, for programs.
    pub check: &'static str,
    /// The known ways out that it is about.
    pub threats: &'static [&'static str],
    /// What was found, and where.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

/// An account, as name services know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Numbers of its groups, the primary one included.
    pub gids: Vec<u32>,
    /// Names of the same.
    pub groups: Vec<String>,
}

/// A workload of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadSubject {
    /// Its name.
    pub name: String,
    /// Its cgroup's directory.
    pub cgroup: PathBuf,
    /// The account that the config names.
    pub user: Option<String>,
    /// That account; none where name services do not know it.
    pub account: Option<Account>,
}

/// What is examined.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The cgroup2 mount.
    pub cgroup_mount: PathBuf,
    /// The enforced slice's directory.
    pub slice: PathBuf,
    /// The BPF file system.
    pub bpffs: PathBuf,
    /// The workloads.
    pub workloads: Vec<WorkloadSubject>,
    /// What the kernel said when the programs were tried; `Ok` where it takes them.
    pub programs: Result<(), String>,
    /// Whether the kernel holds the clock to be synchronised.
    pub clock_synchronised: bool,
    /// Whether this runs as root: otherwise much cannot be looked at.
    pub root: bool,
}

/// Looks at everything below `root` (`/`). Worst first.
#[must_use]
pub fn examine(root: &Path, subject: &Subject) -> Vec<Finding> {
    let files = Files { root };
    let mut found = Vec::new();
    kernel::check(&files, subject, &mut found);
    cgroups::check(&files, subject, &mut found);
    accounts::check(&files, subject, &mut found);
    sockets::check(&files, subject, &mut found);
    devices::check(&files, subject, &mut found);
    system::check(&files, subject, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

/// Files below a root.
struct Files<'a> {
    root: &'a Path,
}

impl Files<'_> {
    fn path(&self, absolute: &Path) -> PathBuf {
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// A short text, trimmed; none where it cannot be read.
    fn text(&self, absolute: &str) -> Option<String> {
        std::fs::read_to_string(self.path(Path::new(absolute))).ok().map(|t| t.trim().to_owned())
    }

    fn exists(&self, absolute: &str) -> bool {
        self.path(Path::new(absolute)).symlink_metadata().is_ok()
    }

    /// Owner, group and mode.
    fn owner(&self, absolute: &Path) -> Option<Owner> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(self.path(absolute)).ok()?;
        Some(Owner { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 })
    }
}

/// Whose a file is.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Owner {
    /// Whether an account other than root may write to it, by its owner, group and other bits.
    fn writable_by(self, account: &Account) -> bool {
        if account.uid == 0 {
            return true;
        }
        let class = if self.uid == account.uid {
            self.mode >> 6
        } else if account.gids.contains(&self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        class & 0o2 != 0
    }
}

#[cfg(test)]
mod tests;
