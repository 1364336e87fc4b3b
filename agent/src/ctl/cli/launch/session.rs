//! A session of its own, so that the command has no controlling terminal to push input into.
//!
//! `setsid(2)` refuses a process group leader, which a command typed at a shell is. Then the launch
//! happens in a child, and this process waits for it, passes signals on and takes over its exit code.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Pid, getpgrp, getpid, getsid, setsid},
};

use super::LaunchError;

/// Signals that someone sends to `grantctl` and means for the command.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Whether the launch has to happen in a child.
pub(super) fn needs_child() -> Result<bool, LaunchError> {
    Ok(getpid() == getpgrp() && !is_detached()?)
}

/// Already the leader of a session without a terminal, as under systemd.
fn is_detached() -> Result<bool, LaunchError> {
    let session = getsid(None).map_err(LaunchError::os("read the session id"))?;
    Ok(session == getpid() && File::open("/dev/tty").is_err())
}

/// Leaves the caller's session, where that has not happened yet, and takes signals again: a mask is
/// inherited, from [`run_as_child`] among others, and would make the command deaf.
pub(super) fn detach() -> Result<(), LaunchError> {
    SigSet::empty().thread_set_mask().map_err(LaunchError::os("unblock signals"))?;
    if is_detached()? {
        return Ok(());
    }
    setsid().map(drop).map_err(LaunchError::os("start a new session"))
}

/// Starts `grantctl` again with the same arguments as a child, which is no group leader, and waits.
pub(super) fn run_as_child(argv: &[OsString]) -> Result<u8, LaunchError> {
    let mut watched = SigSet::from_iter(PASSED_ON);
    watched.add(Signal::SIGCHLD);
    // Blocked before the child exists, so that no exit is missed; the child unblocks them.
    watched.thread_block().map_err(LaunchError::os("block signals"))?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC)
        .map_err(LaunchError::os("watch signals"))?;
    let mut command = Command::new("/proc/self/exe");
    if let Some((name, rest)) = argv.split_first() {
        command.arg0(name).args(rest);
    }
    let child = command.spawn().map_err(LaunchError::os("start the launcher as a child"))?;
    wait(child, &signals).map(code)
}

fn wait(mut child: Child, signals: &SignalFd) -> Result<ExitStatus, LaunchError> {
    loop {
        if let Some(status) = child.try_wait().map_err(LaunchError::os("wait for the command"))? {
            return Ok(status);
        }
        let info = match signals.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(e) => return Err(LaunchError::os("read signals")(e)),
        };
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
        if let (Some(signal), Ok(pid)) = (signal, i32::try_from(child.id()))
            && signal != Signal::SIGCHLD
        {
            // Not reaped yet, so the pid is still the child's; it may have exited all the same.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// As shells do: 128 plus the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_exit_code_and_signal_come_through() {
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(Signal::SIGKILL as i32)), 137);
    }
}
