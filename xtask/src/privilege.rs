//! Root, for the commands that need it: as it is, or by sudo, which is asked once.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::say::say;

/// Sudo forgets a password after some minutes, and building takes longer: it is reminded this often.
const SUDO_REMINDER: Duration = Duration::from_secs(60);

/// The right to run commands as root.
#[derive(Clone, Copy)]
pub(crate) enum Privilege {
    /// We are root.
    Root,
    /// Sudo lets us.
    Sudo,
}

impl Privilege {
    /// Finds out whether commands can be run as root; where sudo has to ask, says what for.
    pub(crate) fn acquire(purpose: &str) -> Result<Self> {
        if is_root()? {
            return Ok(Self::Root);
        }
        if command::probe(Command::new("sudo").arg("--version")).is_none() {
            bail!(
                "root is needed to {purpose}, and there is no sudo here: run this as root, or install sudo"
            );
        }
        say!("    root is needed to {purpose}: asking sudo");
        let silent = command::probe(Command::new("sudo").args(["-n", "true"])).is_some();
        if !silent {
            let prompt = format!("[sudo] password for %p, to {purpose}: ");
            command::run(Command::new("sudo").args(["-v", "-p", &prompt]))
                .with_context(|| format!("root is needed to {purpose}"))?;
        }
        keep_asked();
        Ok(Self::Sudo)
    }

    /// A command that runs as root with exactly these variables added to what root gets.
    pub(crate) fn command(self, program: &Path, variables: &[(&str, OsString)]) -> Command {
        match self {
            Self::Root => {
                let mut command = Command::new(program);
                command.envs(variables.iter().map(|(name, value)| (name, value)));
                command
            }
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["--", "env"]);
                for (name, value) in variables {
                    command.arg(assignment(name, value));
                }
                command.arg(program);
                command
            }
        }
    }
}

/// Whether this process may do everything already.
pub(crate) fn is_root() -> Result<bool> {
    let process =
        fs::metadata("/proc/self").context("cannot read /proc/self: is /proc mounted?")?;
    Ok(process.uid() == 0)
}

fn assignment(name: &str, value: &OsStr) -> OsString {
    let mut assignment = OsString::from(name);
    assignment.push("=");
    assignment.push(value);
    assignment
}

/// Keeps sudo from asking a second time while a long command runs.
fn keep_asked() {
    static REMINDER: OnceLock<()> = OnceLock::new();
    REMINDER.get_or_init(|| {
        thread::spawn(|| {
            let mut remind = Command::new("sudo");
            remind
                .args(["-n", "-v"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            while remind.status().is_ok_and(|status| status.success()) {
                thread::sleep(SUDO_REMINDER);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_gets_the_variables_that_a_test_relies_on() {
        let variables = [("GRANTD_BIN_DIR", OsString::from("/a b"))];
        let command = Privilege::Sudo.command(Path::new("/t/e2e"), &variables);
        assert_eq!(command::shown(&command), "sudo -- env 'GRANTD_BIN_DIR=/a b' /t/e2e");
    }
}
