//! The thread that owns the spool.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::{FlushError, Shared, StopReport};
use crate::Spool;
use crate::event::Event;

/// How long an allowed connection may wait for company before it is written and synced.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// How long to leave a disk alone that has refused a batch.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Tries to write what is left when the recorder is stopped.
const LAST_TRIES: u32 = 3;
/// Events taken from the queues at once: short enough that no recorder waits for the lock.
const TAKE: usize = 256;
/// Encoded bytes after which a batch is written.
const BATCH_BYTES: usize = 1 << 20;

/// Runs until the recorder is stopped and everything is written, or the disk refuses the last of it.
pub(super) fn run(shared: &Shared, spool: Spool, done: &SyncSender<StopReport>) {
    let mut worker = Worker { shared, spool, batch: Vec::new(), pending_events: 0, failing: false };
    let mut last_tries = LAST_TRIES;
    loop {
        worker.wait();
        let flushes = std::mem::take(&mut shared.state().flushes);
        let outcome = worker.write_all();
        for flushed in flushes {
            flushed(outcome.clone().map_err(FlushError::Disk));
        }
        if shared.state().stopping {
            last_tries = if outcome.is_err() { last_tries.saturating_sub(1) } else { last_tries };
            if worker.is_done(last_tries == 0) {
                break;
            }
        }
    }
    // Nobody may be waiting for the report.
    drop(done.try_send(worker.report()));
}

struct Worker<'a> {
    shared: &'a Shared,
    spool: Spool,
    batch: Vec<(Event, u64)>,
    /// Events in the spool's memory that the disk has not taken.
    pending_events: u64,
    failing: bool,
}

impl Worker<'_> {
    /// Waits until there is something to write and it need not wait for company.
    fn wait(&self) {
        let state = self.shared.state();
        let wake = &self.shared.wake;
        // The guards that come back are dropped: what they show is read again under the lock.
        if self.failing {
            let patient = |state: &mut super::State| !state.stopping && state.flushes.is_empty();
            drop(wake.wait_timeout_while(state, RETRY_INTERVAL, patient));
            return;
        }
        let idle = |state: &mut super::State| {
            state.lanes.is_empty()
                && !state.lanes.has_loss()
                && !state.stopping
                && state.flushes.is_empty()
        };
        let Ok(state) = wake.wait_while(state, idle) else { return };
        let patient = |state: &mut super::State| {
            !state.urgent
                && !state.stopping
                && state.flushes.is_empty()
                && !state.lanes.is_pressed()
        };
        drop(wake.wait_timeout_while(state, COMMIT_INTERVAL, patient));
    }

    /// Writes everything that waits. On an error the rest stays where it is.
    fn write_all(&mut self) -> Result<(), String> {
        // First what the disk refused before: nothing more is taken from the queues until it is gone.
        self.commit()?;
        loop {
            let mut state = self.shared.state();
            state.urgent = false;
            let taken = state.lanes.take(&mut self.batch, TAKE);
            let loss = state.lanes.take_loss();
            drop(state);
            for (event, time_ms) in self.batch.drain(..) {
                match self.spool.append(&event, time_ms) {
                    Ok(_) => self.pending_events += 1,
                    Err(_) => self.shared.state().lanes.lose(&event, time_ms),
                }
            }
            if let Some((mut loss, time_ms)) = loss {
                loss.sequences = self.spool.skip(loss.events);
                // Numbers and constant text: it can be encoded.
                drop(self.spool.append(&Event::Loss(loss), time_ms));
            }
            if !taken || self.spool.pending_bytes() >= BATCH_BYTES {
                self.commit()?;
            }
            if !taken {
                return Ok(());
            }
        }
    }

    fn commit(&mut self) -> Result<(), String> {
        let outcome = self.spool.commit().map_err(|error| with_causes(&error));
        let mut progress = self.shared.progress();
        match &outcome {
            Ok(()) => {
                progress.written += std::mem::take(&mut self.pending_events);
                progress.last_error = None;
            }
            Err(error) => {
                progress.disk_errors += 1;
                progress.last_error = Some(error.clone());
            }
        }
        progress.spool = self.spool.status();
        self.failing = outcome.is_err();
        outcome
    }

    /// Whether the thread may end: nothing waits, or nothing more will be tried. Decided under the lock,
    /// so that no event slips in between.
    fn is_done(&self, give_up: bool) -> bool {
        let mut state = self.shared.state();
        // What comes after the stop is only counted, so the queues do become empty.
        state.stopped = give_up || (state.lanes.is_empty() && !self.failing);
        if state.stopped {
            let flushes = std::mem::take(&mut state.flushes);
            drop(state);
            for flushed in flushes {
                flushed(Err(FlushError::Stopped));
            }
            return true;
        }
        false
    }

    fn report(&self) -> StopReport {
        let state = self.shared.state();
        let progress = self.shared.progress();
        let handed = state.lanes.handed();
        let lost: u64 = state.lanes.stats().iter().map(|lane| lane.lost).sum();
        StopReport {
            handed,
            written: progress.written,
            lost,
            unwritten: handed.saturating_sub(progress.written).saturating_sub(lost),
            last_error: progress.last_error.clone(),
        }
    }
}

impl Drop for Worker<'_> {
    /// However the thread ends, later events are counted and not queued for nobody.
    fn drop(&mut self) {
        self.shared.state().stopped = true;
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
