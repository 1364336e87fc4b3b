//! Kernel events → audit records, with the grant and the process named, and every loss counted.
//!
//! One [`Pump`] for each ring. It sleeps until the kernel wakes it, then comes by itself every few
//! milliseconds until the ring is quiet again: waking it for each event would cost the connecting
//! process more than the verdict does.

mod account;
mod canary;
mod process;
mod record;
mod written;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use grantd_audit::Recorder;
use grantd_audit::event::{Event as AuditEvent, Finding, FindingKind, Loss, LossSource};
use grantd_common::{EventKind, Ring};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::enforcer::Directory;
use crate::kernel::{RingReader, watch as watch_fd};
use account::Account;
pub use canary::{CanaryEvent, CanaryTap, canary_tap};
use process::Processes;
pub use written::Written;

/// Events that are taken before anything else gets its turn.
const BATCH: usize = 1024;
/// How long the ring is left alone between two batches.
const PERIOD: Duration = Duration::from_millis(5);
/// Rounds without an event after which the pump sleeps until woken.
const QUIET_ROUNDS: u32 = 4;
/// How often, at most, what is on disk for good is noted in the kernel.
const NOTE_EVERY: Duration = Duration::from_millis(200);

/// Sequence numbers by CPU, up to which everything is on disk.
type Seen = BTreeMap<u32, u64>;

/// Moves the events of one ring into the audit stream.
pub struct Pump {
    reader: RingReader,
    ready: AsyncFd<std::os::fd::OwnedFd>,
    recorder: Recorder,
    directory: Arc<Directory>,
    canary: CanaryTap,
    clock: Arc<dyn Clock>,
    processes: Processes,
    account: Account,
    on_disk: mpsc::Sender<Seen>,
    noted: mpsc::Receiver<Seen>,
    noting: bool,
}

impl Pump {
    /// A pump on a ring. Events that an earlier daemon took and did not get to disk, as `written` tells,
    /// are reported as lost.
    ///
    /// # Errors
    /// The ring cannot be waited for.
    pub fn new(
        reader: RingReader,
        recorder: Recorder,
        directory: Arc<Directory>,
        canary: CanaryTap,
        clock: Arc<dyn Clock>,
        written: &Written,
    ) -> io::Result<Self> {
        use std::os::fd::AsFd as _;
        let ready = watch_fd(reader.as_fd())?;
        let cpus = u32::try_from(reader.produced()?.len()).unwrap_or(0);
        let seen: io::Result<Vec<_>> = (0..cpus)
            .map(|cpu| {
                let next = reader.seen(cpu)?.max(written.next(reader.ring(), cpu));
                Ok((next, reader.aside(cpu)?))
            })
            .collect();
        let account = Account::new(seen?);
        let (on_disk, noted) = mpsc::channel(1);
        Ok(Self {
            reader,
            ready,
            recorder,
            directory,
            canary,
            clock,
            processes: Processes::default(),
            account,
            on_disk,
            noted,
            noting: false,
        })
    }

    /// Runs until told to stop, and takes what is left then.
    ///
    /// # Errors
    /// The ring cannot be waited for any more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let mut quiet = 0;
        loop {
            let taken = self.round();
            quiet = if taken == 0 { quiet + 1 } else { 0 };
            self.note();
            if *stop.borrow() && taken == 0 {
                return Ok(());
            }
            if taken == BATCH {
                tokio::task::yield_now().await;
                continue;
            }
            if quiet < QUIET_ROUNDS || self.noting || self.account.waits() {
                tokio::select! {
                    () = sleep(PERIOD) => {}
                    Some(seen) = self.noted.recv() => self.write_seen(&seen),
                }
                continue;
            }
            self.reader.arm()?;
            if self.round() > 0 {
                quiet = 0;
                continue;
            }
            tokio::select! {
                ready = self.ready.readable() => ready?.clear_ready(),
                _ = stop.changed() => {}
            }
            quiet = 0;
        }
    }

    /// Takes a batch, and accounts for what is missing.
    fn round(&mut self) -> usize {
        let now = self.clock.now();
        let Self { reader, recorder, directory, canary, processes, account, .. } = self;
        let ring = reader.ring();
        let taken = reader.drain(BATCH, |bytes| {
            let (event, kind, hook, reason) = match grantd_common::Event::decode(bytes) {
                Ok(decoded) => decoded,
                Err(error) => {
                    let detail = format!("an event of the kernel could not be read: {error}");
                    recorder.record(
                        AuditEvent::Finding(Finding::new(FindingKind::DecodeFailed, detail)),
                        now.unix_ms(),
                    );
                    recorder
                        .record(AuditEvent::Loss(Loss::new(LossSource::Decode, 1)), now.unix_ms());
                    return;
                }
            };
            account.took(event.cpu, event.sequence);
            let ended = matches!(kind, EventKind::Closed | EventKind::Reset);
            if canary.takes(&event, kind)
                || (ended && directory.end_is_on_record(event.cookie, event.opened_boot_ns))
            {
                account.put_aside(event.cpu, event.sequence);
                return;
            }
            let (audit, at_ms) =
                record::record(&event, (kind, hook, reason), directory, processes, now);
            recorder.record(audit, at_ms);
        });
        for (cpu, run) in account.newly_aside() {
            if let Err(error) = reader.set_aside(cpu, &run) {
                tracing::warn!(%error, "cannot note which events leave no record");
            }
        }
        if taken < BATCH {
            for (cpu, gap) in account.lost() {
                lost(recorder, ring, cpu, gap, now.unix_ms());
            }
        }
        if taken == 0 {
            self.account_for_the_tail();
        }
        taken
    }

    /// Events lost after the last one that came through show only in the kernel's own counters.
    fn account_for_the_tail(&mut self) {
        let Ok(produced) = self.reader.produced() else { return };
        let now_ms = self.clock.now().unix_ms();
        for (cpu, gap) in self.account.tail(&produced) {
            lost(&self.recorder, self.reader.ring(), cpu, gap, now_ms);
        }
    }

    /// Once what was taken so far is on disk, the kernel may forget about it.
    fn note(&mut self) {
        if self.noting || !self.account.moved() {
            return;
        }
        self.noting = true;
        let seen = self.account.snapshot();
        let done = self.on_disk.clone();
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            sleep(NOTE_EVERY).await;
            recorder.flush_then(move |flushed| {
                // A failed flush is tried again with the next batch; nothing is noted before.
                let _ = done.try_send(if flushed.is_ok() { seen } else { Seen::new() });
            });
        });
    }

    fn write_seen(&mut self, seen: &Seen) {
        self.noting = false;
        for (cpu, sequence) in seen {
            if let Err(error) = self.reader.set_seen(*cpu, *sequence) {
                tracing::warn!(%error, "cannot note which events are on disk");
            }
        }
        self.account.noted(seen);
    }
}

fn lost(recorder: &Recorder, ring: Ring, cpu: u32, gap: (u64, u64), at_ms: u64) {
    let events = gap.1 - gap.0 + 1;
    tracing::warn!(events, cpu, ring = ?ring, "kernel events were lost before they could be recorded");
    let mut loss = Loss::new(LossSource::KernelRing, events);
    loss.attempts = events;
    loss.sequences = Some(gap);
    loss.cpu = Some(cpu);
    recorder.record(AuditEvent::Loss(loss), at_ms);
}
