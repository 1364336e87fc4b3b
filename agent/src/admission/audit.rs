//! What admission records: one event for each refusal and each question.

use grantd_audit::event::{
    ApiCall, ApiKind, Event, Finding, FindingKind, Grant, GrantRefused, Peer as AuditPeer,
    RevocationRefused, Subject, Workload,
};
use grantd_grant::{About, Reason, Refusal};

use super::PushAdmission;
use crate::intake::{Asked, Peer, Problem, PushKind};

impl PushAdmission {
    pub(super) fn audit(&self, event: Event) {
        self.recorder.record(event, self.clock.now().unix_ms());
    }

    pub(super) fn audit_refused_grant(&self, peer: &Peer, refusal: &Refusal) {
        self.audit(refused_grant(peer, refusal));
    }

    pub(super) fn audit_refused_revocation(&self, peer: &Peer, refusal: &Refusal) {
        self.audit(refused_revocation(peer, refusal));
    }

    /// A peer that may ask nothing. Any certificate of the private CA gets this far, so that the records
    /// of each are few and their count is exact.
    pub(super) fn audit_refused_peer(&self, peer: &Peer, asked: Asked, refusal: &Refusal) {
        let event = match asked {
            Asked::Push(PushKind::Grant) => refused_grant(peer, refusal),
            Asked::Push(PushKind::Revocation) => refused_revocation(peer, refusal),
            Asked::Other => refused_question(peer, refusal),
        };
        let who: Vec<&str> = peer.uris.iter().collect();
        if let Some(event) = self.refused_peers.take(&who.join(" "), event, self.clock.now()) {
            self.audit(event);
        }
    }

    pub(super) fn audit_turned_away(&self, peer: &Peer, push: PushKind, problem: &Problem) {
        let (reason, detail) = (problem.reason().into(), problem.detail().to_owned());
        let peer = Some(audit_peer(peer));
        self.audit(match push {
            PushKind::Grant => {
                let check = problem.check();
                let event = GrantRefused { reason, check, detail, peer, ..GrantRefused::default() };
                Event::GrantRefused(event)
            }
            PushKind::Revocation => {
                let event =
                    RevocationRefused { reason, detail, peer, ..RevocationRefused::default() };
                Event::RevocationRefused(event)
            }
        });
    }

    pub(super) fn audit_read(&self, peer: &Peer, operation: &str, about: &str, status: u16) {
        self.audit(Event::ApiCall(ApiCall {
            peer: audit_peer(peer),
            kind: ApiKind::Read,
            operation: operation.to_owned(),
            request_id: String::new(),
            status,
            reason: "".into(),
            detail: String::new(),
            about: about.to_owned(),
            duration_us: None,
        }));
    }
}

fn refused_grant(peer: &Peer, refusal: &Refusal) -> Event {
    let about = refusal.about.as_deref();
    let event = GrantRefused {
        reason: refusal.reason.as_str().into(),
        check: refusal.reason.check(),
        detail: refusal.detail.clone(),
        grant: about.map(audit_grant),
        workload: about
            .and_then(|a| a.workload.as_ref())
            .map(|name| Workload { name: name.to_string(), ..Workload::default() }),
        destinations: about
            .map(|a| a.destinations.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        peer: Some(audit_peer(peer)),
    };
    // The same id with other content is either a broken control plane or somebody's attempt: that
    // is a finding, and the finding is the one record.
    if refusal.reason == Reason::JtiReused {
        let mut finding = Finding::new(FindingKind::ReplayOtherHash, refusal.detail.clone());
        finding.grant = event.grant;
        finding.workload = event.workload;
        finding.peer = event.peer;
        finding.evidence = vec![("reason".into(), refusal.reason.as_str().to_owned())];
        Event::Finding(finding)
    } else {
        Event::GrantRefused(event)
    }
}

fn refused_revocation(peer: &Peer, refusal: &Refusal) -> Event {
    let jti = refusal.about.as_deref().and_then(|a| a.jti.as_ref());
    Event::RevocationRefused(RevocationRefused {
        reason: refusal.reason.as_str().into(),
        detail: refusal.detail.clone(),
        id: jti.map(ToString::to_string).unwrap_or_default(),
        peer: Some(audit_peer(peer)),
    })
}

fn refused_question(peer: &Peer, refusal: &Refusal) -> Event {
    Event::ApiCall(ApiCall {
        peer: audit_peer(peer),
        kind: ApiKind::Read,
        operation: "question".to_owned(),
        request_id: String::new(),
        status: refusal.reason.http_status(),
        reason: refusal.reason.as_str().into(),
        detail: refusal.detail.clone(),
        about: String::new(),
        duration_us: None,
    })
}

pub(super) fn audit_peer(peer: &Peer) -> AuditPeer {
    AuditPeer::Tls {
        address: peer.address,
        uris: peer.uris.iter().map(str::to_owned).collect(),
        certificate_sha256: String::new(),
    }
}

/// What an authenticated grant said of itself; nothing of it was believed.
fn audit_grant(about: &About) -> Grant {
    let text = |id: Option<&dyn std::fmt::Display>| id.map(ToString::to_string).unwrap_or_default();
    Grant {
        id: text(about.jti.as_ref().map(|v| v as _)),
        txn: text(about.txn.as_ref().map(|v| v as _)),
        subject: Subject {
            uid: text(about.sub.as_ref().map(|v| v as _)),
            client_id: text(about.cid.as_ref().map(|v| v as _)),
            actor: text(about.act.as_ref().map(|v| v as _)),
        },
        control_plane_kid: text(about.kid.as_ref().map(|v| v as _)),
        expires_s: about.exp.map(grantd_grant::UnixTime::as_secs),
        ..Grant::default()
    }
}
