//! The one task that owns ledger, compiled state and kernel handle. Nothing else writes a map.
//!
//! Everybody else sends it bounded messages through [`EnforcerHandle`] and waits for the answer.

mod audit;
mod canary;
mod command;
mod cut;
mod directory;
mod end;
mod grant;
mod guard;
mod moves;
mod restore;
mod revoke;
mod self_check;
mod tasks;
mod trust;
mod view;
mod workloads;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use grantd_audit::Recorder;
use grantd_grant::{HostPolicy, WorkloadName};
use tokio::sync::mpsc;

pub use canary::{CanaryGround, CanaryView};
pub use command::{Applied, EnforcerHandle, EnforcerStatus, Revoked};
pub use directory::Directory;
pub use restore::{Start, StartError};

use crate::clock::{BootTimer, Clock, StepWatch};
use crate::compile::{Compiler, LetIn};
use crate::config::LaunchConfig;
use crate::kernel::{HookCoverage, Kernel, Unresolved};
use crate::ledger::Ledger;
use command::Command;
use workloads::Workload;

/// Messages that may wait. Beyond, whoever sends waits, and with it the peer that pushed.
const COMMANDS: usize = 256;
/// Grants that share one write to the disk.
const APPLY_TOGETHER: usize = 64;
/// How often cgroups are looked at: a slice or workload that was made anew is found by this.
const CGROUP_PERIOD: Duration = Duration::from_millis(500);
/// How often namespaces are looked for, counted in looks at the cgroups: a socket outlives the task by which
/// its namespace is found.
const SOCKETS_EVERY: u32 = 4;
/// How often links, programs and pins are compared with what was attached, counted in looks at the cgroups.
const CHECK_EVERY: u32 = 2;
/// How often the policy maps are compared with the model, counted in looks at the cgroups.
const CONTENTS_EVERY: u32 = 10;
/// How often the ledger forgets what is over, counted in looks at the cgroups.
const PRUNE_EVERY: u32 = 120;

/// What of the config the enforcer goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workloads, subjects, quotas, ceiling.
    pub policy: Arc<HostPolicy>,
    /// The workloads.
    pub workloads: Vec<WorkloadSettings>,
    /// Where cgroup v2 is mounted: paths in records are relative to it.
    pub cgroup_mount: PathBuf,
    /// Whether grants are accepted while the clock is not synchronised.
    pub unsynchronised_allowed: bool,
    /// This boot.
    pub boot_id: String,
    /// Time between two rounds of the canary.
    pub canary_period: Duration,
}

/// A workload of the config, as the enforcer goes by it.
#[derive(Clone, Debug)]
pub struct WorkloadSettings {
    /// Its name.
    pub name: WorkloadName,
    /// Its cgroup's directory.
    pub path: PathBuf,
    /// How its commands are started.
    pub launch: LaunchConfig,
    /// Who may connect to it.
    pub callers: Vec<LetIn>,
    /// How many sockets it may hold.
    pub max_sockets: u64,
    /// Local sockets outside that it may talk to.
    pub unix_sockets: Vec<PathBuf>,
    /// Whether it may make user namespaces.
    pub user_namespaces: bool,
    /// Whether its tasks may have rights by which they could undo what confines them.
    pub allow_privileged: bool,
}

/// The owner of all enforcement state.
pub struct Enforcer {
    settings: Settings,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    directory: Arc<Directory>,
    ledger: Ledger,
    compiler: Compiler,
    kernel: Kernel,
    workloads: HashMap<WorkloadName, Workload>,
    /// When grants of each workload were accepted, `CLOCK_BOOTTIME` nanoseconds: for the rate limit.
    accepted: HashMap<WorkloadName, VecDeque<u64>>,
    /// What could not be written to the kernel and is tried again: while it stands, not enforcing.
    trouble: Option<String>,
    /// What the disk did not take and is tried again: while it stands, no new grant is taken.
    ledger_trouble: Option<String>,
    /// The hooks, as of the last look.
    coverage: Vec<HookCoverage>,
    /// Namespaces of the workloads, and connections that are still to be cut.
    cutting: cut::CutState,
    /// What the last self-check found changed behind the daemon's back.
    tampered: Vec<String>,
    /// When it did, `CLOCK_BOOTTIME` nanoseconds.
    tampered_at: Option<u64>,
    /// The processes of the slice.
    tasks: tasks::Tasks,
    /// Which workloads cannot be held to what they are granted.
    trust: trust::Trust,
    /// The canary's place, slot and last word.
    canary: canary::CanaryState,
    /// Told to stop.
    stopping: bool,
    /// Why the slice is not followed just now; its hooks are where they were.
    slice_trouble: Option<String>,
    /// Why local sockets of the config are not open just now.
    closed_sockets: Vec<Unresolved>,
    since_unix_ms: u64,
    /// See [`EnforcerHandle::epoch`].
    epoch: Arc<AtomicU64>,
}

impl Enforcer {
    /// Serves commands and timers until every handle is gone.
    ///
    /// # Errors
    /// A timer cannot be made.
    pub async fn run(mut self, mut commands: CommandReceiver) -> std::io::Result<()> {
        self.epoch = Arc::clone(&commands.epoch);
        let deadline = BootTimer::new()?;
        let steps = StepWatch::new()?;
        let mut cgroups = tokio::time::interval(CGROUP_PERIOD);
        cgroups.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = 0u32;
        let mut moves = self.open_moves();
        loop {
            if self.stopping {
                self.flush_ledger();
                return Ok(());
            }
            deadline.set(self.ledger.next_deadline_boot_ns())?;
            tokio::select! {
                command = commands.commands.recv() => match command {
                    Some(command) => self.serve_with(command, &mut commands.commands),
                    None => return Ok(()),
                },
                () = deadline.fired() => self.expire(),
                () = steps.stepped() => self.clock_stepped(),
                told = moves::Moves::wait(moves.as_ref()) => match (told, &mut moves) {
                    (Ok(()), Some(moves)) => self.look_at_moves(moves),
                    (Ok(()), None) => {}
                    (Err(error), _) => {
                        tracing::warn!("what the watch tells cannot be waited for: {error}");
                        moves = None;
                    }
                },
                _ = cgroups.tick() => {
                    self.look_at_cgroups();
                    looks = looks.wrapping_add(1);
                    if looks.is_multiple_of(CHECK_EVERY) {
                        self.self_check(looks.is_multiple_of(CONTENTS_EVERY));
                    }
                    let watched = moves.is_some() && self.kernel.watch_state().sees_moves();
                    let thoroughly = looks.is_multiple_of(SOCKETS_EVERY);
                    if !watched || thoroughly || looks == 1 {
                        self.look_at_tasks(watched);
                    }
                    if thoroughly || looks == 1 {
                        self.look_at_trust();
                    }
                    self.look_at_sockets(thoroughly);
                    if looks.is_multiple_of(PRUNE_EVERY) {
                        self.prune();
                    }
                }
            }
        }
    }

    /// Serves a command. Grants that wait behind a grant are taken along with it: they share one write
    /// to the disk.
    fn serve_with(&mut self, first: Command, waiting: &mut mpsc::Receiver<Command>) {
        let mut next = Some(first);
        while let Some(command) = next.take() {
            let Command::Apply(request) = command else {
                self.serve(command);
                continue;
            };
            let mut batch = vec![request];
            while batch.len() < APPLY_TOGETHER {
                match waiting.try_recv() {
                    Ok(Command::Apply(request)) => batch.push(request),
                    Ok(other) => {
                        next = Some(other);
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.apply_batch(batch);
        }
    }

    /// Grants that were checked with what is narrowed now are not applied any more.
    fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn prune(&mut self) {
        if let Err(error) = self.ledger.prune(self.clock.now()) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the ledger could not forget what is over"
            );
        }
    }
}

/// The receiving end of [`EnforcerHandle`].
pub struct CommandReceiver {
    commands: mpsc::Receiver<Command>,
    epoch: Arc<AtomicU64>,
}

/// A handle and its receiver.
#[must_use]
pub fn channel() -> (EnforcerHandle, CommandReceiver) {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let epoch = Arc::new(AtomicU64::new(0));
    (EnforcerHandle::new(sender, Arc::clone(&epoch)), CommandReceiver { commands, epoch })
}
