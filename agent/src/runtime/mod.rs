//! Wiring: brings the parts up in order, supervises them, and takes them down in order.
//!
//! Up: config, audit, ledger and kernel (which enforces from then on), keys, sockets, ready. Down: no
//! more pushes, the rings are emptied, audit is on disk, exit. The kernel keeps denying.

mod control;
mod error;
mod live;
mod reload;
mod start;

use std::path::{Path, PathBuf};
use std::time::Duration;

use grantd_audit::event::{Event, Lifecycle, LifecycleKind};
use tokio::signal::unix::{SignalKind, signal};

pub use error::Error;
use live::Live;

use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::kernel;
use crate::text::chain;

/// How long each step of the way down may take.
const SHUTDOWN_STEP: Duration = Duration::from_secs(5);

/// What `grantd run --check` found to be in order.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// One line for each thing that was looked at.
    pub lines: Vec<String>,
}

/// Checks the config and what the kernel side needs, and changes nothing.
///
/// # Errors
/// The first thing that would keep the daemon from starting.
pub fn check(config_file: &Path) -> Result<CheckReport, Error> {
    let config = Config::load(config_file)?;
    let mut lines =
        vec![format!("config {}: no faults, SHA-256 {}", config_file.display(), config.hash)];
    let keys = crate::keys::ControlPlaneKeyFile::open(&config.control_plane.keys)?;
    lines.push(format!("control-plane keys: {}", keys.keys().len()));
    let tls = crate::intake::TlsMaterial::read(&config.control_plane.tls)?;
    tls.server_config(config.host_id.as_str(), std::sync::Arc::new(SystemClock))?;
    lines.push("TLS: certificate, key and client CA fit together".to_owned());
    let setup = start::setup(&config)?;
    kernel::check(&setup)?;
    lines.push(format!(
        "kernel: cgroup v2, slice {} and bpffs {} are there, and the kernel takes the programs",
        setup.slice.display(),
        setup.bpffs.display()
    ));
    if !SystemClock.synchronised() {
        lines.push("clock: the kernel holds it to be unsynchronised".to_owned());
    }
    Ok(CheckReport { lines })
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What kept it from starting, or the part that failed; what was enforced is enforced still.
pub async fn run(config_file: PathBuf) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::signals)?;
    let mut live = start::start(config_file).await?;
    notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(
        adopted = live.adopted,
        grants = live.restored,
        "enforcing; pushes are taken at {}",
        live.listen
    );
    let mut watchdog = watchdog();
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => {
                notify(&[sd_notify::NotifyState::Reloading]);
                if let Err(error) = live.shared.reload().await {
                    tracing::warn!("the config was not read again: {}", error.message);
                }
                notify(&[sd_notify::NotifyState::Ready]);
            }
            ended = live.parts.join_next() => break Some(live::describe(ended)),
            () = tick(&mut watchdog) => {
                // Only a live enforcer keeps the watchdog quiet.
                if live.shared.enforcer.live_count().await.is_ok() {
                    notify(&[sd_notify::NotifyState::Watchdog]);
                }
            }
        }
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    stop(live, failed.as_ref().map(|e| chain(e))).await;
    failed.map_or(Ok(()), Err)
}

/// The way down; the kernel keeps denying throughout.
async fn stop(live: Live, failure: Option<String>) {
    let Live { shared, stop_intake, stop_events, mut parts, writer, clock, .. } = live;
    let in_time = |what: &'static str, done: bool| {
        if !done {
            tracing::warn!("{what} did not end in time");
        }
    };
    let _ = stop_intake.send(true);
    let mut event = Lifecycle::new(LifecycleKind::Stop);
    event.success = failure.is_none();
    event.detail =
        failure.unwrap_or_else(|| "stopped as asked; the kernel keeps enforcing".to_owned());
    event.live_grants = shared.enforcer.live_count().await.ok();
    let _ = stop_events.send(true);
    let drained = tokio::time::timeout(SHUTDOWN_STEP, live::join_finite(&mut parts)).await;
    in_time("taking in the last events", drained.is_ok());
    shared.recorder.record(Event::Lifecycle(event), clock.now().unix_ms());
    parts.abort_all();
    let written = tokio::task::spawn_blocking(move || writer.stop(SHUTDOWN_STEP)).await;
    match written {
        Ok(Ok(report)) if report.unwritten == 0 => {}
        Ok(Ok(report)) => {
            tracing::warn!(unwritten = report.unwritten, "audit records did not get to disk");
        }
        Ok(Err(error)) => tracing::warn!("audit: {}", chain(&error)),
        Err(_) => in_time("audit", false),
    }
}

/// Tells the service manager, where there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

fn watchdog() -> Option<tokio::time::Interval> {
    let limit = sd_notify::watchdog_enabled()?;
    let mut every = tokio::time::interval(limit / 3);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    Some(every)
}

async fn tick(watchdog: &mut Option<tokio::time::Interval>) {
    match watchdog {
        Some(every) => {
            every.tick().await;
        }
        None => std::future::pending().await,
    }
}
