//! From a pushed body to a verified grant: the checks in their order, and one audit event for each
//! refusal. Owns nothing; what is decided here is put into force by the enforcer.

use std::sync::Arc;

use grantd_audit::Recorder;
use grantd_audit::event::{
    ApiCall, ApiKind, Event, Finding, FindingKind, Grant, GrantRefused, Peer as AuditPeer,
    RevocationRefused, Subject, Workload,
};
use grantd_grant::{
    About, BindError, ControlPlaneKeys, FreshGrant, GrantId, HostPolicy, InvalidJwks, OktaKeys,
    Push, Reason, Refusal, ReplayOutcome, RevocationPush, SignedGrant, VerifiedGrant,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::{Clock, Now};
use crate::enforcer::{Applied, EnforcerHandle};
use crate::intake::{
    Acknowledgement, Admission, Answer, GrantOutcome, HostView, Peer, Problem, PushBody, PushKind,
    RevocationOutcome, ShowOutcome,
};
use crate::keys::{KeyLookupError, OktaKeyStore};
use crate::ledger::ReplayQuery;

/// Decides on pushes.
pub struct PushAdmission {
    /// What grants are decided with; a reload changes it.
    pub policy: watch::Receiver<Arc<HostPolicy>>,
    /// The control plane's pinned keys; a reload changes them.
    pub keys: watch::Receiver<Arc<ControlPlaneKeys>>,
    /// Okta's keys.
    pub okta: OktaKeyStore,
    /// Who puts into force.
    pub enforcer: EnforcerHandle,
    /// Where refusals are recorded.
    pub recorder: Recorder,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// This boot.
    pub boot_id: String,
    /// Whether grants are refused while no audit record can be written.
    pub audit_required: bool,
}

impl PushAdmission {
    async fn decide(&self, peer: &Peer, body: PushBody, received: Now) -> Result<Applied, Refusal> {
        if self.audit_required && !self.recorder.stats().writing {
            let detail = "audit records cannot be written and [audit] required is set";
            return Err(Refusal::new(Reason::AuditUnavailable, detail));
        }
        let epoch = self.enforcer.epoch();
        let policy = Arc::clone(&self.policy.borrow());
        let keys = Arc::clone(&self.keys.borrow());
        let pusher = policy.check_pusher(&peer.uris)?;
        let push = Push::parse(&body)?;
        drop(body);
        let signed = push.verify(&pusher, &keys, &policy, received.unix())?;
        let fresh = match self.check_replay(signed).await? {
            Replayed::Fresh(fresh) => fresh,
            Replayed::Already(applied) => return Ok(applied),
        };
        let verified = self.bind(&fresh, &policy).await?;
        self.enforcer.apply(verified, audit_peer(peer), received, epoch).await
    }

    async fn check_replay(&self, signed: SignedGrant) -> Result<Replayed, Refusal> {
        let query = ReplayQuery::new(&signed, *signed.jws_sha256());
        let answer = self.enforcer.replay(query).await?;
        match signed.check_replay(answer) {
            Ok(fresh) => Ok(Replayed::Fresh(Box::new(fresh))),
            Err(ReplayOutcome::Refused(refusal)) => Err(refusal),
            Err(ReplayOutcome::AlreadyAccepted(id)) => match self.enforcer.in_force(id).await? {
                Some(applied) => Ok(Replayed::Already(applied)),
                None => Err(Refusal::new(Reason::GrantRevoked, "this grant is over")),
            },
        }
    }

    /// Checks 11 to 15; a token key that is not known is fetched once.
    async fn bind(
        &self,
        fresh: &FreshGrant,
        policy: &HostPolicy,
    ) -> Result<VerifiedGrant, Refusal> {
        let stale =
            || fresh.refuse(Reason::KeysStale, "Okta's keys could not be fetched for too long");
        // Without keys no token is valid, but the checks before that are made in their order.
        let known = self.okta.current().or_else(|_| no_keys().map_err(|_| stale()))?;
        let kid = match fresh.bind(&known, policy, self.clock.now().unix()) {
            Ok(verified) => return Ok(verified),
            Err(BindError::Refused(refusal)) => return Err(refusal),
            Err(BindError::UnknownKey(kid)) => kid,
        };
        let fetched = self.okta.resolve(&kid).await.map_err(|error| match error {
            KeyLookupError::Unknown => fresh.refuse_unknown_key(&kid),
            KeyLookupError::Stale => stale(),
        })?;
        match fresh.bind(&fetched, policy, self.clock.now().unix()) {
            Ok(verified) => Ok(verified),
            Err(BindError::Refused(refusal)) => Err(refusal),
            Err(BindError::UnknownKey(kid)) => Err(fresh.refuse_unknown_key(&kid)),
        }
    }

    async fn decide_revocation(
        &self,
        peer: &Peer,
        body: PushBody,
        received: Now,
    ) -> Result<u64, Refusal> {
        let policy = Arc::clone(&self.policy.borrow());
        let keys = Arc::clone(&self.keys.borrow());
        let pusher = policy.check_pusher(&peer.uris)?;
        let revocation =
            RevocationPush::parse(&body)?.verify(&pusher, &keys, &policy, received.unix())?;
        let revoked = self.enforcer.revoke(revocation, audit_peer(peer), received).await?;
        Ok(revoked.ended.len() as u64)
    }

    fn audit_refused_grant(&self, peer: &Peer, refusal: &Refusal) {
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
        let event = if refusal.reason == Reason::JtiReused {
            let mut finding = Finding::new(FindingKind::ReplayOtherHash, refusal.detail.clone());
            finding.grant = event.grant;
            finding.workload = event.workload;
            finding.peer = event.peer;
            finding.evidence = vec![("reason".into(), refusal.reason.as_str().to_owned())];
            Event::Finding(finding)
        } else {
            Event::GrantRefused(event)
        };
        self.recorder.record(event, self.clock.now().unix_ms());
    }

    fn audit_refused_revocation(&self, event: RevocationRefused) {
        self.recorder.record(Event::RevocationRefused(event), self.clock.now().unix_ms());
    }

    async fn coverage(&self) -> Value {
        match self.enforcer.status().await {
            Ok(status) => coverage_json(&status),
            Err(_) => Value::Null,
        }
    }

    async fn acknowledge(&self, applied: &Applied) -> Acknowledgement {
        Acknowledgement {
            id: applied.id.clone(),
            deadline_unix_ms: applied.deadline_unix_ms,
            coverage: self.coverage().await,
        }
    }

    fn audit_read(&self, peer: &Peer, operation: &str, about: &str, status: u16) {
        let event = ApiCall {
            peer: audit_peer(peer),
            kind: ApiKind::Read,
            operation: operation.to_owned(),
            request_id: String::new(),
            status,
            reason: "".into(),
            detail: String::new(),
            about: about.to_owned(),
            duration_us: None,
        };
        self.recorder.record(Event::ApiCall(event), self.clock.now().unix_ms());
    }
}

/// A set without a key: every token's key is unknown to it.
fn no_keys() -> Result<Arc<OktaKeys>, InvalidJwks> {
    OktaKeys::from_jwks(br#"{"keys":[]}"#).map(Arc::new)
}

enum Replayed {
    Fresh(Box<FreshGrant>),
    Already(Applied),
}

impl Admission for PushAdmission {
    fn check_peer(&self, peer: &Peer) -> Result<(), Refusal> {
        let checked = self.policy.borrow().check_pusher(&peer.uris).map(|_| ());
        if let Err(refusal) = &checked {
            self.audit_refused_grant(peer, refusal);
        }
        checked
    }

    fn turned_away(&self, peer: &Peer, push: PushKind, problem: &Problem) {
        let (reason, detail) = (problem.reason().into(), problem.detail().to_owned());
        let peer = Some(audit_peer(peer));
        match push {
            PushKind::Grant => {
                let check = problem.check();
                let event = GrantRefused { reason, check, detail, peer, ..GrantRefused::default() };
                self.recorder.record(Event::GrantRefused(event), self.clock.now().unix_ms());
            }
            PushKind::Revocation => {
                self.audit_refused_revocation(RevocationRefused {
                    reason,
                    detail,
                    peer,
                    ..RevocationRefused::default()
                });
            }
        }
    }

    fn admit_grant<'a>(&'a self, peer: &'a Peer, body: PushBody) -> Answer<'a, GrantOutcome> {
        Box::pin(async move {
            let received = self.clock.now();
            match self.decide(peer, body, received).await {
                Ok(applied) if applied.already => {
                    self.audit_read(peer, "POST /v1/grants (in force already)", &applied.id, 200);
                    GrantOutcome::AlreadyInForce(self.acknowledge(&applied).await)
                }
                Ok(applied) => GrantOutcome::Applied(self.acknowledge(&applied).await),
                Err(refusal) => {
                    self.audit_refused_grant(peer, &refusal);
                    GrantOutcome::Refused(refusal)
                }
            }
        })
    }

    fn admit_revocation<'a>(
        &'a self,
        peer: &'a Peer,
        body: PushBody,
    ) -> Answer<'a, RevocationOutcome> {
        Box::pin(async move {
            let received = self.clock.now();
            match self.decide_revocation(peer, body, received).await {
                Ok(ended) => RevocationOutcome::InForce { ended },
                Err(refusal) => {
                    let about = refusal.about.as_deref();
                    self.audit_refused_revocation(RevocationRefused {
                        reason: refusal.reason.as_str().into(),
                        detail: refusal.detail.clone(),
                        id: about
                            .and_then(|a| a.jti.as_ref())
                            .map(ToString::to_string)
                            .unwrap_or_default(),
                        peer: Some(audit_peer(peer)),
                    });
                    RevocationOutcome::Refused(refusal)
                }
            }
        })
    }

    fn show_grant<'a>(&'a self, peer: &'a Peer, id: &'a str) -> Answer<'a, ShowOutcome> {
        Box::pin(async move {
            let Ok(id) = GrantId::new(id) else { return ShowOutcome::NotFound };
            let outcome = match self.enforcer.grant(id.clone()).await {
                Err(refusal) => ShowOutcome::Refused(refusal),
                Ok(None) => ShowOutcome::NotFound,
                Ok(Some(view)) => match serde_json::to_value(view) {
                    Ok(value) => ShowOutcome::Found(value),
                    Err(_) => ShowOutcome::NotFound,
                },
            };
            let status = if matches!(outcome, ShowOutcome::Found(_)) { 200 } else { 404 };
            self.audit_read(peer, "GET /v1/grants/{id}", id.as_str(), status);
            outcome
        })
    }

    fn host<'a>(&'a self, peer: &'a Peer) -> Answer<'a, HostView> {
        Box::pin(async move {
            self.audit_read(peer, "GET /v1/host", "", 200);
            let policy = Arc::clone(&self.policy.borrow());
            HostView {
                host_id: policy.host_id().to_string(),
                boot_id: self.boot_id.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                workloads: policy.workloads().map(|w| w.name.to_string()).collect(),
                coverage: self.coverage().await,
            }
        })
    }
}

fn coverage_json(status: &crate::enforcer::EnforcerStatus) -> Value {
    let hooks: Vec<Value> = status
        .coverage
        .iter()
        .map(|c| serde_json::json!({ "hook": c.hook, "attached": c.attached, "detail": c.detail }))
        .collect();
    serde_json::json!({ "enforcing": status.trouble.is_empty(), "hooks": hooks })
}

fn audit_peer(peer: &Peer) -> AuditPeer {
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
