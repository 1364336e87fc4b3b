//! Commands started by `grantctl run`, and the program `calls`, which tells what the kernel answers them.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::programs;
use crate::world::World;

/// `calls/`, built by this package.
const CALLS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/calls"));
/// The account that commands run as.
pub const USER: &str = "nobody";
/// Its number.
pub const UID: u32 = 65_534;

/// What `calls` was answered: `done` or the error's name, by what it asked for.
pub type Answers = BTreeMap<String, String>;

/// Starts commands in the coding workload of a deployment, and the same outside for comparison.
pub struct Launcher<'w> {
    world: &'w World,
    /// The program `calls`.
    pub calls: PathBuf,
}

impl<'w> Launcher<'w> {
    /// Puts the program `calls` where the workload can start it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(world: &'w World) -> Result<Self> {
        Ok(Self { world, calls: world.workdir.write("calls", 0o755, CALLS)? })
    }

    /// `grantctl run` of this command, to be started inside the host's namespace.
    ///
    /// # Errors
    /// When grantctl was not built.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(programs::find("grantctl")?);
        command.arg("--config").arg(self.world.daemon.config_path());
        command.args(["run", "--workload", "coding-agent", "--user", USER, "--"]).args(words);
        command.current_dir("/").stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command in the workload to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.command(words)?;
        self.world.host.enter(|| command.output())?.with_context(|| format!("running {words:?}"))
    }

    /// What a verb of `calls` is answered in the workload.
    ///
    /// # Errors
    /// When it fails.
    pub fn inside(&self, words: &[&str]) -> Result<Answers> {
        let mut all = vec![self.calls.to_str().context("a path")?];
        all.extend(words);
        answers(&self.run(&all)?)
    }

    /// What the same is answered outside, as the same user.
    ///
    /// # Errors
    /// When it fails.
    pub fn outside(&self, words: &[&str]) -> Result<Answers> {
        let mut command = self.unconfined(&self.calls.to_string_lossy());
        command.args(words);
        answers(&self.world.host.enter(|| command.output())??)
    }

    /// What a verb of `calls` is answered outside, as root.
    ///
    /// # Errors
    /// When it fails.
    pub fn as_root(&self, words: &[&str]) -> Result<Answers> {
        let mut command = Command::new(&self.calls);
        answers(&command.args(words).stdin(Stdio::null()).output()?)
    }

    /// A program that runs outside, as the same user.
    #[must_use]
    pub fn unconfined(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.uid(UID).gid(UID).current_dir("/").stdin(Stdio::null());
        command
    }
}

/// Reads what `calls` printed.
///
/// # Errors
/// When it failed or printed something else.
pub fn answers(output: &Output) -> Result<Answers> {
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{}\n{said}{complaint}", output.status);
    said.lines()
        .map(|line| {
            let (what, answer) = line.trim_end().split_once(' ').context("`what answer`")?;
            Ok((what.to_owned(), answer.to_owned()))
        })
        .collect()
}

/// Checks one answer.
///
/// # Errors
/// When it is another, or there is none.
pub fn expect(answers: &Answers, what: &str, expected: &str) -> Result<()> {
    let found = answers.get(what).map(String::as_str);
    ensure!(found == Some(expected), "{what}: {found:?} and not {expected}");
    Ok(())
}

/// Output as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
