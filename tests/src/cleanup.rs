//! Undoing what a run made, whichever way it ends.
//!
//! Every guard of this crate registers how it is undone. Dropping the guard does it; so does SIGINT,
//! SIGTERM or SIGHUP (newest first, then the process exits with 128 + signal). A run that was killed
//! outright is undone by the next one: see [`crate::workdir`].

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

type Action = Box<dyn FnOnce() -> Result<()> + Send>;

struct Entry {
    what: String,
    action: Action,
}

struct Registry {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    /// Set once a signal has come: what is made after that is undone at once.
    closed: bool,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { next: 0, entries: BTreeMap::new(), closed: false });
static HANDLER: Once = Once::new();

/// Undoes one thing when dropped.
#[must_use = "dropping it undoes the thing at once"]
#[derive(Debug)]
pub struct Undo {
    id: u64,
}

/// Promises that `action` will run once: when the returned [`Undo`] is dropped or when the process
/// is told to end. `what` names the thing in complaints about a failed action.
pub fn register(
    what: impl Into<String>,
    action: impl FnOnce() -> Result<()> + Send + 'static,
) -> Undo {
    HANDLER.call_once(start_signal_thread);
    let entry = Entry { what: what.into(), action: Box::new(action) };
    let mut registry = lock();
    if registry.closed {
        drop(registry);
        run(entry);
        park_for_good();
    }
    let id = registry.next;
    registry.next += 1;
    registry.entries.insert(id, entry);
    Undo { id }
}

/// Never comes back once a signal has come: what the caller works with is being removed, its errors
/// mean nothing, and it must not end the process before all is removed.
pub fn stop_if_ending() {
    if lock().closed {
        park_for_good();
    }
}

fn park_for_good() -> ! {
    loop {
        std::thread::park();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        stop_if_ending();
        let entry = lock().entries.remove(&self.id);
        if let Some(entry) = entry {
            run(entry);
        }
    }
}

/// A line to the person at the terminal, on standard error. Never fails: there may be nobody there.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn lock() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(entry: Entry) {
    if let Err(error) = (entry.action)() {
        complain(&format!("could not undo {}: {error:#}", entry.what));
    }
}

fn start_signal_thread() {
    let (ready, wait) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let outcome = wait_for_signal(&ready);
        match outcome {
            Ok(number) => {
                complain("\ninterrupted: removing what was made");
                undo_everything();
                std::process::exit(128 + number);
            }
            Err(error) => {
                complain(&format!("an interrupted run will leave things behind: {error:#}"));
            }
        }
    });
    // The handlers must stand before the first thing is made.
    let _ = wait.recv();
}

fn wait_for_signal(ready: &std::sync::mpsc::SyncSender<()>) -> Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the signal thread")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("watching SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("watching SIGTERM")?;
        let mut hang_up = signal(SignalKind::hangup()).context("watching SIGHUP")?;
        let _ = ready.send(());
        Ok(tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = hang_up.recv() => SignalKind::hangup().as_raw_value(),
        })
    })
}

fn undo_everything() {
    lock().closed = true;
    loop {
        let newest = lock().entries.pop_last();
        match newest {
            Some((_, entry)) => run(entry),
            None => return,
        }
    }
}
