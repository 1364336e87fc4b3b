//! Makes the control socket.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_socket, listen, socket,
    },
    unistd::{Group, chown},
};
use tokio::net::UnixListener;

/// `sun_path` with its terminating zero (unix(7)).
const MAX_PATH: usize = 108;

/// Where and for whom to listen.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Path of the socket; its directory exists and is writable by root alone.
    pub path: PathBuf,
    /// Name of the group that may read state; without such a group only root may connect.
    pub group: String,
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Longer than a socket address holds.
    #[error("{path}: a socket path may be at most {} bytes; set [paths] run to a shorter directory", MAX_PATH - 1)]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another daemon answers there.
    #[error("{path}: another grantd answers on this socket; stop it first")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is not a socket lies there.
    #[error("{path}: exists and is not a socket; move it away")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "{directory}: is writable by group or others (mode {mode:04o}); chmod it to 0755 or stricter"
    )]
    OpenDirectory {
        /// Directory of the socket.
        directory: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system refused.
    #[error("{path}: cannot {operation}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// Makes the socket, in place of one that a dead daemon left.
///
/// Owner and mode are set before the socket listens, so that no caller can slip in between. Must be
/// called within a tokio runtime.
///
/// # Errors
/// [`BindError`], nothing listening.
pub fn bind(config: &ServerConfig) -> Result<UnixListener, BindError> {
    let path = &config.path;
    if path.as_os_str().len() >= MAX_PATH {
        return Err(BindError::TooLong { path: path.clone() });
    }
    check_directory(path)?;
    remove_stale(path)?;
    let failed = |operation| {
        move |e: nix::Error| BindError::Io { path: path.clone(), operation, source: e.into() }
    };
    let address = UnixAddr::new(path.as_path()).map_err(failed("form a socket address"))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .map_err(failed("make a socket"))?;
    bind_socket(fd.as_raw_fd(), &address).map_err(failed("bind"))?;
    let group = Group::from_name(&config.group).map_err(failed("look up the socket's group"))?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    if let Some(group) = group {
        chown(path.as_path(), None, Some(group.gid)).map_err(failed("give to its group"))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|source| {
        BindError::Io { path: path.clone(), operation: "set permissions", source }
    })?;
    listen(&fd, Backlog::new(64).unwrap_or(Backlog::MAXALLOWABLE)).map_err(failed("listen"))?;
    UnixListener::from_std(fd.into()).map_err(|source| BindError::Io {
        path: path.clone(),
        operation: "watch",
        source,
    })
}

fn check_directory(path: &Path) -> Result<(), BindError> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let metadata = fs::metadata(directory).map_err(|source| BindError::Io {
        path: directory.to_owned(),
        operation: "read the socket's directory",
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(BindError::OpenDirectory { directory: directory.to_owned(), mode });
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed =
        |operation| move |source| BindError::Io { path: path.to_owned(), operation, source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at it")(e)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err(BindError::InUse { path: path.to_owned() });
    }
    fs::remove_file(path).map_err(failed("remove the socket that was left there"))
}
