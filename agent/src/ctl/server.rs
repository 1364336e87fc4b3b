//! The daemon's end of the control socket.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_socket, listen, socket,
    },
    unistd::{Group, chown},
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{
    control::Control,
    line::{LineError, read_line},
    peer::{Caller, authorise},
    protocol::{
        CtlError, ErrorCode, GRANTS_PER_PAGE, GrantPage, MAX_REPLY_LINE, MAX_REQUEST_LINE,
        PROTOCOL_VERSION, Reply, ReplyLine, Request, RequestLine, Revoked,
    },
};

/// Connections of root at once.
const ROOT_CONNECTIONS: usize = 16;
/// Connections of everybody else at once, counted apart so that nobody keeps root from the kill switch.
const OTHER_CONNECTIONS: usize = 16;
/// How long a caller may take over one request line, and over taking its reply.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the daemon may take over one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest life of a connection.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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

/// Answers on `listener` until the future is dropped; then every connection is closed.
///
/// `slice` is the enforced slice as `/proc/<pid>/cgroup` writes it, such as `/agents.slice`.
pub async fn serve<C: Control>(listener: UnixListener, control: Arc<C>, slice: String) {
    let shared = Arc::new(Shared {
        control,
        slice,
        root: Arc::new(Semaphore::new(ROOT_CONNECTIONS)),
        others: Arc::new(Semaphore::new(OTHER_CONNECTIONS)),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    accept(&shared, stream, &mut connections);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a control connection's task failed");
                }
            }
        }
    }
}

struct Shared<C> {
    control: Arc<C>,
    slice: String,
    root: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

/// Starts the connection's task, or drops the connection when it is one too many.
fn accept<C: Control>(shared: &Arc<Shared<C>>, stream: UnixStream, tasks: &mut JoinSet<()>) {
    let caller = match Caller::of(stream.as_fd()) {
        Ok(caller) => caller,
        Err(error) => {
            tracing::warn!(%error, "a control connection without credentials was closed");
            return;
        }
    };
    let seats = if caller.uid == 0 { &shared.root } else { &shared.others };
    let Ok(seat) = Arc::clone(seats).try_acquire_owned() else {
        // One write that fits the socket's buffer: nobody waits for a caller that does not read.
        let busy = CtlError::new(ErrorCode::Busy, "too many control connections; try again");
        if let Some(line) = encode(Reply::Error(busy)) {
            drop(stream.try_write(&line));
        }
        return;
    };
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        if timeout(CONNECTION_LIFETIME, converse(&shared, stream, &caller)).await.is_err() {
            tracing::debug!(pid = caller.pid, "a control connection outlived its time");
        }
        drop(seat);
    });
}

/// One connection: request, reply, until the caller closes, stalls or breaks the protocol.
async fn converse<C: Control>(shared: &Shared<C>, stream: UnixStream, caller: &Caller) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let (reply, go_on) =
            match timeout(LINE_TIMEOUT, read_line(&mut read, MAX_REQUEST_LINE)).await {
                Ok(Ok(Some(line))) => (answer(shared, caller, &line).await, true),
                Ok(Ok(None)) | Ok(Err(LineError::Io(_))) | Err(_) => return,
                Ok(Err(error @ (LineError::TooLong(_) | LineError::Cut))) => {
                    (Reply::Error(CtlError::new(ErrorCode::BadRequest, error.to_string())), false)
                }
            };
        if !send(&mut write, reply).await || !go_on {
            return;
        }
    }
}

/// Sends one reply; false when the caller is gone or does not read.
async fn send(write: &mut OwnedWriteHalf, reply: Reply) -> bool {
    let Some(line) = encode(reply) else { return false };
    matches!(timeout(LINE_TIMEOUT, write.write_all(&line)).await, Ok(Ok(())))
}

async fn answer<C: Control>(shared: &Shared<C>, caller: &Caller, line: &[u8]) -> Reply {
    let request = match parse(line) {
        Ok(request) => request,
        Err(error) => return Reply::Error(error),
    };
    if let Err(denied) = authorise(caller, &request, &shared.slice) {
        let why = denied.to_string();
        shared.control.refused(caller, &request, &why);
        return Reply::Error(CtlError::new(ErrorCode::NotPermitted, why));
    }
    match timeout(REQUEST_TIMEOUT, dispatch(&*shared.control, caller, request)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => Reply::Error(error),
        Err(_) => Reply::Error(CtlError::new(
            ErrorCode::Internal,
            "the daemon did not finish in time; `grantctl status` tells what is in force",
        )),
    }
}

fn parse(line: &[u8]) -> Result<Request, CtlError> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u16,
    }
    let bad = |e: serde_json::Error| {
        CtlError::new(ErrorCode::BadRequest, format!("not a request of this protocol: {e}"))
    };
    let Version { v } = serde_json::from_slice(line).map_err(bad)?;
    if v != PROTOCOL_VERSION {
        return Err(CtlError::new(
            ErrorCode::Version,
            format!("the caller speaks protocol version {v} and this daemon {PROTOCOL_VERSION}"),
        ));
    }
    let RequestLine { v: _, request } = serde_json::from_slice(line).map_err(bad)?;
    Ok(request)
}

async fn dispatch<C: Control>(
    control: &C,
    caller: &Caller,
    request: Request,
) -> Result<Reply, CtlError> {
    let caller = || caller.clone();
    Ok(match request {
        Request::Status {} => Reply::Status(Box::new(control.status().await?)),
        Request::Grants { workload, after } => {
            Reply::Grants(fit(control.grants(workload, after, GRANTS_PER_PAGE).await?))
        }
        Request::GrantShow { id } => Reply::Grant(Box::new(control.grant(id).await?)),
        Request::Revoke { selector } => {
            let mut revoked = control.revoke(caller(), selector).await?;
            revoked.ids.truncate(Revoked::MAX_IDS);
            Reply::Revoked(revoked)
        }
        Request::Freeze {} => control.freeze(caller()).await.map(|()| Reply::Frozen)?,
        Request::Thaw {} => control.thaw(caller()).await.map(|()| Reply::Thawed)?,
        Request::Enrol { workload } => Reply::Enrolled(control.enrol(caller(), workload).await?),
        Request::Reload {} => Reply::Reloaded(control.reload(caller()).await?),
    })
}

/// Cuts a page to what one reply line holds. The first grant always stays: it is far smaller.
fn fit(mut page: GrantPage) -> GrantPage {
    const ENVELOPE: usize = 1024;
    let mut room = MAX_REPLY_LINE - ENVELOPE;
    let fitting = page
        .grants
        .iter()
        .take_while(|grant| {
            let size = serde_json::to_vec(grant).map_or(usize::MAX, |json| json.len() + 1);
            room.checked_sub(size).inspect(|left| room = *left).is_some()
        })
        .count()
        .max(1);
    if fitting < page.grants.len() {
        page.grants.truncate(fitting);
        page.next = page.grants.last().map(|grant| grant.id.clone());
    }
    page
}

/// The reply as a line; a reply too long for one becomes an error that says so.
fn encode(reply: Reply) -> Option<Vec<u8>> {
    let line = |reply| {
        let mut line = serde_json::to_vec(&ReplyLine { v: PROTOCOL_VERSION, reply }).ok()?;
        line.push(b'\n');
        Some(line)
    };
    match line(reply)? {
        fits if fits.len() <= MAX_REPLY_LINE => Some(fits),
        long => line(Reply::Error(CtlError::new(
            ErrorCode::Internal,
            format!("the answer of {} bytes does not fit a reply of {MAX_REPLY_LINE}", long.len()),
        ))),
    }
}
