//! `grantctl run`: starts a command confined in a workload.
//!
//! Whatever cannot be shown to hold stops the launch: nothing is started half confined. The order
//! matters: descriptors before anything else is opened, the cgroup before the privileges that
//! joining it takes are dropped.

mod cgroup;
mod descriptors;
mod identity;
mod session;

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use nix::{sys::prctl, unistd::Uid};

use super::args::RunArgs;
use crate::ctl::{Client, ClientError, exit::Exit};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("`grantctl run` enters a cgroup and changes user: only root may do that; use sudo")]
    NotRoot,
    #[error(
        "descriptor {fd} is {kind}: a socket or the like made outside the workload would reach past its confinement; redirect it to a file, a pipe or /dev/null"
    )]
    Descriptor { fd: i32, kind: &'static str },
    #[error("descriptor {fd} would stay open in the command")]
    DescriptorLeft { fd: i32 },
    #[error("workload `{workload}` has no `user` in the config: name one there or with --user")]
    NoUser { workload: String },
    #[error("no account `{user}` on this host")]
    UnknownUser { user: String },
    #[error("account `{user}` has user or group id 0: a workload never runs as root")]
    RootUser { user: String },
    #[error("{cgroup}: {problem}; nothing was started")]
    Cgroup { cgroup: PathBuf, problem: String },
    #[error("after changing to uid {uid} the process still has {what}")]
    StillPrivileged { uid: u32, what: String },
    #[error("{program}: cannot start it", program = program.display())]
    Exec { program: PathBuf, source: io::Error },
    #[error("cannot {operation}")]
    Os { operation: &'static str, source: io::Error },
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl LaunchError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NotRoot => Exit::Permission,
            Self::Descriptor { .. } => Exit::Usage,
            Self::NoUser { .. } | Self::UnknownUser { .. } | Self::RootUser { .. } => Exit::NoUser,
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Exit::CommandNotFound
            }
            Self::Exec { .. } => Exit::CannotExecute,
            Self::DescriptorLeft { .. }
            | Self::Cgroup { .. }
            | Self::StillPrivileged { .. }
            | Self::Os { .. } => Exit::Os,
            Self::Client(error) => super::error::client_exit(error),
        }
    }

    /// For `map_err`: names the operation that the system refused.
    fn os<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Os { operation, source: source.into() }
    }
}

/// Replaces this process by the command. Comes back only with an error, or with the exit code of the
/// command where it had to be started as a child (see [`session`]).
pub(super) fn launch(
    args: &RunArgs,
    argv: &[OsString],
    socket: &dyn Fn() -> PathBuf,
) -> Result<u8, LaunchError> {
    if !Uid::current().is_root() || !Uid::effective().is_root() {
        return Err(LaunchError::NotRoot);
    }
    descriptors::close_inherited()?;
    descriptors::check_standard()?;
    if session::needs_child()? {
        return session::run_as_child(argv);
    }
    let enrolled = {
        // Dropped before the cgroup is joined: the daemon answers nobody in there.
        let mut client = Client::connect(&socket())?;
        client.enrol(args.workload.clone())?
    };
    let user = args.user.as_deref().or(enrolled.user.as_deref());
    let user = user.ok_or_else(|| LaunchError::NoUser { workload: args.workload.clone() })?;
    let account = identity::account(user)?;
    cgroup::join(&enrolled.cgroup, enrolled.cgroup_id)?;
    session::detach()?;
    prctl::set_no_new_privs().map_err(LaunchError::os("set no_new_privs"))?;
    identity::become_user(&account)?;
    descriptors::check_rest()?;
    Err(exec(&args.command, &account))
}

fn exec(command: &[OsString], account: &nix::unistd::User) -> LaunchError {
    let (program, rest) = match command.split_first() {
        Some((program, rest)) => (program.as_os_str(), rest),
        None => (OsStr::new(""), command),
    };
    let mut new = Command::new(program);
    new.args(rest);
    identity::clean_environment(&mut new, account);
    let source = new.exec();
    LaunchError::Exec { program: program.into(), source }
}
