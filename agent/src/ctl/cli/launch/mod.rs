//! `grantctl run`: starts a command confined in a workload.
//!
//! Whatever cannot be shown to hold stops the launch: nothing is started half confined. The parent stays
//! outside, as itself; the child is born in the workload's cgroup and gives up one thing after the other,
//! what it needs for the next steps last.

mod cgroup;
mod descriptors;
mod error;
mod hide;
mod identity;
mod session;

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

pub(super) use error::LaunchError;
use nix::{
    sys::prctl,
    unistd::{Uid, User},
};
use session::Signals;

use super::args::RunArgs;
use crate::{
    ctl::{Client, Enrolled},
    kernel::launch::{self as kernel, Arch, Filter, Isolation},
};

/// Starts the command and waits for it; gives its exit code.
pub(super) fn launch(args: &RunArgs, socket: &dyn Fn() -> PathBuf) -> Result<u8, LaunchError> {
    if !Uid::current().is_root() || !Uid::effective().is_root() {
        return Err(LaunchError::NotRoot);
    }
    descriptors::close_inherited()?;
    descriptors::check_standard()?;
    let filter = Filter::assemble(Arch::native().map_err(LaunchError::os("filter system calls"))?);
    // The connection is closed before the child exists.
    let enrolled = enrol(&args.workload, &socket())?;
    let user = args.user.as_deref().or(enrolled.user.as_deref());
    let user = user.ok_or_else(|| LaunchError::NoUser { workload: args.workload.clone() })?;
    let account = identity::account(user)?;
    let cgroup = cgroup::open(&enrolled.cgroup, enrolled.cgroup_id)?;
    let signals = Signals::block()?;
    let (reader, writer) = io::pipe().map_err(LaunchError::os("make a pipe"))?;
    let plan = Plan { args, enrolled: &enrolled, account: &account, filter: &filter };
    let child = kernel::start(cgroup.as_fd(), || plan.carry_out(&writer))
        .map_err(|e| cgroup::not_started(&enrolled.cgroup, &e))?;
    drop(writer);
    let failure = heard(reader);
    let code = signals.wait(&child)?;
    failure.map_or(Ok(code), Err)
}

/// Makes sure that grantd enforces now and knows the workload's cgroup.
fn enrol(workload: &str, socket: &Path) -> Result<Enrolled, LaunchError> {
    let mut client = Client::connect(socket)?;
    let status = client.status()?;
    if !status.enforcing {
        return Err(LaunchError::NotEnforcing { reasons: status.not_enforcing });
    }
    Ok(client.enrol(workload.to_owned())?)
}

/// What the child said before it became the command: nothing, or why it did not.
fn heard(mut reader: PipeReader) -> Option<LaunchError> {
    let mut text = String::new();
    match reader.read_to_string(&mut text) {
        Ok(0) => None,
        Ok(_) => Some(LaunchError::from_child(&text)),
        Err(e) => Some(LaunchError::os("read from the child")(e)),
    }
}

/// What the child does, and with what.
struct Plan<'a> {
    args: &'a RunArgs,
    enrolled: &'a Enrolled,
    account: &'a User,
    filter: &'a Filter,
}

impl Plan<'_> {
    /// Becomes the command. Comes back only when that failed, with the exit code; says why to the parent.
    fn carry_out(&self, parent: &PipeWriter) -> u8 {
        let error = match self.confine() {
            Ok(()) => exec(&self.args.command, self.account),
            Err(error) => error,
        };
        let mut parent = parent;
        // Without a parent there is nobody to tell.
        let _ = parent.write_all(error.for_parent().as_bytes());
        error.exit().code()
    }

    fn confine(&self) -> Result<(), LaunchError> {
        let Self { enrolled, account, .. } = self;
        cgroup::check(&enrolled.cgroup)?;
        session::detach()?;
        let absent = hide::apply(&enrolled.hide, &enrolled.unhide)?;
        kernel::shrink().map_err(LaunchError::os("empty the capability bounding set"))?;
        prctl::set_no_new_privs().map_err(LaunchError::os("set no_new_privs"))?;
        identity::become_user(account)?;
        kernel::drop_all().map_err(LaunchError::os("drop capabilities"))?;
        let isolation = kernel::isolate().map_err(LaunchError::os("enter a Landlock domain"))?;
        descriptors::check_rest()?;
        if self.args.verbose {
            self.tell(isolation, &absent);
        }
        self.filter.install().map_err(LaunchError::os("install the system-call filter"))?;
        identity::verify(account)
    }

    /// What holds, and what this kernel lacks. The command goes on without a reader of it.
    fn tell(&self, isolation: Isolation, absent: &[PathBuf]) {
        let (uid, cgroup) = (self.account.uid, self.enrolled.cgroup.display());
        let mut lines =
            vec![format!("confined: uid {uid} in {cgroup}, system calls filtered, sockets hidden")];
        match isolation {
            Isolation::Scoped => lines.push("confined: Landlock domain with scopes".to_owned()),
            Isolation::TraceOnly => lines.push(
                "open: [D3] abstract unix sockets and signals of outsiders: this kernel's Landlock has \
                 no scopes (Linux 6.12 and later have)"
                    .to_owned(),
            ),
            Isolation::None => lines.push(
                "open: [A4, D3] tracing and signalling outsiders of the same user, abstract unix sockets: \
                 this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, `landlock` in lsm=)"
                    .to_owned(),
            ),
        }
        let absent =
            absent.iter().map(|path| format!("not there to be hidden: {}", path.display()));
        for line in lines.into_iter().chain(absent) {
            let _ = writeln!(io::stderr(), "grantctl: {line}");
        }
    }
}

fn exec(command: &[OsString], account: &User) -> LaunchError {
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
