//! Where this host has its cgroups and its bpffs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::error::Error;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);
/// Inode of the initial cgroup namespace (`PROC_CGROUP_INIT_INO` of linux/proc_ns.h).
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// A cgroup directory, and the id by which the kernel programs know it. A cgroup that is removed
/// and made anew at the same path has another id.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its id: the inode of the directory.
    pub id: u64,
    /// Keeps it open for attaching.
    pub(super) directory: fs::File,
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid hosts.
///
/// # Errors
/// [`Error::NoCgroup2`] where only cgroup v1 is mounted, or nothing.
pub fn cgroup2_mount() -> Result<PathBuf, Error> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|_| Error::NoCgroup2)?;
    mount_point_of(&table, "cgroup2").ok_or(Error::NoCgroup2)
}

/// proc_pid_mountinfo(5): the mount point is the fifth field; the type follows a lone dash.
fn mount_point_of(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        (after.split(' ').next()? == kind).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

/// The cgroup at `path`, by id, without keeping it open; `None` when there is none.
///
/// # Errors
/// It cannot be looked at, or is not on cgroup v2.
pub fn cgroup_of(path: &Path) -> Result<Option<u64>, Error> {
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => {
            require_cgroup2(path)?;
            Ok(Some(m.ino()))
        }
        Ok(_) => Err(Error::Cgroup { path: path.into(), problem: "is not a directory".into() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::Cgroup { path: path.into(), problem: e.to_string() }),
    }
}

/// The InvocationID that systemd set on a unit's cgroup; `None` where there is none.
#[must_use]
pub fn invocation_id(cgroup: &Path) -> Option<String> {
    ["trusted.invocation_id", "user.invocation_id"]
        .into_iter()
        .find_map(|name| super::sys::xattr(cgroup, name))
        .and_then(|bytes| String::from_utf8(bytes).ok())
}

pub(super) fn open_cgroup(path: &Path) -> Result<Cgroup, Error> {
    let problem = |problem: String| Error::Cgroup { path: path.into(), problem };
    let directory = fs::File::open(path).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            let remedy = "does not exist: start the slice first (`systemctl start agents.slice`), or make the directory";
            problem(remedy.to_owned())
        } else {
            problem(e.to_string())
        }
    })?;
    require_cgroup2(path)?;
    let id = directory.metadata().map_err(|e| problem(e.to_string()))?.ino();
    Ok(Cgroup { path: path.into(), id, directory })
}

fn require_cgroup2(path: &Path) -> Result<(), Error> {
    match statfs(path) {
        Ok(fs) if fs.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(()),
        Ok(_) => Err(Error::Cgroup {
            path: path.into(),
            problem:
                "is not on a cgroup v2 hierarchy: boot with systemd.unified_cgroup_hierarchy=1"
                    .into(),
        }),
        Err(e) => Err(Error::Cgroup { path: path.into(), problem: e.to_string() }),
    }
}

pub(super) fn require_bpffs(path: &Path) -> Result<(), Error> {
    match statfs(path) {
        Ok(fs) if fs.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) | Err(_) => Err(Error::NoBpffs { path: path.into() }),
    }
}

/// How deep the slice lies below the root of the hierarchy: the number by which the kernel programs
/// ask for a task's ancestor.
pub(super) fn level_of(slice: &Path) -> Result<u32, Error> {
    let problem = |problem: &str| Error::Cgroup { path: slice.into(), problem: problem.into() };
    let namespace = fs::metadata("/proc/self/ns/cgroup").map(|m| m.ino());
    if namespace.ok() != Some(INITIAL_CGROUP_NAMESPACE) {
        return Err(problem(
            "grantd runs in a cgroup namespace of its own, where the depth of the slice cannot be known: run it in the host's",
        ));
    }
    let mount = cgroup2_mount()?;
    let below = slice
        .strip_prefix(&mount)
        .map_err(|_| problem("does not lie below the cgroup v2 mount"))?;
    u32::try_from(below.components().count())
        .ok()
        .filter(|level| *level > 0)
        .ok_or_else(|| problem("is the cgroup root: the enforced slice has to lie below it"))
}

/// A cgroup's path as the kernel names it: from the root of the hierarchy, which is what is mounted.
pub(super) fn path_in_hierarchy(cgroup: &Path) -> Result<PathBuf, Error> {
    let below = cgroup.strip_prefix(cgroup2_mount()?).map_err(|_| Error::Cgroup {
        path: cgroup.into(),
        problem: "does not lie below the cgroup v2 mount".into(),
    })?;
    Ok(Path::new("/").join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 25 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
40 31 0:37 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw
";

    #[test]
    fn cgroup_v2_is_found_on_hybrid_hosts_and_missed_where_only_v1_is_mounted() {
        assert_eq!(mount_point_of(HYBRID, "cgroup2"), Some("/sys/fs/cgroup/unified".into()));
        let v1: String =
            HYBRID.lines().filter(|l| !l.contains("cgroup2")).map(|l| format!("{l}\n")).collect();
        assert_eq!(mount_point_of(&v1, "cgroup2"), None);
    }

    #[test]
    fn a_directory_that_is_no_bpffs_is_refused_with_the_command_that_mounts_one() {
        let error = require_bpffs(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf bpf /proc"), "{error}");
    }
}
