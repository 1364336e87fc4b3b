//! grantd itself, started the way a unit would.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::clock;
use crate::config::ConfigFile;
use crate::ctl;
use crate::netns::Netns;
use crate::programs;

/// How long a start may take until it says that it enforces.
const START: Duration = Duration::from_secs(20);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(10);

/// `USER_HZ`: the unit of times in `/proc/<pid>/stat`, 100 on every Linux that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Where and how the daemon runs.
pub struct Daemon {
    config: ConfigFile,
    config_path: PathBuf,
    log: PathBuf,
    netns: Netns,
    cgroup: PathBuf,
    cores: bool,
    log_level: &'static str,
    /// Another copy of grantd than the one that was built.
    program: Option<PathBuf>,
    child: Option<Child>,
}

impl Daemon {
    /// Prepares one that runs inside `netns` and in `cgroup`, with its config and log in `directory`.
    ///
    /// # Errors
    /// When the config cannot be written.
    pub fn new(directory: &Path, config: ConfigFile, netns: &Netns, cgroup: &Path) -> Result<Self> {
        let daemon = Self {
            config,
            config_path: directory.join("config.toml"),
            log: directory.join("grantd.log"),
            netns: netns.clone(),
            cgroup: cgroup.to_owned(),
            cores: false,
            log_level: "debug",
            program: None,
            child: None,
        };
        daemon.write_config()?;
        Ok(daemon)
    }

    /// What its config says.
    #[must_use]
    pub fn config(&self) -> &ConfigFile {
        &self.config
    }

    /// Where its config is.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Changes its config; takes effect at the next start or reload.
    ///
    /// # Errors
    /// When the config cannot be written.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut ConfigFile)) -> Result<()> {
        change(&mut self.config);
        self.write_config()
    }

    /// Lets the next start leave cores of any size.
    pub fn allow_cores(&mut self) {
        self.cores = true;
    }

    /// Lets the next start log all that the daemon and its libraries can say.
    pub fn log_everything(&mut self) {
        self.log_level = "trace";
    }

    /// Lets the next start log what it would log in production.
    pub fn log_little(&mut self) {
        self.log_level = "info";
    }

    /// Lets the next start run a fresh copy of grantd, as an upgrade does.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn install(&mut self, copy: PathBuf) -> Result<()> {
        // Beside and then in its place: the running one stays what it is.
        let beside = copy.with_extension("new");
        fs::copy(programs::find("grantd")?, &beside).context("copying grantd")?;
        fs::rename(&beside, &copy).context("installing grantd")?;
        self.program = Some(copy);
        Ok(())
    }

    fn write_config(&self) -> Result<()> {
        fs::write(&self.config_path, self.config.text())
            .with_context(|| format!("writing {}", self.config_path.display()))
    }

    /// Starts it and waits until it says that it enforces.
    ///
    /// # Errors
    /// When it ends, or does not get ready in time; the message holds its log.
    pub fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(programs::find("probe")?);
        command.arg("--cgroup").arg(&self.cgroup);
        if self.cores {
            command.arg("--cores");
        }
        let grantd = self.program.clone().map_or_else(|| programs::find("grantd"), Ok)?;
        command.arg("exec").arg("--").arg(grantd);
        command.args(["run", "--config"]).arg(&self.config_path);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("GRANTD_LOG", self.log_level).env("RUST_BACKTRACE", "1");
        command.current_dir(&self.config.run);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.netns.spawn(&mut command)?);
        self.wait_until_enforcing()
    }

    fn wait_until_enforcing(&mut self) -> Result<()> {
        let (socket, log) = (self.socket(), self.log.clone());
        let child = self.child.as_mut().context("the daemon is not running")?;
        let outcome = clock::wait_until("grantd to enforce", START, || {
            if let Some(status) = child.try_wait()? {
                bail!("grantd ended at start: {status}");
            }
            let status = ctl::ask(&socket, &json!({"op": "status"})).unwrap_or(Value::Null);
            Ok((status.get("enforcing") == Some(&Value::Bool(true))).then_some(()))
        });
        outcome.with_context(|| format!("its log:\n{}", tail(&log, 60)))
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pid(&self) -> Result<i32> {
        let child = self.child.as_ref().context("the daemon is not running")?;
        i32::try_from(child.id()).context("a process id")
    }

    /// How much processor time it has used so far.
    ///
    /// # Errors
    /// When it is not running.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // The name before the last parenthesis may hold anything; utime and stime are the 14th and 15th.
        let (_, fields) = stat.rsplit_once(')').context("/proc/<pid>/stat without a name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>().context("/proc/<pid>/stat")?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon is not running")?;
        child.kill().context("killing grantd")?;
        child.wait().context("waiting for grantd")?;
        Ok(())
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it is not running or does not stop in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let status = self.end_with(Signal::SIGTERM)?;
        Ok(status)
    }

    /// Sends a signal that ends it and waits for its end.
    ///
    /// # Errors
    /// When it is not running or does not end in time.
    pub fn end_with(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.pid()?), signal).context("signalling grantd")?;
        let mut child = self.child.take().context("the daemon is not running")?;
        clock::wait_until("grantd to stop", STOP, || Ok(child.try_wait()?))
            .inspect_err(|_| drop(child.kill()))
    }

    /// Stops it in order and starts it again.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// The pin of a hook's link.
    ///
    /// # Errors
    /// When there is none.
    pub fn link_pin(&self, hook: &str) -> Result<PathBuf> {
        let abi = format!("abi-{}", grantd_common::ABI_VERSION);
        let pin = self.config.bpffs.join("grantd").join(abi).join("links").join(hook);
        pin.exists().then_some(pin).with_context(|| format!("no link of {hook} is pinned"))
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.config.run.join("ctl.sock")
    }

    /// Asks its control socket.
    ///
    /// # Errors
    /// When it does not answer or answers with an error.
    pub fn ask(&self, request: &Value) -> Result<Value> {
        ctl::ask(&self.socket(), request)
    }

    /// Live grants, as read back from the kernel.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn grants(&self) -> Result<Vec<Value>> {
        ctl::grants(&self.socket())
    }

    /// Runs `grantd` or `grantctl` with this config and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(programs::find(program)?);
        if program == "grantctl" {
            command.arg("--config").arg(&self.config_path);
        }
        command.args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
        self.netns.enter(|| command.output())?.with_context(|| format!("running {program}"))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log, 80)
    }

    /// Its log, whole.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
