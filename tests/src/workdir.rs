//! A run's own directory below the system's temporary directory, and the sweep of dead runs.
//!
//! Everything that a run makes carries the name of its directory, `grantd-test-<pid>-<n>`. The run
//! holds a file lock in it; a directory whose lock can be taken belongs to a run that is dead, and
//! the next run removes what it left: mounts, cgroup with processes, files. A lock and not a pid
//! decides, since pids are reused and differ between pid namespaces.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, umount2};

use crate::cgroup;
use crate::cleanup::{self, Undo};

/// What every name made by this crate begins with.
pub const PREFIX: &str = "grantd-test-";
const LOCK: &str = "owner.lock";

static NUMBER: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A directory that is removed, with all it holds, when dropped.
#[derive(Debug)]
pub struct Workdir {
    name: String,
    path: PathBuf,
    _lock: File,
    _undo: Undo,
}

impl Workdir {
    /// Makes `grantd-test-<pid>-<n>`, after sweeping what dead runs left.
    ///
    /// # Errors
    /// When not root, or when the directory cannot be made.
    pub fn new() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces, cgroups and mounts: run through `cargo xtask test`"
        );
        SWEEP.call_once(sweep);
        let name =
            format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let path = std::env::temp_dir().join(&name);
        // The lock is held before the directory has the name that a sweep looks for.
        let staging = std::env::temp_dir().join(format!(".{name}"));
        fs::create_dir(&staging).with_context(|| format!("making {}", staging.display()))?;
        let lock = File::create(staging.join(LOCK)).context("making the owner lock")?;
        lock.lock().context("taking the owner lock")?;
        fs::rename(&staging, &path).with_context(|| format!("making {}", path.display()))?;
        // Workloads run as other users and may look up, but not list, what lies here.
        fs::set_permissions(&path, Permissions::from_mode(0o711))?;
        let doomed = path.clone();
        let undo = cleanup::register(format!("directory {}", path.display()), move || {
            fs::remove_dir_all(&doomed).with_context(|| format!("removing {}", doomed.display()))
        });
        Ok(Self { name, path, _lock: lock, _undo: undo })
    }

    /// `grantd-test-<pid>-<n>`: unique on this machine while the run lives.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory with `mode` below this one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subdir(&self, name: &str, mode: u32) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Writes `content` to a file with `mode` below this directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }
}

/// Removes what runs left that were killed before they could clean up. Never fails: what cannot be
/// removed is named on standard error.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        if let Err(error) = remove_dead_run(&name, &entry.path()) {
            cleanup::complain(&format!(
                "could not remove what a dead run left ({name}): {error:#}"
            ));
        }
    }
}

fn remove_dead_run(name: &str, path: &Path) -> Result<()> {
    for mount in mounts_below(path)? {
        umount2(&mount, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", mount.display()))?;
    }
    let cgroup = cgroup::mount_point()?.join(name);
    if cgroup.exists() {
        cgroup::kill_and_remove(&cgroup)?;
    }
    fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))
}

/// Mount points below `path`, deepest first.
///
/// # Errors
/// When the mount table cannot be read.
pub fn mounts_below(path: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mount table")?;
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(path))
        .collect();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    Ok(mounts)
}
