//! The daemon's end of the control socket.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    control::Control,
    line::{LineError, read_line},
    peer::{Caller, Denied, authorise, authorise_place},
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
/// Changes in hand at once. Each goes on to its end when its caller has left.
const CHANGES: u32 = 32;
/// How long a caller waits for the answer to one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest life of a connection.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` until `shutdown` turns true or its sender is gone; then takes no request
/// more, and returns when those in hand are answered and every change is done.
///
/// `slice` is the enforced slice as `/proc/<pid>/cgroup` writes it, such as `/agents.slice`.
pub async fn serve<C: Control>(
    listener: UnixListener,
    control: Arc<C>,
    slice: String,
    mut shutdown: watch::Receiver<bool>,
) {
    let changes = Arc::new(Semaphore::new(CHANGES as usize));
    let shared = Arc::new(Shared {
        control,
        slice,
        root: Arc::new(Semaphore::new(ROOT_CONNECTIONS)),
        others: Arc::new(Semaphore::new(OTHER_CONNECTIONS)),
        changes: Arc::clone(&changes),
        shutdown: shutdown.clone(),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
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
    drop(listener);
    while connections.join_next().await.is_some() {}
    // All permits together: what callers left behind is done as well.
    let _ = changes.acquire_many(CHANGES).await;
}

/// Resolves when the daemon stops, or nobody is left who could say so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

struct Shared<C> {
    control: Arc<C>,
    slice: String,
    root: Arc<Semaphore>,
    others: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

/// Starts the connection's task, or drops the connection when its caller is confined or it is one too
/// many. A confined caller takes no seat, whatever its uid: it could keep root from the kill switch.
fn accept<C: Control>(shared: &Arc<Shared<C>>, stream: UnixStream, tasks: &mut JoinSet<()>) {
    let caller = match Caller::of(stream.as_fd()) {
        Ok(caller) => caller,
        Err(error) => {
            tracing::warn!(%error, "a control connection without credentials was closed");
            return;
        }
    };
    if let Err(denied) = authorise_place(&caller, &shared.slice) {
        return turn_away(&stream, refuse(shared, &caller, None, &denied));
    }
    let seats = if caller.uid == 0 { &shared.root } else { &shared.others };
    let Ok(seat) = Arc::clone(seats).try_acquire_owned() else {
        let busy = "too many control connections; try again";
        return turn_away(&stream, CtlError::new(ErrorCode::Busy, busy));
    };
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        if timeout(CONNECTION_LIFETIME, converse(&shared, stream, &caller)).await.is_err() {
            tracing::debug!(pid = caller.pid, "a control connection outlived its time");
        }
        drop(seat);
    });
}

/// One write that fits the socket's buffer: nobody waits for a caller that does not read.
fn turn_away(stream: &UnixStream, error: CtlError) {
    if let Some(line) = encode(Reply::Error(error)) {
        drop(stream.try_write(&line));
    }
}

/// No refusal goes without its record.
fn refuse<C: Control>(
    shared: &Shared<C>,
    caller: &Caller,
    request: Option<&Request>,
    denied: &Denied,
) -> CtlError {
    let why = denied.to_string();
    shared.control.refused(caller, request, &why);
    CtlError::new(ErrorCode::NotPermitted, why)
}

/// One connection: request, reply, until the caller closes, stalls or breaks the protocol.
async fn converse<C: Control>(shared: &Shared<C>, stream: UnixStream, caller: &Caller) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut shutdown = shared.shutdown.clone();
    loop {
        let line = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return,
            line = timeout(LINE_TIMEOUT, read_line(&mut read, MAX_REQUEST_LINE)) => line,
        };
        let (reply, go_on) = match line {
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
        return Reply::Error(refuse(shared, caller, Some(&request), &denied));
    }
    let answered = if request.changes() {
        timeout(REQUEST_TIMEOUT, change(shared, caller, request)).await
    } else {
        timeout(REQUEST_TIMEOUT, dispatch(&*shared.control, caller, request)).await
    };
    match answered {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => Reply::Error(error),
        Err(_) => Reply::Error(CtlError::new(
            ErrorCode::Internal,
            "the daemon did not finish in time and may still do it; `grantctl status` tells what is in force",
        )),
    }
}

/// A change runs in a task of its own: it is finished and audited whether or not its caller waits.
async fn change<C: Control>(
    shared: &Shared<C>,
    caller: &Caller,
    request: Request,
) -> Result<Reply, CtlError> {
    let Ok(permit) = Arc::clone(&shared.changes).try_acquire_owned() else {
        return Err(CtlError::new(ErrorCode::Busy, "too many changes in hand; try again"));
    };
    let (control, caller) = (Arc::clone(&shared.control), caller.clone());
    let task = tokio::spawn(async move {
        let result = dispatch(&*control, &caller, request).await;
        drop(permit);
        result
    });
    let failed =
        |_| CtlError::new(ErrorCode::Internal, "the change failed half-way; ask for the status");
    task.await.unwrap_or_else(|e| Err(failed(e)))
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
