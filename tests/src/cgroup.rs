//! Control groups of a run: its own parent (where the root hooks are attached instead of at the real
//! root), the enforced slice below it, and workloads below that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cleanup::{self, Undo};
use crate::clock;

/// How long killed processes may take to vanish.
const PATIENCE: Duration = Duration::from_secs(10);

/// The slice that everything confined lies below, as in a real installation.
pub const SLICE: &str = "agents.slice";

/// Where cgroup v2 is mounted on this machine (`/sys/fs/cgroup`, or `…/unified` on hybrid ones).
///
/// # Errors
/// When the mount table has no cgroup2.
pub fn mount_point() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mount table")?;
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        if right.starts_with("cgroup2 ")
            && let Some(mount) = left.split(' ').nth(4)
        {
            return Ok(PathBuf::from(mount));
        }
    }
    bail!("no cgroup v2 hierarchy is mounted: `mount -t cgroup2 none /sys/fs/cgroup`")
}

/// A run's own part of the hierarchy. Dropping it kills what is left in it and removes it.
#[derive(Debug)]
pub struct CgroupTree {
    root: PathBuf,
    _undo: Undo,
}

impl CgroupTree {
    /// Makes `<cgroup2 mount>/<name>` with the slice and a place for daemon and servers below it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let root = mount_point()?.join(name);
        make(&root)?;
        let doomed = root.clone();
        let undo = cleanup::register(format!("cgroup {}", root.display()), move || {
            kill_and_remove(&doomed)
        });
        let tree = Self { root, _undo: undo };
        make(&tree.slice())?;
        make(&tree.outside())?;
        Ok(tree)
    }

    /// The run's own parent: `cgroup_root` in the daemon's config.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The enforced slice.
    #[must_use]
    pub fn slice(&self) -> PathBuf {
        self.root.join(SLICE)
    }

    /// A cgroup below the run's parent and outside the slice, for the daemon and for bystanders.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        self.root.join("outside")
    }

    /// Makes the cgroup of a workload below the slice.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn workload(&self, name: &str) -> Result<PathBuf> {
        let path = self.slice().join(name);
        make(&path)?;
        Ok(path)
    }
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("making cgroup {}", path.display()))
}

/// Pids in `path` itself, not below it.
///
/// # Errors
/// When the cgroup cannot be read.
pub fn pids(path: &Path) -> Result<Vec<i32>> {
    let text = fs::read_to_string(path.join("cgroup.procs"))
        .with_context(|| format!("reading the processes of {}", path.display()))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Kills every process in and below `path` and removes the cgroups, children first.
///
/// # Errors
/// When something in it will not die or cannot be removed.
pub fn kill_and_remove(path: &Path) -> Result<()> {
    fs::write(path.join("cgroup.kill"), "1")
        .with_context(|| format!("killing what is in {}", path.display()))?;
    clock::wait_until(&format!("the processes in {} to end", path.display()), PATIENCE, || {
        let events = fs::read_to_string(path.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "populated 0").then_some(()))
    })?;
    remove_bottom_up(path)
}

fn remove_bottom_up(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_bottom_up(&entry.path())?;
        }
    }
    clock::wait_until(&format!("removal of {}", path.display()), PATIENCE, || match fs::remove_dir(
        path,
    ) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    })
}
