//! A session of its own for the command, so that it has no controlling terminal to push input into, and
//! what the parent does meanwhile: it waits, passes signals on and takes over the exit code.

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, kill, killpg},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setsid},
};

use super::LaunchError;
use crate::kernel::launch::Child;

/// What a terminal sends to a whole process group, of which the command is no part any more.
const TO_ALL: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGWINCH];
/// What someone sends to `grantctl` and means for the command.
const TO_COMMAND: [Signal; 3] = [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// In the child: leaves the caller's session, and takes signals again, which [`Signals::block`] held back.
pub(super) fn detach() -> Result<(), LaunchError> {
    SigSet::empty().thread_set_mask().map_err(LaunchError::os("unblock signals"))?;
    setsid().map(drop).map_err(LaunchError::os("start a new session"))
}

/// Signals that the parent waits for.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// To be called before the child exists, so that no exit is missed.
    pub(super) fn block() -> Result<Self, LaunchError> {
        let mut watched = SigSet::from_iter(TO_ALL.into_iter().chain(TO_COMMAND));
        watched.add(Signal::SIGCHLD);
        watched.thread_block().map_err(LaunchError::os("block signals"))?;
        SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC)
            .map(Self)
            .map_err(LaunchError::os("watch signals"))
    }

    /// Waits for the child's end; gives its exit code as shells do: 128 plus the signal that ended it.
    pub(super) fn wait(&self, child: &Child) -> Result<u8, LaunchError> {
        let pid = Pid::from_raw(child.pid);
        loop {
            let status = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            match status.map(code) {
                Ok(Some(code)) => return Ok(code),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(e) => return Err(LaunchError::os("wait for the command")(e)),
            }
            match self.0.read_signal() {
                Ok(Some(info)) => pass_on(pid, info.ssi_signo),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(e) => return Err(LaunchError::os("read signals")(e)),
            }
        }
    }
}

/// The child is not reaped yet, so the pid is still its own; it may have exited all the same.
fn pass_on(pid: Pid, number: u32) {
    let signal = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
    match signal {
        Some(signal) if TO_ALL.contains(&signal) => {
            // Without a group of its own it has not left our session yet.
            if killpg(pid, signal).is_err() {
                let _ = kill(pid, signal);
            }
        }
        Some(signal) if TO_COMMAND.contains(&signal) => {
            let _ = kill(pid, signal);
        }
        Some(_) | None => {}
    }
}

fn code(status: WaitStatus) -> Option<u8> {
    match status {
        WaitStatus::Exited(_, code) => Some(u8::try_from(code).unwrap_or(u8::MAX)),
        WaitStatus::Signaled(_, signal, _) => {
            Some(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
        }
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_exit_code_and_signal_come_through() {
        let pid = Pid::from_raw(1);
        assert_eq!(code(WaitStatus::Exited(pid, 0)), Some(0));
        assert_eq!(code(WaitStatus::Exited(pid, 7)), Some(7));
        assert_eq!(code(WaitStatus::Signaled(pid, Signal::SIGKILL, false)), Some(137));
        assert_eq!(code(WaitStatus::StillAlive), None);
    }
}
