//! The suite of ways out of the box: every probe of `escapes/` tries to bring its marker to the machine
//! [`B`](crate::world::B), which no grant names, and that machine counts what arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use crate::world::{A, A6, B, World};

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/escapes"));
/// Where the target can be reached on its own link.
const LINK_LOCAL: &str = "fe80::77:2";
const TARGET6: &str = "fd00:77:2::2";
/// The port that the run's grants name, by TCP and UDP, on the machine [`A`].
pub const GRANTED_PORT: u16 = 5432;
/// Prefixes that embed a v4 address; routed to the target, so that a probe that uses one would arrive.
const EMBEDDING: [&str; 5] = ["::/96", "64:ff9b::/96", "2002::/16", "2001::/32", "::ffff:0:0:0/96"];

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// An ordinary user.
    User(u32),
    /// Root without any capability.
    Root,
    /// Root with `CAP_NET_RAW` only, which containers have unless they are told otherwise.
    Container,
}

impl Who {
    /// The user.
    #[must_use]
    pub const fn uid(self) -> u32 {
        match self {
            Self::User(uid) => uid,
            Self::Root | Self::Container => 0,
        }
    }
}

/// What one probe tells of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Try {
    /// Its name.
    pub probe: String,
    /// The ID of the way around that it is an instance of.
    pub threat: String,
    /// `tried`; or `hung`, `crashed`, `died`.
    pub outcome: String,
    /// Each step with its result.
    pub steps: String,
}

#[derive(Debug, Deserialize)]
struct Arrival {
    arrived: String,
}

/// What a run of the suite showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Every probe that was started, by name.
    pub tried: BTreeMap<String, Try>,
    /// The names of those whose bytes, or packets, arrived.
    pub arrived: BTreeSet<String>,
}

impl Outcome {
    /// The steps of these probes, for a message.
    #[must_use]
    pub fn steps<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> String {
        let one = |name: &String| match self.tried.get(name) {
            Some(tried) => format!("  {name} [{}]: {}", tried.threat, tried.steps),
            None => format!("  {name}"),
        };
        names.into_iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

/// The suite in one deployment.
pub struct Suite {
    program: PathBuf,
    directory: PathBuf,
    runs: AtomicUsize,
}

impl Suite {
    /// Prepares the deployment's networks: every way that a probe takes leads to the target.
    ///
    /// # Errors
    /// When something of it cannot be made.
    pub fn new(world: &World) -> Result<Self> {
        let program = world.workdir.write("escapes", 0o755, PROGRAM)?;
        let directory = world.workdir.subdir("accomplices", 0o777)?;
        world.srv_b.ip(&format!("address add {LINK_LOCAL}/64 dev uplink nodad\n"))?;
        let routes: String =
            EMBEDDING.map(|prefix| format!("route add {prefix} via {TARGET6}\n")).concat();
        world.host.ip(&routes)?;
        // Many distributions let everybody ping.
        world
            .host
            .enter(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"))?
            .context("allowing ping sockets")?;
        Ok(Self { program, directory, runs: AtomicUsize::new(0) })
    }

    /// Runs all probes, or the named ones, in this cgroup.
    ///
    /// # Errors
    /// When the run itself fails. What the probes do is a result.
    pub fn run(&self, world: &World, inside: &Path, who: Who, only: &[String]) -> Result<Outcome> {
        // What an earlier run left under way, a retransmission for instance, is not this one's.
        let number = self.runs.fetch_add(1, Ordering::SeqCst) % 26;
        let name: String = ('a'..='z').nth(number).into_iter().collect();
        let target = Target::start(world, &self.program, &name)?;
        let mut command = Command::new(&self.program);
        command.env("ESCAPES_RUN", &name);
        command.arg("run").arg("--outside").arg(world.cgroups.outside());
        command.arg("--inside").arg(inside).arg("--directory").arg(&self.directory);
        self.addresses(&mut command);
        command.args(["--uid", &who.uid().to_string()]);
        if who == Who::Container {
            command.args(["--keep-raw", "yes"]);
        }
        if !only.is_empty() {
            command.args(["--only", &only.join(",")]);
        }
        command.stdin(Stdio::null());
        let output = world.host.enter(|| command.output())?.context("starting the probes")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the probes did not run: {}: {said}", output.status);
        let mut outcome = Outcome::default();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let tried: Try = serde_json::from_str(line).with_context(|| line.to_owned())?;
            outcome.tried.insert(tried.probe.clone(), tried);
        }
        outcome.arrived = target.finish()?;
        Ok(outcome)
    }

    /// The names of the probes of one threat; all of them without one.
    ///
    /// # Errors
    /// When the program cannot be asked.
    pub fn probes(&self, threat: Option<&str>) -> Result<Vec<String>> {
        let output = Command::new(&self.program).arg("list").output().context("listing probes")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows = text.lines().filter_map(|line| line.split_once(' '));
        Ok(rows
            .filter(|(_, of)| threat.is_none_or(|threat| threat == *of))
            .map(|(name, _)| name.to_owned())
            .collect())
    }

    fn addresses(&self, command: &mut Command) {
        command.args(["--target4", B, "--target6", TARGET6, "--target-link-local", LINK_LOCAL]);
        command.args(["--granted4", A, "--granted6", A6, "--host4", "10.77.2.1"]);
        command.args(["--interface", "srv-b", "--granted-port", &GRANTED_PORT.to_string()]);
    }
}

/// The target, counting.
struct Target {
    child: Child,
    lines: Receiver<String>,
}

impl Target {
    fn start(world: &World, program: &Path, run: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.env("ESCAPES_RUN", run);
        command.arg("target").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = world.srv_b.spawn(&mut command)?;
        let stdout = child.stdout.take().context("the target's output")?;
        let (sender, lines) = sync_channel(4096);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let target = Self { child, lines };
        let ready = target.next()?;
        ensure!(ready == "ready", "the target begins with {ready}");
        Ok(target)
    }

    fn next(&self) -> Result<String> {
        let line = self
            .lines
            .recv_timeout(Duration::from_secs(10))
            .map_err(|_| anyhow!("the target says nothing"))?;
        let arrival: Arrival = serde_json::from_str(&line).with_context(|| line.clone())?;
        Ok(arrival.arrived)
    }

    /// Everything that has arrived until the runner's last word.
    fn finish(self) -> Result<BTreeSet<String>> {
        let mut arrived = BTreeSet::new();
        loop {
            match self.next()?.as_str() {
                "end" => return Ok(arrived),
                name => arrived.insert(name.to_owned()),
            };
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
