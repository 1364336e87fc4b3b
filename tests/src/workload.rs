//! Confined processes: the `probe` program, or any other, in a workload's control group and as an
//! ordinary user.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::de::DeserializeOwned;

use crate::machine;
use crate::netns::Netns;
use crate::probe::{Attempt, Held, Tally};
use crate::programs;

/// Reports that may wait to be read.
const QUEUE: usize = 65_536;

/// A place to start processes in: namespace, control group, user.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The name that the config gives it.
    pub name: String,
    netns: Netns,
    cgroup: PathBuf,
    uid: Option<u32>,
}

impl Workload {
    /// A workload whose processes run inside `netns` and `cgroup` as the user `uid`.
    #[must_use]
    pub fn new(name: &str, netns: &Netns, cgroup: &Path, uid: u32) -> Self {
        let (netns, cgroup) = (netns.clone(), cgroup.to_owned());
        Self { name: name.to_owned(), netns, cgroup, uid: Some(uid) }
    }

    /// The same as root, for what an ordinary user may not even try.
    #[must_use]
    pub fn as_root(&self) -> Self {
        Self { uid: None, ..self.clone() }
    }

    /// The same in another control group.
    #[must_use]
    pub fn moved_to(&self, cgroup: &Path) -> Self {
        Self { cgroup: cgroup.to_owned(), ..self.clone() }
    }

    /// The same in another network namespace.
    #[must_use]
    pub fn in_netns(&self, netns: &Netns) -> Self {
        Self { netns: netns.clone(), ..self.clone() }
    }

    /// Its control group.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Its user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.unwrap_or(0)
    }

    /// Connects once by TCP.
    ///
    /// # Errors
    /// When the attempt could not be made. A refused connection is a result.
    pub fn tcp(&self, to: SocketAddr) -> Result<Attempt> {
        self.one(&["tcp", &to.to_string()])
    }

    /// Sends one datagram by sendto(2) and waits for its echo.
    ///
    /// # Errors
    /// As [`Self::tcp`].
    pub fn udp(&self, to: SocketAddr) -> Result<Attempt> {
        self.one(&["udp", &to.to_string()])
    }

    /// Sends one datagram on a connected socket and waits for its echo.
    ///
    /// # Errors
    /// As [`Self::tcp`].
    pub fn udp_connected(&self, to: SocketAddr) -> Result<Attempt> {
        self.one(&["udp", "--connected", &to.to_string()])
    }

    /// Connects `count` times.
    ///
    /// # Errors
    /// As [`Self::tcp`].
    pub fn times(&self, to: SocketAddr, count: u64) -> Result<Tally> {
        self.one(&["loop", "--count", &count.to_string(), &to.to_string()])
    }

    /// Runs the probe to its end and gives its only report.
    ///
    /// # Errors
    /// When it fails or reports something else.
    pub fn one<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let output = self.output(arguments)?;
        serde_json::from_slice(&output.stdout).with_context(|| failure(arguments, &output))
    }

    /// Runs the probe to its end and gives its reports.
    ///
    /// # Errors
    /// When it fails or reports something else.
    pub fn many<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<Vec<T>> {
        let output = self.output(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| failure(arguments, &output)))
            .collect()
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.probe(arguments)?;
        command.stdin(Stdio::null());
        let output = self.netns.enter(|| command.output())?.context("running the probe")?;
        ensure!(output.status.success(), failure(arguments, &output));
        Ok(output)
    }

    /// Runs any program to its end as the workload.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, program: &str, arguments: &[&str], env: &[(&str, &str)]) -> Result<Output> {
        let mut all = vec!["exec", "--", program];
        all.extend(arguments);
        let mut command = self.probe(&all)?;
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(env.iter().copied());
        command.stdin(Stdio::null());
        self.netns.enter(|| command.output())?.with_context(|| format!("running {program}"))
    }

    /// Starts the probe and follows its reports.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = self.probe(arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Running::of(self.netns.spawn(&mut command)?)
    }

    /// Holds a connection open, with a request every `interval_ms`; without, it is idle.
    ///
    /// # Errors
    /// When it does not stand.
    pub fn hold(&self, to: SocketAddr, interval_ms: Option<u64>) -> Result<Holding> {
        let (to, interval) = (to.to_string(), interval_ms.unwrap_or_default().to_string());
        let running = match interval_ms {
            Some(_) => self.start(&["hold", "--interval-ms", &interval, &to])?,
            None => self.start(&["hold", "--idle", &to])?,
        };
        Holding::of(running)
    }

    /// The same with a connected datagram socket.
    ///
    /// # Errors
    /// When it cannot be connected.
    pub fn hold_udp(&self, to: SocketAddr, interval_ms: Option<u64>) -> Result<Holding> {
        let (to, interval) = (to.to_string(), interval_ms.unwrap_or_default().to_string());
        let running = match interval_ms {
            Some(_) => self.start(&["hold", "--udp", "--interval-ms", &interval, &to])?,
            None => self.start(&["hold", "--udp", "--idle", &to])?,
        };
        match running.next(Duration::from_secs(5))? {
            Held::Connected { local, .. } => Ok(Holding { local, running }),
            other @ (Held::Exchange { .. } | Held::Broke { .. }) => {
                bail!("a socket that should be connected is not: {other:?}")
            }
        }
    }

    /// Holds a connection that says nothing until it is told to.
    ///
    /// # Errors
    /// When it does not stand.
    pub fn talk(&self, to: SocketAddr) -> Result<Talking> {
        let running = self.start(&["talk", &to.to_string()])?;
        match running.next(Duration::from_secs(5))? {
            Held::Connected { .. } => Ok(Talking { running }),
            other @ (Held::Exchange { .. } | Held::Broke { .. }) => {
                bail!("a connection that should be held does not stand: {other:?}")
            }
        }
    }

    fn probe(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(programs::find("probe")?);
        command.arg("--cgroup").arg(&self.cgroup);
        if let Some(uid) = self.uid {
            command.args(["--uid", &uid.to_string()]);
        }
        command.args(arguments).current_dir("/");
        Ok(command)
    }
}

fn failure(arguments: &[&str], output: &Output) -> String {
    format!(
        "probe {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A running probe. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Running {
    /// Follows a probe that was started with both ends piped.
    ///
    /// # Errors
    /// When its output is not.
    pub fn of(mut child: Child) -> Result<Self> {
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the probe's output")?;
        let (sender, lines) = sync_channel(QUEUE);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, stdin, lines })
    }

    /// Its next report.
    ///
    /// # Errors
    /// When none comes within `patience`, or it is of another kind.
    pub fn next<T: DeserializeOwned>(&self, patience: Duration) -> Result<T> {
        self.next_within(machine::patience(patience))
    }

    fn next_within<T: DeserializeOwned>(&self, patience: Duration) -> Result<T> {
        let line = self.lines.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("no report of the probe within {patience:?}"),
            RecvTimeoutError::Disconnected => anyhow!("the probe ended without a report"),
        })?;
        serde_json::from_str(&line).with_context(|| format!("the probe's report {line}"))
    }

    /// Sends it a line and gives its next report.
    ///
    /// # Errors
    /// When it is gone or does not report.
    pub fn command<T: DeserializeOwned>(&mut self, line: &str) -> Result<T> {
        self.tell(line)?;
        self.next(Duration::from_secs(5))
    }

    /// Sends it a line.
    ///
    /// # Errors
    /// When it is gone.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the probe's input is closed")?;
        writeln!(stdin, "{line}").context("writing to the probe")
    }

    /// Closes its standard input and gives its last report.
    ///
    /// # Errors
    /// When it does not report.
    pub fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        drop(self.stdin.take());
        self.next(Duration::from_secs(10))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that says nothing until it is told to.
#[derive(Debug)]
pub struct Talking {
    running: Running,
}

impl Talking {
    /// Sends one request; whether it was answered.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn answered(&mut self) -> Result<bool> {
        Ok(matches!(self.running.command("ping")?, Held::Exchange { .. }))
    }
}

/// A connection that is held open.
#[derive(Debug)]
pub struct Holding {
    /// This side's address, as the server sees it.
    pub local: SocketAddr,
    running: Running,
}

impl Holding {
    /// Waits until the connection of `probe hold` stands.
    ///
    /// # Errors
    /// When it does not.
    pub fn of(running: Running) -> Result<Self> {
        match running.next(Duration::from_secs(10))? {
            Held::Connected { local, .. } => Ok(Self { local, running }),
            other @ (Held::Exchange { .. } | Held::Broke { .. }) => {
                bail!("a connection that should be held does not stand: {other:?}")
            }
        }
    }

    /// The process id of the client.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits for the next answered request; gives its number and time in microseconds since 1970.
    ///
    /// # Errors
    /// When the connection broke or nothing is answered within `patience`.
    pub fn next_exchange(&self, patience: Duration) -> Result<(u64, u64)> {
        match self.running.next(patience)? {
            Held::Exchange { number, at_us } => Ok((number, at_us)),
            other @ (Held::Connected { .. } | Held::Broke { .. }) => {
                bail!("the connection should go on: {other:?}")
            }
        }
    }

    /// Takes every report that is there already, and fails if the connection broke.
    ///
    /// # Errors
    /// When it broke.
    pub fn still_stands(&self) -> Result<u64> {
        let mut exchanges = 0;
        while let Ok(line) = self.running.lines.try_recv() {
            match serde_json::from_str(&line)? {
                Held::Broke { error, .. } => bail!("the connection broke: {error}"),
                Held::Exchange { .. } | Held::Connected { .. } => exchanges += 1,
            }
        }
        Ok(exchanges)
    }

    /// Waits until it breaks; gives when (microseconds since 1970), the error's name, and the time
    /// of the last answered request.
    ///
    /// # Errors
    /// When it has not broken after `patience`.
    pub fn wait_for_break(&self, patience: Duration) -> Result<Break> {
        let (start, patience) = (crate::clock::now(), machine::patience(patience));
        let mut last_exchange_us = None;
        loop {
            let left = patience.saturating_sub(crate::clock::since(start));
            match self.running.next_within(left).context("the connection was not cut")? {
                Held::Exchange { at_us, .. } => last_exchange_us = Some(at_us),
                Held::Connected { .. } => {}
                Held::Broke { at_us, error, exchanges } => {
                    return Ok(Break { at_us, error, exchanges, last_exchange_us });
                }
            }
        }
    }
}

/// How a held connection ended.
#[derive(Clone, Debug)]
pub struct Break {
    /// When, microseconds since 1970.
    pub at_us: u64,
    /// The error's name.
    pub error: String,
    /// Requests that were answered.
    pub exchanges: u64,
    /// When the last of them was, as far as it was waited for.
    pub last_exchange_us: Option<u64>,
}
