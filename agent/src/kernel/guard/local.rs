//! Local sockets of the config: from their paths to what the kernel knows them by.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use grantd_common::{LocalPeer, WorkloadId};

/// Symbolic links that are followed at most.
const MAX_LINKS: usize = 16;

/// A local socket of the config that is not open just now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// As the config names it.
    pub path: PathBuf,
    /// Why.
    pub problem: String,
}

/// What the sockets are known by; those that are not there are left out and told.
pub(super) fn resolve(sockets: &[(WorkloadId, &Path)]) -> (Vec<LocalPeer>, Vec<Unresolved>) {
    let (mut peers, mut unresolved) = (Vec::new(), Vec::new());
    let devices = match sockets {
        [] => Ok(HashMap::new()),
        _ => devices(),
    };
    for (workload, path) in sockets {
        let found = devices.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()));
        match found.and_then(|devices| peer(*workload, path, devices)) {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                unresolved.push(Unresolved { path: (*path).into(), problem: error.to_string() });
            }
        }
    }
    (peers, unresolved)
}

fn peer(workload: WorkloadId, path: &Path, devices: &HashMap<u64, u32>) -> io::Result<LocalPeer> {
    let problem = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let path = followed(path)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path)?;
    let found = file.metadata()?;
    if !found.file_type().is_socket() {
        return Err(problem("is no socket"));
    }
    let device = mount_of(&file)
        .and_then(|mount| devices.get(&mount))
        .ok_or_else(|| problem("lies on a mount that cannot be found"))?;
    Ok(LocalPeer { workload, device: *device, inode: found.ino() })
}

/// The path without symbolic links. Only root's are followed: an agent that could lay one would choose what
/// is opened to it.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut left: Vec<PathBuf> = parts(path);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        if part.as_os_str() == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let found = fs::symlink_metadata(&next)?;
        if !found.file_type().is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if found.uid() != 0 || links > MAX_LINKS {
            let what = format!("{} is a symbolic link that is not root's", next.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        left.extend(parts(&target));
    }
    Ok(at)
}

/// The parts of a path, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let kept = |part: Component<'_>| match part {
        Component::Normal(_) | Component::ParentDir => Some(PathBuf::from(part.as_os_str())),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().rev().filter_map(kept).collect()
}

/// The mount that an open file lies on.
fn mount_of(file: &File) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// The device of each mount, as the kernel numbers it. What stat(2) says is another on some file systems.
fn devices() -> io::Result<HashMap<u64, u32>> {
    Ok(devices_in(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// proc_pid_mountinfo(5): the first field is the mount, the third `major:minor`.
fn devices_in(mountinfo: &str) -> HashMap<u64, u32> {
    let device = |line: &str| {
        let mut fields = line.split(' ');
        let mount = fields.next()?.parse().ok()?;
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        Some((mount, major << 20 | minor))
    };
    mountinfo.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const OWN: WorkloadId = WorkloadId(16);

    #[test]
    fn a_socket_is_known_by_its_inode_whatever_path_leads_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let indirect = directory.path().join("x/../engine.sock");
        fs::create_dir(directory.path().join("x")).unwrap();
        let (peers, unresolved) = resolve(&[(OWN, &path), (OWN, &indirect)]);
        assert_eq!(unresolved, []);
        assert_eq!(peers[0], peers[1]);
        assert_eq!(peers[0].inode, fs::metadata(&path).unwrap().ino());
    }

    #[test]
    fn what_is_no_socket_or_not_there_opens_nothing_and_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (missing, file) = (directory.path().join("missing"), directory.path().join("file"));
        fs::write(&file, "").unwrap();
        let (peers, unresolved) = resolve(&[(OWN, &missing), (OWN, &file)]);
        assert_eq!(peers, []);
        assert_eq!(unresolved.len(), 2);
        assert!(unresolved[1].problem.contains("no socket"), "{unresolved:?}");
    }

    #[test]
    fn mounts_are_told_with_the_device_that_the_kernel_compares() {
        let table = "36 35 98:3 / /mnt rw - ext3 /dev/root rw\n24 1 0:22 / /run rw - tmpfs t rw\n";
        let devices = devices_in(table);
        assert_eq!(devices.get(&36), Some(&(98 << 20 | 3)));
        assert_eq!(devices.get(&24), Some(&22));
    }
}
