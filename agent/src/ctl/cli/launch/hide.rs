//! What the command does not get to see: unix sockets of those who would send for it, and devices that
//! are ways to a network.
//!
//! `/run` and `/dev` are replaced by almost empty directories with a few entries kept, because a list of
//! sockets to close would always lack one, and a socket that is made later is not there to be covered.
//! Elsewhere known places are covered. All of it in mounts of the command's own: the host sees nothing.

use std::{
    env,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::Mode,
};

use super::LaunchError;

/// A directory that is replaced, and the entries of it that stay.
struct Replaced {
    path: &'static str,
    kept: &'static [&'static str],
}

/// Sockets of container engines, the message bus, name services, virtual machines, user sessions,
/// journals and spoolers are below /run; tun, vhost, vsock, KVM and the like below /dev [C4, D1 to D4].
const REPLACED: [Replaced; 9] = [
    Replaced {
        path: "/run",
        kept: &[
            // What /etc/resolv.conf points to on most hosts; names are still asked over the network.
            "/run/systemd/resolve/stub-resolv.conf",
            "/run/systemd/resolve/resolv.conf",
            "/run/resolvconf/resolv.conf",
            "/run/NetworkManager/resolv.conf",
            "/run/NetworkManager/no-stub-resolv.conf",
            // NixOS finds its programs by these.
            "/run/current-system",
            "/run/booted-system",
            "/run/opengl-driver",
        ],
    },
    Replaced {
        path: "/dev",
        kept: &[
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty",
            TERMINALS,
            "/dev/shm",
            "/dev/fd",
            "/dev/stdin",
            "/dev/stdout",
            "/dev/stderr",
        ],
    },
    Replaced { path: "/var/run", kept: &[] },
    Replaced { path: "/tmp/.X11-unix", kept: &[] },
    Replaced { path: "/tmp/.ICE-unix", kept: &[] },
    Replaced { path: "/var/lib/sss/pipes", kept: &[] },
    Replaced { path: "/var/lib/lxd", kept: &[] },
    Replaced { path: "/var/lib/incus", kept: &[] },
    Replaced { path: "/var/snap", kept: &[] },
];

/// Where pseudo-terminals are. `/dev/ptmx` looks for them beside itself, so that it cannot be bound alone.
const TERMINALS: &str = "/dev/pts";

/// What nothing is ever run from, written to or looked up on.
const LOCKED: MsFlags =
    MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC).union(MsFlags::MS_RDONLY);

/// Hides, in this process's own mounts, what is to be hidden; gives the configured paths that are not there.
pub(super) fn apply(hide: &[PathBuf], keep: &[PathBuf]) -> Result<Vec<PathBuf>, LaunchError> {
    // The host's later mounts still arrive, but nothing of ours goes there.
    mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None)?;
    let directory = env::current_dir();
    let null = handle(Path::new("/dev/null"))
        .and_then(|null| null.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(at(Path::new("/dev/null")))?;
    for Replaced { path, kept } in &REPLACED {
        let path = Path::new(path);
        // A link leads to a directory that is dealt with under its own name.
        let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        if is_directory && !keep.iter().any(|keep| path.starts_with(keep)) {
            let below = keep.iter().filter(|keep| keep.starts_with(path)).map(PathBuf::as_path);
            let kept: Vec<_> = kept.iter().map(Path::new).chain(below).collect();
            replace(path, &kept)?;
        }
    }
    let mut absent = Vec::new();
    for path in hide {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => replace(path, &[])?,
            Ok(_) => bind(&null, path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => absent.push(path.clone()),
            Err(e) => return Err(at(path)(e)),
        }
    }
    // The working directory is still the old one, below what is hidden now: found again by its name.
    let found = directory.and_then(env::set_current_dir);
    found.or_else(|_| env::set_current_dir("/")).map_err(at(Path::new("/")))?;
    Ok(absent)
}

/// An entry of a replaced directory that stays.
enum Kept {
    Link(PathBuf),
    /// A file system of pseudo-terminals, which is its own and not the host's.
    Terminals,
    Directory(OwnedFd),
    File(OwnedFd),
}

fn replace(path: &Path, kept: &[&Path]) -> Result<(), LaunchError> {
    // Held before they are covered.
    let mut entries = Vec::new();
    for entry in kept {
        if let Some(found) = hold(entry).map_err(at(entry))? {
            entries.push((*entry, found));
        }
    }
    let options = Some("mode=0755,size=256k");
    mount_at(Some("grantd"), path, Some("tmpfs"), LOCKED - MsFlags::MS_RDONLY, options)?;
    for (entry, found) in entries {
        if let Some(parent) = entry.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        match found {
            Kept::Link(target) => symlink(target, entry).map_err(at(entry))?,
            Kept::Terminals => {
                fs::create_dir_all(entry).map_err(at(entry))?;
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
                let options = Some("newinstance,ptmxmode=0666,mode=0620");
                mount_at(Some("grantd"), entry, Some("devpts"), flags, options)?;
                symlink("pts/ptmx", "/dev/ptmx").map_err(at(entry))?;
            }
            Kept::Directory(fd) => {
                fs::create_dir_all(entry).map_err(at(entry))?;
                bind(&fd, entry)?;
            }
            Kept::File(fd) => {
                File::create(entry).map_err(at(entry))?;
                bind(&fd, entry)?;
            }
        }
    }
    mount_at(None, path, None, LOCKED | MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None)
}

fn hold(entry: &Path) -> io::Result<Option<Kept>> {
    let found = match fs::symlink_metadata(entry) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if entry == Path::new(TERMINALS) && found.is_dir() {
        return Ok(Some(Kept::Terminals));
    }
    if found.is_symlink() {
        return fs::read_link(entry).map(|target| Some(Kept::Link(target)));
    }
    let kept = if found.is_dir() { Kept::Directory } else { Kept::File };
    Ok(handle(entry)?.map(kept))
}

fn handle(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    match open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(nix::errno::Errno::ENOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn bind(from: &OwnedFd, to: &Path) -> Result<(), LaunchError> {
    let from = format!("/proc/self/fd/{}", from.as_raw_fd());
    mount_at(Some(&from), to, None, MsFlags::MS_BIND | MsFlags::MS_REC, None)
}

fn mount_at(
    from: Option<&str>,
    to: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), LaunchError> {
    mount(from, to, kind, flags, options).map_err(|e| at(to)(e.into()))
}

fn at(path: &Path) -> impl Fn(io::Error) -> LaunchError {
    move |source| LaunchError::Hide { path: path.to_owned(), source }
}
