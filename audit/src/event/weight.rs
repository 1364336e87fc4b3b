//! How much memory an event takes, so that queues are bounded in bytes as well as in number.

use super::{Event, Grant, Peer, Process, Subject, Workload};

impl Event {
    /// Bytes in memory, roughly: the event itself and its text.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        size_of::<Event>() + self.text()
    }

    fn text(&self) -> usize {
        match self {
            Event::ConnectionAllowed(event)
            | Event::ConnectionDenied(event)
            | Event::ConnectionClosed(event)
            | Event::ConnectionCut(event) => {
                event.destination_name.len()
                    + of(event.workload.as_ref(), workload)
                    + of(event.grant.as_ref(), grant)
                    + of(event.process.as_ref(), process)
            }
            Event::GrantInForce(event) => {
                grant(&event.grant)
                    + workload(&event.workload)
                    + list(&event.destinations)
                    + of(event.peer.as_ref(), peer)
            }
            Event::GrantEnded(event) => {
                grant(&event.grant)
                    + workload(&event.workload)
                    + list(&event.destinations)
                    + event.detail.len()
                    + of(event.peer.as_ref(), peer)
            }
            Event::GrantRefused(event) => {
                of(event.grant.as_ref(), grant)
                    + list(&event.destinations)
                    + event.detail.len()
                    + of(event.peer.as_ref(), peer)
            }
            Event::RevocationApplied(event) => {
                list(&event.selectors) + list(&event.ended) + of(event.peer.as_ref(), peer)
            }
            Event::RevocationRefused(event) => {
                event.detail.len() + event.id.len() + of(event.peer.as_ref(), peer)
            }
            Event::ApiCall(event) => {
                event.operation.len()
                    + event.request_id.len()
                    + event.detail.len()
                    + event.about.len()
                    + peer(&event.peer)
            }
            Event::Lifecycle(event) => {
                event.detail.len()
                    + event
                        .coverage
                        .iter()
                        .map(|line| size_of_val(line) + line.name.len() + line.detail.len())
                        .sum::<usize>()
            }
            Event::Finding(event) => {
                event.detail.len()
                    + of(event.process.as_ref(), process)
                    + event
                        .evidence
                        .iter()
                        .map(|fact| size_of_val(fact) + fact.0.len() + fact.1.len())
                        .sum::<usize>()
            }
            Event::Loss(event) => event.lanes.iter().map(size_of_val).sum(),
        }
    }
}

fn of<T>(part: Option<&T>, weigh: impl FnOnce(&T) -> usize) -> usize {
    part.map_or(0, weigh)
}

fn list(items: &[String]) -> usize {
    items.iter().map(|item| size_of::<String>() + item.len()).sum()
}

fn subject(subject: &Subject) -> usize {
    subject.uid.len() + subject.client_id.len() + subject.actor.len()
}

fn grant(grant: &Grant) -> usize {
    grant.id.len()
        + grant.txn.len()
        + subject(&grant.subject)
        + grant.issuer.len()
        + grant.control_plane_kid.len()
        + grant.okta_issuer.len()
        + grant.okta_kid.len()
        + grant.ath.len()
}

fn workload(workload: &Workload) -> usize {
    workload.name.len() + workload.cgroup.path.len() + workload.invocation_id.len()
}

fn process(process: &Process) -> usize {
    let parent = process.parent.as_deref();
    process.comm.len()
        + process.exe.len()
        + process.cmd_line.len()
        + parent.map_or(0, |parent| size_of::<Process>() + parent.exe.len() + parent.cmd_line.len())
}

fn peer(peer: &Peer) -> usize {
    match peer {
        Peer::Tls { uris, certificate_sha256, .. } => list(uris) + certificate_sha256.len(),
        Peer::Local { process: caller, socket } => {
            size_of::<Process>() + process(caller) + socket.len()
        }
        Peer::Daemon => 0,
    }
}
