//! From any thread to the spool without waiting.
//!
//! [`Recorder::record`] puts the event into its lane's bounded queue and returns; one thread owns the
//! [`Spool`] and empties the queues in the order in which events came. Allowed connections wait up to
//! [`COMMIT_INTERVAL`] for company before one sync; everything else is synced as soon as the disk is free.
//!
//! An event that finds its lane full is counted. When there is room again the count becomes one Loss
//! record, whose range of sequence numbers is left free in the spool, so that
//!
//! > events handed in = records written + events counted as lost + events still waiting
//!
//! holds at every moment and gaps in the numbers are explained by a record.

mod lanes;
mod writer;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanes::Lanes;
pub use lanes::{LaneStats, QueueLimits};
pub use writer::COMMIT_INTERVAL;

use crate::event::{Event, Lane};
use crate::{Spool, SpoolStatus};

/// Flushes that may wait at once.
const FLUSH_CAPACITY: usize = 64;

/// Hands events to the writer. Cheap to clone; every clone feeds the same spool.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

/// The writer thread. Dropping it asks the thread to finish without waiting for it.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    report: Receiver<StopReport>,
}

/// The writer thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the audit writer thread")]
pub struct WriterError(#[source] std::io::Error);

/// Why a flush did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The disk did not take it; it is tried again until it does.
    #[error("audit records are not on disk yet: {0}")]
    Disk(String),
    /// It took longer than the caller would wait.
    #[error("audit records were not on disk in time")]
    TimedOut,
    /// Too many flushes wait already.
    #[error("too many flushes of the audit records wait already")]
    Busy,
    /// The writer has stopped.
    #[error("the audit writer has stopped")]
    Stopped,
}

/// How recording stands. `handed` = `written` + the lanes' `lost` + `waiting`, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Events handed to the recorder since it was started.
    pub handed: u64,
    /// Of those, on disk for good.
    pub written: u64,
    /// Of those, in a queue or not yet taken by the disk.
    pub waiting: u64,
    /// Of those, lost for want of room, lane by lane in the order of [`Lane::ALL`].
    pub lanes: [LaneStats; 4],
    /// The spool.
    pub spool: SpoolStatus,
    /// Tries to write that failed since the start.
    pub disk_errors: u64,
    /// The last failure, while it lasts.
    pub last_error: Option<String>,
    /// Whether the writer runs and the disk took the last batch.
    pub writing: bool,
}

impl Stats {
    /// Events lost in all lanes.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.lost).sum()
    }
}

/// What became of everything, at the end. `handed` = `written` + `lost` + `unwritten`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Events handed to the recorder.
    pub handed: u64,
    /// Events on disk for good.
    pub written: u64,
    /// Events lost for want of room, or handed in after the stop. Those of the last moment have no record.
    pub lost: u64,
    /// Events that the disk did not take any more.
    pub unwritten: u64,
    /// Why not.
    pub last_error: Option<String>,
}

type FlushCallback = Box<dyn FnOnce(Result<(), FlushError>) + Send>;

struct State {
    lanes: Lanes,
    /// Something waits that must not wait for company.
    urgent: bool,
    flushes: Vec<FlushCallback>,
    stopping: bool,
    stopped: bool,
}

#[derive(Default)]
struct Progress {
    written: u64,
    spool: SpoolStatus,
    disk_errors: u64,
    last_error: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    progress: Mutex<Progress>,
}

impl Recorder {
    /// Starts the writer on a spool.
    ///
    /// # Errors
    ///
    /// The thread cannot be created.
    pub fn start(spool: Spool) -> Result<(Recorder, Writer), WriterError> {
        Recorder::start_with(spool, QueueLimits::default())
    }

    /// As [`Recorder::start`], with other queue sizes.
    ///
    /// # Errors
    ///
    /// The thread cannot be created.
    pub fn start_with(
        spool: Spool,
        limits: QueueLimits,
    ) -> Result<(Recorder, Writer), WriterError> {
        let shared = Arc::new(Shared::new(limits));
        shared.progress().spool = spool.status();
        let (done, report): (SyncSender<StopReport>, _) = sync_channel(1);
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(String::from("audit-writer"))
            .spawn(move || writer::run(&of_thread, spool, &done))
            .map_err(WriterError)?;
        Ok((Recorder { shared: Arc::clone(&shared) }, Writer { shared, report }))
    }

    /// A recorder without a spool, for tests of what feeds it: the [`Collector`] hands back the events.
    #[must_use]
    pub fn collecting() -> (Recorder, Collector) {
        let shared = Arc::new(Shared::new(QueueLimits::default()));
        (Recorder { shared: Arc::clone(&shared) }, Collector { shared })
    }

    /// Takes an event that happened at `time_ms` (Unix milliseconds). Never waits for the disk; an event
    /// for which there is no room is counted and the count is recorded.
    pub fn record(&self, event: Event, time_ms: u64) {
        let urgent = event.lane() != Lane::Allowed;
        let mut state = self.shared.state();
        let closed = state.stopping || state.stopped;
        let mut wake = state.lanes.push(event, time_ms, closed);
        if urgent && !state.urgent {
            state.urgent = true;
            wake = true;
        }
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Calls `done` once everything handed in before is on disk, or the disk has refused it. `done` runs
    /// on the writer's thread: it should do no more than send a message.
    pub fn flush_then(&self, done: impl FnOnce(Result<(), FlushError>) + Send + 'static) {
        let mut state = self.shared.state();
        let refusal = if state.stopped {
            FlushError::Stopped
        } else if state.flushes.len() >= FLUSH_CAPACITY {
            FlushError::Busy
        } else {
            state.flushes.push(Box::new(done));
            drop(state);
            self.shared.wake.notify_one();
            return;
        };
        drop(state);
        done(Err(refusal));
    }

    /// Waits until everything handed in before is on disk. Blocks: not for async tasks.
    ///
    /// # Errors
    ///
    /// The disk refused it, or it took longer than `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        let (done, outcome) = sync_channel(1);
        // Whoever has stopped waiting does not care.
        self.flush_then(move |result| drop(done.send(result)));
        match outcome.recv_timeout(timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(FlushError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(FlushError::Stopped),
        }
    }

    /// How recording stands now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.shared.state();
        let progress = self.shared.progress();
        let handed = state.lanes.handed();
        let lanes = state.lanes.stats();
        let lost: u64 = lanes.iter().map(|lane| lane.lost).sum();
        Stats {
            handed,
            written: progress.written,
            waiting: handed.saturating_sub(progress.written).saturating_sub(lost),
            lanes,
            spool: progress.spool.clone(),
            disk_errors: progress.disk_errors,
            last_error: progress.last_error.clone(),
            writing: !state.stopped && progress.last_error.is_none(),
        }
    }
}

impl Writer {
    /// Writes everything that was handed in before and ends the thread. Later events are counted as lost.
    ///
    /// # Errors
    ///
    /// It took longer than `timeout`; the thread goes on trying until the process ends.
    pub fn stop(self, timeout: Duration) -> Result<StopReport, FlushError> {
        self.shared.stop();
        match self.report.recv_timeout(timeout) {
            Ok(report) => Ok(report),
            Err(RecvTimeoutError::Timeout) => Err(FlushError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(FlushError::Stopped),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// The events of a [`Recorder::collecting`].
#[derive(Debug)]
pub struct Collector {
    shared: Arc<Shared>,
}

impl Collector {
    /// Everything recorded since the last call, in order, with its time in Unix milliseconds.
    #[must_use]
    pub fn take(&self) -> Vec<(Event, u64)> {
        let mut state = self.shared.state();
        let mut batch = Vec::new();
        while state.lanes.take(&mut batch, usize::MAX) {}
        let flushes = std::mem::take(&mut state.flushes);
        drop(state);
        for done in flushes {
            done(Ok(()));
        }
        batch
    }
}

impl Shared {
    fn new(limits: QueueLimits) -> Self {
        Shared {
            state: Mutex::new(State {
                lanes: Lanes::new(limits),
                urgent: false,
                flushes: Vec::new(),
                stopping: false,
                stopped: false,
            }),
            wake: Condvar::new(),
            progress: Mutex::new(Progress::default()),
        }
    }

    // A thread that panicked while it held a lock left plain counters and queues: all still valid.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.state().stopping = true;
        self.wake.notify_one();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
