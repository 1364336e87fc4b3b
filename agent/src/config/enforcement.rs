//! `[enforcement]`: what is confined, and where the kernel side lives.

use std::fmt;
use std::path::{Path, PathBuf};

use super::reader::{Section, Value};
use super::values::absolute_path;

/// Levels of cgroups below the slice at which a workload may live. The kernel programs resolve a task's
/// workload by its ancestors and look at so many of them.
pub const MAX_LEVELS_BELOW_SLICE: usize = 4;
/// The slice where the file says nothing.
const DEFAULT_SLICE: &str = "agents.slice";
/// The BPF file system where the file says nothing.
const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
/// How the names of cgroups begin that the daemon makes for itself right below the slice.
const OWN_PREFIX: &str = "grantd-";
/// Longest name of one cgroup (`NAME_MAX`).
const MAX_NAME: usize = 255;
/// Longest path of a cgroup below the mount.
const MAX_PATH: usize = 1024;

/// A cgroup v2 directory, relative to the cgroup2 mount: no leading slash, no `.`, no `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.starts_with('/') {
            return Err("begins with /; cgroups are named from the cgroup2 mount");
        }
        if text.len() > MAX_PATH {
            return Err("is too long");
        }
        for name in text.split('/') {
            match name {
                "" => return Err("has an empty part"),
                "." | ".." => return Err("holds . or .."),
                _ if name.len() > MAX_NAME => return Err("has a part longer than 255 bytes"),
                _ if !name.bytes().all(|b| b.is_ascii_graphic()) => {
                    return Err("holds spaces, control or non-ASCII characters");
                }
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as one below the cgroup2 mount.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Whether this is, or lies in, a cgroup that the daemon makes for itself below `slice`.
    #[must_use]
    pub fn is_the_daemons(&self, slice: &Self) -> bool {
        let below = self.0.strip_prefix(&slice.0).and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|name| name.starts_with(OWN_PREFIX))
    }

    /// How many levels this is below `ancestor`; 0 for `ancestor` itself, `None` elsewhere.
    #[must_use]
    pub fn levels_below(&self, ancestor: &Self) -> Option<usize> {
        let rest = self.0.strip_prefix(&ancestor.0)?;
        match rest.strip_prefix('/') {
            Some(below) => Some(below.split('/').count()),
            None => rest.is_empty().then_some(0),
        }
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is confined, and where the kernel side lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcementConfig {
    /// Everything below this cgroup is confined, known workload or not.
    pub slice: CgroupPath,
    /// Where the hooks that see every task attach; the cgroup2 mount if absent.
    pub cgroup_root: Option<PathBuf>,
    /// The BPF file system that holds the pins.
    pub bpffs: PathBuf,
}

/// Reads `[enforcement]`, which may be absent.
pub(super) fn read(root: &mut Section<'_>) -> Option<EnforcementConfig> {
    let Some(value) = root.optional("enforcement") else {
        let slice = CgroupPath::new(DEFAULT_SLICE).ok()?;
        return Some(EnforcementConfig { slice, cgroup_root: None, bpffs: DEFAULT_BPFFS.into() });
    };
    value.table("[enforcement]", |section| {
        let slice = match section.optional("slice") {
            Some(value) => slice(&value),
            None => CgroupPath::new(DEFAULT_SLICE).ok(),
        };
        let cgroup_root = match section.optional("cgroup_root") {
            Some(value) => absolute_path(&value).map(Some),
            None => Some(None),
        };
        let bpffs = match section.optional("bpffs") {
            Some(value) => absolute_path(&value),
            None => Some(DEFAULT_BPFFS.into()),
        };
        Some(EnforcementConfig { slice: slice?, cgroup_root: cgroup_root?, bpffs: bpffs? })
    })
}

fn slice(value: &Value<'_>) -> Option<CgroupPath> {
    value.parse("a cgroup below the cgroup2 mount, such as \"agents.slice\"", CgroupPath::new)
}
