//! The process that tries, and what it says.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::judge::Attempt;
use crate::kernel::launch;

/// The program that tries is this one.
const SELF: &str = "/proc/self/exe";
/// The word that tells it to; see `grantd canary-probe`.
const COMMAND: &str = "canary-probe";
/// What is sent, and has to come back.
pub(super) const WORD: &[u8; 8] = b"grantd\r\n";
/// How long one attempt may take. A machine that is emulated takes seconds.
const ATTEMPT: Duration = Duration::from_secs(4);
/// How long both may take, with the start of the process.
const BOTH: Duration = Duration::from_secs(20);

/// Tries both, from inside `cgroup`.
///
/// # Errors
/// Why it could not be tried.
pub(super) async fn start(
    cgroup: &Path,
    denied: SocketAddr,
    granted: SocketAddr,
) -> Result<[Attempt; 2], String> {
    let mut command = Command::new(SELF);
    command.arg(COMMAND).arg(cgroup).args([denied.to_string(), granted.to_string()]);
    command.env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let failed = |error: io::Error| format!("the process that tries: {error}");
    let output = match timeout(BOTH, command.output()).await {
        Ok(output) => output.map_err(failed)?,
        Err(_) => return Err("the process that tries hung, and was killed".to_owned()),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines = said.lines().map(read);
    match (output.status.success(), lines.next().flatten(), lines.next().flatten()) {
        (true, Some(denied), Some(granted)) => Ok([denied, granted]),
        _ => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("the process that tries ended with {}: {}", output.status, why.trim()))
        }
    }
}

fn read(line: &str) -> Option<Attempt> {
    match line.split_once(' ') {
        None if line == "passed" => Some(Attempt::Passed),
        None if line == "refused" => Some(Attempt::Refused),
        Some(("stood", how)) => Some(Attempt::Stood(how.to_owned())),
        Some(("failed", how)) => Some(Attempt::Failed(how.to_owned())),
        None | Some(_) => None,
    }
}

/// The far side: enters `cgroup`, gives up every right, tries both, and prints a line for each.
///
/// # Errors
/// The cgroup cannot be entered, a right cannot be given up, or nothing can be printed.
pub fn run(cgroup: &Path, denied: SocketAddr, granted: SocketAddr) -> io::Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), "0")?;
    launch::drop_all()?;
    let mut out = io::stdout().lock();
    for to in [denied, granted] {
        match attempt(to) {
            Attempt::Passed => writeln!(out, "passed")?,
            Attempt::Refused => writeln!(out, "refused")?,
            Attempt::Stood(how) => writeln!(out, "stood {}", how.replace('\n', " "))?,
            Attempt::Failed(how) => writeln!(out, "failed {}", how.replace('\n', " "))?,
        }
    }
    out.flush()
}

fn attempt(to: SocketAddr) -> Attempt {
    let mut stream = match TcpStream::connect_timeout(&to, ATTEMPT) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Attempt::Refused,
        Err(error) => return Attempt::Failed(format!("failed to connect: {error}")),
    };
    match exchange(&mut stream) {
        Ok(()) => Attempt::Passed,
        Err(error) => Attempt::Stood(error.to_string()),
    }
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(ATTEMPT))?;
    stream.set_write_timeout(Some(ATTEMPT))?;
    stream.write_all(WORD)?;
    let mut back = [0; WORD.len()];
    stream.read_exact(&mut back)?;
    if back == *WORD { Ok(()) } else { Err(io::Error::other("something else came back")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_says_is_taken_for_nothing_else() {
        assert_eq!(read("passed"), Some(Attempt::Passed));
        assert_eq!(read("refused"), Some(Attempt::Refused));
        assert_eq!(read("failed so and so"), Some(Attempt::Failed("so and so".to_owned())));
        assert_eq!(read("stood a while"), Some(Attempt::Stood("a while".to_owned())));
        for other in ["", "passed now", "refused ", "PASSED", "failed"] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
