//! The canary's own events: handed to it, and not kept.

use std::net::SocketAddr;

use grantd_common::{Event, EventKind, GrantRef, WorkloadId};
use tokio::sync::mpsc;

/// Events that may wait for a canary: a round has three.
const WAITING: usize = 64;

/// What the kernel told of an attempt of the canary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryEvent {
    /// It was denied.
    Denied {
        /// Where to.
        to: SocketAddr,
    },
    /// It was allowed.
    Allowed {
        /// Where to.
        to: SocketAddr,
        /// The grant that did.
        by: GrantRef,
    },
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct CanaryTap(mpsc::Sender<CanaryEvent>);

/// The ends of the canary's events.
#[must_use]
pub fn canary_tap() -> (CanaryTap, mpsc::Receiver<CanaryEvent>) {
    let (sender, events) = mpsc::channel(WAITING);
    (CanaryTap(sender), events)
}

impl CanaryTap {
    /// Takes the event if it is the canary's. One that finds no room is missed by the canary, which is
    /// an alarm.
    pub(super) fn takes(&self, event: &Event, kind: EventKind) -> bool {
        if event.workload != WorkloadId::CANARY {
            return false;
        }
        let to = SocketAddr::new(event.to.address.to_ip(), event.to.port.get());
        let told = match kind {
            EventKind::Denied => Some(CanaryEvent::Denied { to }),
            EventKind::Allowed => {
                let by = GrantRef::new(event.slot, event.generation);
                Some(CanaryEvent::Allowed { to, by })
            }
            EventKind::Dropped | EventKind::Closed | EventKind::Reset => None,
        };
        if let Some(told) = told {
            let _ = self.0.try_send(told);
        }
        true
    }
}
