//! Running other programs. A command that fails is echoed in full, so that it can be repeated by hand.

use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command whose output goes to the terminal; anything but success is an error that echoes it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    check(command, status)
}

/// Runs a command and returns its standard output; its standard error goes to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    String::from_utf8(bytes(command)?).with_context(|| format!("output of `{}`", shown(command)))
}

/// The same where the output is no text.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| cannot_start(command))?;
    check(command, output.status)?;
    Ok(output.stdout)
}

/// The standard output of a command that is asked whether something is there: None when it fails.
pub(crate) fn probe(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command and hands over each line of its standard output as it comes.
pub(crate) fn lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| cannot_start(command))?;
    if let Some(stdout) = child.stdout.take() {
        for bytes in BufReader::new(stdout).split(b'\n') {
            let bytes = bytes.with_context(|| format!("reading from `{}`", shown(command)))?;
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\r'));
        }
    }
    child.wait().with_context(|| format!("waiting for `{}`", shown(command)))
}

/// Becomes the command: signals reach it directly and its exit status is ours.
pub(crate) fn become_command(command: &mut Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| cannot_start(command))
}

/// Turns an unsuccessful exit into an error that echoes the command.
pub(crate) fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{status} from\n    {}", shown(command));
    }
    Ok(())
}

/// The command as it can be typed into a shell.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = Vec::new();
    if let Some(directory) = command.get_current_dir() {
        words.push(format!("cd {} &&", quoted(&directory.to_string_lossy())));
    }
    let mut assignments = Vec::new();
    for (name, value) in command.get_envs() {
        let name = name.to_string_lossy();
        match value {
            Some(value) => assignments.push(format!("{name}={}", quoted(&value.to_string_lossy()))),
            None => words.push(format!("unset {name};")),
        }
    }
    words.append(&mut assignments);
    words.push(quoted(&command.get_program().to_string_lossy()));
    words.extend(command.get_args().map(|argument| quoted(&argument.to_string_lossy())));
    words.join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start\n    {}", shown(command))
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if word.contains(|c: char| c.is_control()) {
        let escaped = word.chars().map(|c| match c {
            '\\' | '\'' => format!("\\{c}"),
            c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        });
        format!("$'{}'", escaped.collect::<String>())
    } else if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("printf");
        command.arg("%s").arg("it's here").arg("a\u{1f}b").env("KEY", "two words");
        let pasted = Command::new("bash").arg("-c").arg(shown(&command)).output().unwrap();
        assert_eq!(pasted.stdout, b"it's herea\x1fb");
        assert!(shown(&command).starts_with("KEY='two words' printf"));
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("false").arg("why")).unwrap_err().to_string();
        assert!(error.contains("false why"), "{error}");
    }
}
