//! Every way in which `grantctl` can fail, and the exit code of each.

use std::{io, path::PathBuf};

use super::launch::LaunchError;
use crate::ctl::{ClientError, exit::Exit};

/// A boxed error of something that the binary wired in.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("{operation} needs root; use sudo")]
    NotRoot { operation: &'static str },
    #[error("disarm lifts enforcement for everything in the enforced slice: confirm with --yes")]
    NotConfirmed,
    #[error("grantd still answers on {socket}: stop it first (`systemctl stop grantd`)", socket = socket.display())]
    StillRunning { socket: PathBuf },
    #[error("{bpffs}: could not remove the pins", bpffs = bpffs.display())]
    Disarm { bpffs: PathBuf, source: BoxError },
    #[error(
        "{directory}: the audit record of it cannot be written, so nothing was lifted",
        directory = directory.display()
    )]
    NotAudited { directory: PathBuf, source: BoxError },
    #[error("{directory}: cannot read the audit records", directory = directory.display())]
    Audit { directory: PathBuf, source: BoxError },
    #[error("this host cannot be examined")]
    Examine(#[source] BoxError),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => client_exit(error),
            Self::Launch(error) => error.exit(),
            Self::NotRoot { .. } => Exit::Permission,
            Self::NotConfirmed => Exit::Usage,
            Self::StillRunning { .. } => Exit::TryAgain,
            Self::Disarm { .. } | Self::Examine(_) => Exit::Os,
            Self::Audit { source, .. } => audit_exit(&**source),
            // The reader of our output has seen enough, as in `grantctl grants | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) | Self::NotAudited { .. } => Exit::Io,
            Self::Json(_) => Exit::Internal,
        }
    }
}

pub(super) fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Unavailable { .. } => Exit::Unavailable,
        ClientError::NotPermitted { .. } => Exit::Permission,
        ClientError::Broken { .. } => Exit::Io,
        ClientError::Protocol { .. } => Exit::Protocol,
        ClientError::Refused(error) => Exit::from(error.code),
    }
}

/// By the system error at the end of the chain.
fn audit_exit(error: &(dyn std::error::Error + 'static)) -> Exit {
    let causes = std::iter::successors(Some(error), |error| error.source());
    match causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => Exit::NoInput,
        Some(io::ErrorKind::PermissionDenied) => Exit::Permission,
        Some(_) | None => Exit::Io,
    }
}

/// The error and what caused it, outermost first. A source that the text before it already ends with
/// is not repeated.
pub fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
        next = source.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::{CtlError, ErrorCode};

    fn refused(code: ErrorCode) -> u8 {
        CliError::Client(ClientError::Refused(CtlError::new(code, "x"))).exit().code()
    }

    #[test]
    fn each_refusal_of_the_daemon_has_its_documented_exit_code() {
        let documented = [
            (ErrorCode::BadRequest, 64),
            (ErrorCode::Version, 76),
            (ErrorCode::NotPermitted, 77),
            (ErrorCode::NotFound, 1),
            (ErrorCode::Busy, 75),
            (ErrorCode::InvalidConfig, 65),
            (ErrorCode::LedgerFailed, 74),
            (ErrorCode::KernelFailed, 71),
            (ErrorCode::Internal, 70),
        ];
        for (code, exit) in documented {
            assert_eq!(refused(code), exit, "{code:?}");
        }
    }

    #[test]
    fn each_local_failure_has_its_documented_exit_code() {
        let unavailable = ClientError::Unavailable {
            path: "/s".into(),
            source: io(io::ErrorKind::ConnectionRefused),
        };
        assert_eq!(CliError::Client(unavailable).exit().code(), 69);
        assert_eq!(CliError::NotRoot { operation: "x" }.exit().code(), 77);
        assert_eq!(CliError::NotConfirmed.exit().code(), 64);
        assert_eq!(CliError::Output(io(io::ErrorKind::StorageFull)).exit().code(), 74);
        assert_eq!(CliError::Output(io(io::ErrorKind::BrokenPipe)).exit().code(), 0);
        assert_eq!(CliError::from(LaunchError::NotRoot).exit().code(), 77);
        let exec = |kind| LaunchError::Exec { program: "x".into(), source: io(kind) };
        assert_eq!(CliError::from(exec(io::ErrorKind::NotFound)).exit().code(), 127);
        assert_eq!(CliError::from(exec(io::ErrorKind::PermissionDenied)).exit().code(), 126);
    }

    #[test]
    fn audit_records_that_may_not_be_read_exit_with_permission() {
        let exit = |kind| {
            CliError::Audit { directory: "/a".into(), source: io(kind).into() }.exit().code()
        };
        assert_eq!(exit(io::ErrorKind::PermissionDenied), 77);
        assert_eq!(exit(io::ErrorKind::NotFound), 66);
        assert_eq!(exit(io::ErrorKind::StorageFull), 74);
    }

    fn io(kind: io::ErrorKind) -> io::Error {
        io::Error::from(kind)
    }

    #[test]
    fn a_chain_says_each_thing_once() {
        let inner = io::Error::other("disk on fire");
        let outer = CliError::Audit { directory: "/a".into(), source: inner.into() };
        assert_eq!(chain(&outer), ["/a: cannot read the audit records", "disk on fire"]);
    }
}
