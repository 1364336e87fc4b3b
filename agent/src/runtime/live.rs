//! The running daemon, its watchdog, and the way down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grantd_audit::Writer;
use grantd_audit::event::{Event, Lifecycle, LifecycleKind};
use tokio::sync::watch;
use tokio::time::timeout;

use super::control::Shared;
use super::notify;
use super::parts::{CONTROL, DENIALS, ENFORCER, FLOWS, LISTENER, Parts};
use crate::clock::Clock;
use crate::enforcer::EnforcerHandle;
use crate::text::chain;

/// How long each of the four steps of the way down may take; the unit's `TimeoutStopSec=` allows for all.
const STEP: Duration = Duration::from_secs(5);
/// How long the enforcer may take to say that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(4);

/// Everything that runs, and what it takes to stop it.
pub(super) struct Live {
    pub(super) shared: Arc<Shared>,
    pub(super) parts: Parts,
    pub(super) stop_intake: watch::Sender<bool>,
    pub(super) stop_events: watch::Sender<bool>,
    pub(super) writer: Writer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) adopted: bool,
    pub(super) restored: u64,
    pub(super) listen: SocketAddr,
    /// Whether the canary has passed since the start.
    pub(super) proven: watch::Receiver<bool>,
}

impl Live {
    /// The way down; the kernel keeps denying throughout.
    ///
    /// Whoever records ends before the writer: first what asks the enforcer, then the enforcer itself
    /// (whatever it committed to the ledger is recorded by then), then the readers of the kernel's events.
    pub(super) async fn stop(self, failure: Option<String>) {
        let Self { shared, mut parts, stop_intake, stop_events, writer, clock, .. } = self;
        let _ = stop_intake.send(true);
        in_time("what was in hand", parts.ended(&[LISTENER, CONTROL], STEP).await);
        let mut live_grants = None;
        let enforcer = async {
            live_grants = live_count(&shared.enforcer).await;
            shared.enforcer.stop().await;
            parts.ended(&[ENFORCER], STEP).await
        };
        in_time(ENFORCER, timeout(STEP, enforcer).await.unwrap_or(false));
        let _ = stop_events.send(true);
        in_time("taking in the last events", parts.ended(&[DENIALS, FLOWS], STEP).await);
        shared.tell_refused(true);
        let mut event = Lifecycle::new(LifecycleKind::Stop);
        event.success = failure.is_none();
        event.detail =
            failure.unwrap_or_else(|| "stopped as asked; the kernel keeps enforcing".to_owned());
        event.live_grants = live_grants;
        shared.recorder.record(Event::Lifecycle(event), clock.now().unix_ms());
        parts.abort();
        stop_writer(writer).await;
    }
}

async fn stop_writer(writer: Writer) {
    match tokio::task::spawn_blocking(move || writer.stop(STEP)).await {
        Ok(Ok(report)) if report.unwritten == 0 => {}
        Ok(Ok(report)) => {
            tracing::warn!(unwritten = report.unwritten, "audit records did not get to disk");
        }
        Ok(Err(error)) => tracing::warn!("audit: {}", chain(&error)),
        Err(_) => in_time("audit", false),
    }
}

fn in_time(what: &'static str, done: bool) {
    if !done {
        tracing::warn!("{what} did not end in time");
    }
}

/// Tells the service manager that the daemon lives, as often as it wants to hear it. Only an enforcer that
/// answers keeps the watchdog quiet.
pub(super) async fn keep_watchdog_quiet(enforcer: EnforcerHandle) -> super::parts::Ended {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut every = tokio::time::interval(limit / 3);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if live_count(&enforcer).await.is_some() {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// How many grants are live; none if the enforcer does not answer.
async fn live_count(enforcer: &EnforcerHandle) -> Option<u64> {
    timeout(SIGN_OF_LIFE, enforcer.live_count()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforcer;

    #[tokio::test(start_paused = true)]
    async fn an_enforcer_that_hangs_neither_passes_for_alive_nor_holds_up_the_stop() {
        let (handle, _nobody_serves) = enforcer::channel();
        let answered = timeout(2 * SIGN_OF_LIFE, live_count(&handle)).await;
        assert_eq!(answered, Ok(None));
    }
}
