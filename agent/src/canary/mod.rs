//! The canary: every few seconds a process of the daemon's own, confined like an agent, tries a connection
//! that nothing grants and one that is granted, and both have to come out as they should and be told of.
//!
//! It finds what looking at links and maps does not: that what is attached and written also takes effect, and
//! that its records arrive. Its place is a cgroup below the slice that exists for the round alone, its grant a
//! reserved slot that lives for seconds, and its records are compared and not kept. Nothing of it reaches
//! beyond the loopback of the daemon's network namespace.

mod judge;
mod listener;
mod probe;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};

pub use judge::{Attempt, Outcome, Seen, judge};
pub use probe::run as run_probe;

use crate::enforcer::{CanaryGround, EnforcerHandle};
use crate::events::CanaryEvent;
use listener::Listener;

/// How long the records of a round may take: they are there within milliseconds, but on a machine that is
/// emulated or overloaded.
const RECORDS: Duration = Duration::from_secs(5);

/// See the module.
pub struct Canary {
    enforcer: EnforcerHandle,
    events: mpsc::Receiver<CanaryEvent>,
    period: Duration,
    proof: watch::Sender<bool>,
    denied: Listener,
    granted: Listener,
}

impl Canary {
    /// One that tries every `period`, is told by the kernel through `events`, and says through `proof` when it
    /// passed for the first time.
    ///
    /// # Errors
    /// Nothing can be listened to on the loopback address.
    pub async fn new(
        enforcer: EnforcerHandle,
        events: mpsc::Receiver<CanaryEvent>,
        period: Duration,
        proof: watch::Sender<bool>,
    ) -> std::io::Result<Self> {
        let (denied, granted) = (Listener::open().await?, Listener::open().await?);
        Ok(Self { enforcer, events, period, proof, denied, granted })
    }

    /// Goes round until it is dropped.
    pub async fn run(mut self) -> Infallible {
        let mut every = tokio::time::interval(self.period);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let outcome = match self.enforcer.begin_canary(self.granted.address).await {
                Ok(Some(Ok(ground))) => self.round(&ground).await,
                Ok(Some(Err(why))) => Outcome::Failed(format!("it could not be tried: {why}")),
                // There is no slice just now, which is told as it is.
                Ok(None) => continue,
                // The daemon is on its way down.
                Err(_) => return std::future::pending().await,
            };
            let passed = outcome == Outcome::Passed;
            if self.enforcer.end_canary(outcome).await.is_err() {
                return std::future::pending().await;
            }
            if passed {
                self.proof.send_if_modified(|proven| !std::mem::replace(proven, true));
            }
        }
    }

    async fn round(&mut self, ground: &CanaryGround) -> Outcome {
        while self.events.try_recv().is_ok() {}
        let (denied, granted) = (self.denied.address, self.granted.address);
        let attempts = tokio::select! {
            attempts = probe::start(&ground.cgroup, denied, granted) => attempts,
            never = self.denied.answer() => match never {},
            never = self.granted.answer() => match never {},
        };
        let attempts = match attempts {
            Ok(attempts) => attempts,
            Err(why) => return Outcome::Failed(format!("it could not be tried: {why}")),
        };
        let seen = self.records(ground, denied, granted).await;
        judge(&attempts, seen)
    }

    /// Waits for the records of this round, or until they are missing.
    async fn records(
        &mut self,
        ground: &CanaryGround,
        denied: SocketAddr,
        granted: SocketAddr,
    ) -> Seen {
        let mut seen = Seen::default();
        let both = async {
            while !(seen.denial && seen.connection) {
                match self.events.recv().await {
                    Some(CanaryEvent::Denied { to }) => seen.denial |= to == denied,
                    Some(CanaryEvent::Allowed { to, by }) => {
                        seen.connection |= to == granted && by == ground.grant;
                    }
                    None => return,
                }
            }
        };
        // What is missing then shows.
        let _ = timeout(RECORDS, both).await;
        seen
    }
}
