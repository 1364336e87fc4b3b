//! The caller's end of the control socket, blocking.

use std::{
    io::{self, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    line::{LineError, read_line_blocking},
    protocol::{
        CtlError, Enrolled, ErrorCode, GrantPage, GrantView, MAX_REPLY_LINE, PROTOCOL_VERSION,
        Reloaded, Reply, ReplyLine, Request, RequestLine, RevokeSelector, Revoked, Status,
    },
};

/// Longest wait for a reply: beyond the daemon's own limit for a request.
const REPLY_TIMEOUT: Duration = Duration::from_secs(75);

/// A connection to a running daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("{path}: grantd does not answer; is it running? (`systemctl status grantd`)")]
    Unavailable {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The socket is there, and not for this caller.
    #[error(
        "{path}: may not open the control socket; use sudo, or join the group `grantd` to read"
    )]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The connection broke or the daemon took too long. A change may or may not be in force.
    #[error("{path}: the control connection failed; `grantctl status` tells what is in force")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// What came is not a reply of this protocol.
    #[error(
        "{path}: not a reply of this protocol version: {detail}; update grantctl and grantd together"
    )]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The daemon refused or failed.
    #[error(transparent)]
    Refused(#[from] CtlError),
}

impl Client {
    /// Connects to the daemon's socket.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] or [`ClientError::NotPermitted`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let prepared = UnixStream::connect(&path).and_then(|stream| {
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
            Ok(stream)
        });
        match prepared {
            Ok(stream) => Ok(Self { path, stream: BufReader::new(stream) }),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(ClientError::NotPermitted { path, source })
            }
            Err(source) => Err(ClientError::Unavailable { path, source }),
        }
    }

    /// Asks one thing and waits for its answer. [`Reply::Error`] becomes [`ClientError::Refused`].
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Broken`] of a change, ask for the status.
    pub fn call(&mut self, request: Request) -> Result<Reply, ClientError> {
        let line = RequestLine { v: PROTOCOL_VERSION, request };
        let mut bytes = serde_json::to_vec(&line).map_err(|e| self.protocol(e.to_string()))?;
        bytes.push(b'\n');
        // A daemon that is full answers and hangs up before it reads: its answer says why.
        let written = self.stream.get_mut().write_all(&bytes);
        let line = match read_line_blocking(&mut self.stream, MAX_REPLY_LINE) {
            Ok(Some(line)) => line,
            Ok(None) => {
                let hung_up = || io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(self.broken(written.err().unwrap_or_else(hung_up)));
            }
            Err(LineError::Io(source)) => return Err(self.broken(written.err().unwrap_or(source))),
            Err(error @ (LineError::TooLong(_) | LineError::Cut)) => {
                return Err(self.protocol(error.to_string()));
            }
        };
        let ReplyLine { v, reply } =
            serde_json::from_slice(&line).map_err(|e| self.protocol(e.to_string()))?;
        if v != PROTOCOL_VERSION {
            return Err(self.protocol(format!("version {v} instead of {PROTOCOL_VERSION}")));
        }
        if let Reply::Error(error) = reply {
            return Err(ClientError::Refused(error));
        }
        Ok(reply)
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), source }
    }

    fn protocol(&self, detail: String) -> ClientError {
        ClientError::Protocol { path: self.path.clone(), detail }
    }
}

/// One method per request, with the type of its reply.
macro_rules! typed {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $out:ty, $request:expr, $reply:pat => $value:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`].
        pub fn $name(&mut self $(, $arg: $type)*) -> Result<$out, ClientError> {
            let $reply = self.call($request)? else {
                return Err(self.protocol("a reply of another kind".to_owned()));
            };
            Ok($value)
        }
    };
}

impl Client {
    typed!(/// Is it enforcing now.
        status() -> Status, Request::Status {}, Reply::Status(status) => *status);
    typed!(/// One page of live grants.
        grants_page(workload: Option<String>, after: Option<String>) -> GrantPage,
        Request::Grants { workload, after }, Reply::Grants(page) => page);
    typed!(/// One grant.
        grant(id: String) -> GrantView, Request::GrantShow { id }, Reply::Grant(grant) => *grant);
    typed!(/// Ends grants now.
        revoke(selector: RevokeSelector) -> Revoked,
        Request::Revoke { selector }, Reply::Revoked(revoked) => revoked);
    typed!(/// No new grants until thawed.
        freeze() -> (), Request::Freeze {}, Reply::Frozen => ());
    typed!(/// Takes grants again.
        thaw() -> (), Request::Thaw {}, Reply::Thawed => ());
    typed!(/// Makes sure of a workload's cgroup.
        enrol(workload: String) -> Enrolled,
        Request::Enrol { workload }, Reply::Enrolled(enrolled) => enrolled);
    typed!(/// Reads the config file again.
        reload() -> Reloaded, Request::Reload {}, Reply::Reloaded(reloaded) => reloaded);

    /// Every live grant, all pages.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn grants(&mut self, workload: Option<&str>) -> Result<Vec<GrantView>, ClientError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.grants_page(workload.map(str::to_owned), after)?;
            all.extend(page.grants);
            match page.next {
                // Ids only grow, so a page that does not move on would never end.
                Some(next) if all.last().is_none_or(|last| last.id != next) => {
                    return Err(CtlError::new(
                        ErrorCode::Internal,
                        format!("the daemon's list of grants does not move on after {next}"),
                    )
                    .into());
                }
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }
}
