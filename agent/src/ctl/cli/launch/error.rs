//! Why nothing was started.

use std::{io, path::PathBuf};

use crate::ctl::{ClientError, cli::error::chain, exit::Exit};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(in crate::ctl::cli) enum LaunchError {
    #[error("`grantctl run` enters a cgroup and changes user: only root may do that; use sudo")]
    NotRoot,
    #[error(
        "descriptor {fd} is {kind}: what was opened outside the workload would reach past its confinement; redirect it to a file, a pipe or /dev/null"
    )]
    Descriptor { fd: i32, kind: &'static str },
    #[error("descriptor {fd} would stay open in the command")]
    DescriptorLeft { fd: i32 },
    #[error("grantd is not enforcing ({}): nothing was started; `grantctl status` tells more", reasons.join("; "))]
    NotEnforcing { reasons: Vec<String> },
    #[error("workload `{workload}` has no `user` in the config: name one there or with --user")]
    NoUser { workload: String },
    #[error("no account `{user}` on this host")]
    UnknownUser { user: String },
    #[error("account `{user}` has user or group id 0: a workload never runs as root")]
    RootUser { user: String },
    #[error("{cgroup}: {problem}; nothing was started", cgroup = cgroup.display())]
    Cgroup { cgroup: PathBuf, problem: String },
    #[error("{path}: cannot be hidden from the command, or kept; nothing was started", path = path.display())]
    Hide { path: PathBuf, source: io::Error },
    #[error("after changing to uid {uid} the process still has {what}")]
    StillPrivileged { uid: u32, what: String },
    #[error("{program}: cannot start it", program = program.display())]
    Exec { program: PathBuf, source: io::Error },
    #[error("cannot {operation}")]
    Os { operation: &'static str, source: io::Error },
    #[error("{text}")]
    Child { exit: Exit, text: String },
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The ways in which a child that did not become the command exits.
const OF_CHILD: [Exit; 3] = [Exit::CommandNotFound, Exit::CannotExecute, Exit::Os];

impl LaunchError {
    pub(in crate::ctl::cli) fn exit(&self) -> Exit {
        match self {
            Self::NotRoot => Exit::Permission,
            Self::Descriptor { .. } => Exit::Usage,
            Self::NotEnforcing { .. } => Exit::Unavailable,
            Self::NoUser { .. } | Self::UnknownUser { .. } | Self::RootUser { .. } => Exit::NoUser,
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Exit::CommandNotFound
            }
            Self::Exec { .. } => Exit::CannotExecute,
            Self::DescriptorLeft { .. }
            | Self::Cgroup { .. }
            | Self::Hide { .. }
            | Self::StillPrivileged { .. }
            | Self::Os { .. } => Exit::Os,
            Self::Child { exit, .. } => *exit,
            Self::Client(error) => crate::ctl::cli::error::client_exit(error),
        }
    }

    /// For `map_err`: names the operation that the system refused.
    pub(super) fn os<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Os { operation, source: source.into() }
    }

    /// As the child sends it: the exit code, a space, the chain.
    pub(super) fn for_parent(&self) -> String {
        format!("{} {}", self.exit().code(), chain(self).join(": "))
    }

    pub(super) fn from_child(text: &str) -> Self {
        let (code, text) = text.split_once(' ').unwrap_or_default();
        let exit = OF_CHILD.into_iter().find(|exit| exit.code().to_string() == code);
        Self::Child { exit: exit.unwrap_or(Exit::Internal), text: text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_child_reaches_the_person_with_its_exit_code() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let error = LaunchError::Exec { program: "nothing".into(), source };
        let told = LaunchError::from_child(&error.for_parent());
        assert_eq!(told.exit(), Exit::CommandNotFound);
        assert!(told.to_string().starts_with("nothing: cannot start it: "), "{told}");
        assert_eq!(LaunchError::from_child("garbage").exit(), Exit::Internal);
    }
}
