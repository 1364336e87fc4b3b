//! From a pushed body to a verified grant: the checks in their order, and one audit event for each
//! refusal. Owns nothing; what is decided here is put into force by the enforcer.

mod audit;
mod repeats;
mod terms;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use grantd_audit::Recorder;
use grantd_grant::{
    BindError, FreshGrant, GrantId, HostPolicy, InvalidJwks, OktaKeys, Push, Reason, Refusal,
    ReplayOutcome, RevocationPush, SignedGrant, VerifiedGrant,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::audit::audit_peer;
pub use self::repeats::Repeats;
pub use self::terms::{Changing, Terms};
use crate::clock::{Clock, Now};
use crate::coverage::State;
use crate::enforcer::{Applied, EnforcerHandle};
use crate::intake::{
    Acknowledgement, Admission, Answer, Asked, GrantOutcome, HostView, Peer, Problem, PushBody,
    PushKind, RevocationOutcome, ShowOutcome,
};
use crate::keys::{KeyLookupError, OktaKeyStore};
use crate::ledger::ReplayQuery;

/// Decides on pushes.
pub struct PushAdmission {
    /// What grants are decided with; a reload changes it.
    pub terms: watch::Receiver<Terms>,
    /// Okta's keys.
    pub okta: OktaKeyStore,
    /// Who puts into force.
    pub enforcer: EnforcerHandle,
    /// Where refusals are recorded.
    pub recorder: Recorder,
    /// Counts what peers that may ask nothing are refused.
    pub refused_peers: Arc<Repeats>,
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
        let (Terms { policy, keys, .. }, epoch) =
            terms::settled(&self.terms, || self.enforcer.epoch()).await?;
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
        // Made while the grant is still here: its record has to say which grant it was.
        let over = signed.refuse(Reason::GrantRevoked, "this grant is over");
        match signed.check_replay(answer) {
            Ok(fresh) => Ok(Replayed::Fresh(Box::new(fresh))),
            Err(ReplayOutcome::Refused(refusal)) => Err(refusal),
            Err(ReplayOutcome::AlreadyAccepted(id)) => match self.enforcer.in_force(id).await? {
                Some(applied) => Ok(Replayed::Already(applied)),
                None => Err(over),
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
        let Terms { policy, keys, .. } = self.terms.borrow().clone();
        let pusher = policy.check_pusher(&peer.uris)?;
        let revocation =
            RevocationPush::parse(&body)?.verify(&pusher, &keys, &policy, received.unix())?;
        let revoked = self.enforcer.revoke(revocation, audit_peer(peer), received).await?;
        Ok(revoked.ended.len() as u64)
    }

    async fn coverage(&self, detail: Detail) -> Value {
        match self.enforcer.coverage().await {
            Ok(status) => coverage_json(&status, detail),
            Err(_) => Value::Null,
        }
    }

    async fn acknowledge(&self, applied: &Applied) -> Acknowledgement {
        Acknowledgement {
            id: applied.id.clone(),
            deadline_unix_ms: applied.deadline_unix_ms,
            coverage: self.coverage(Detail::NotClosed).await,
        }
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
    fn check_peer(&self, peer: &Peer, asked: Asked) -> Result<(), Refusal> {
        let checked = self.terms.borrow().policy.check_pusher(&peer.uris).map(|_| ());
        if let Err(refusal) = &checked {
            self.audit_refused_peer(peer, asked, refusal);
        }
        checked
    }

    fn turned_away(&self, peer: &Peer, push: PushKind, problem: &Problem) {
        self.audit_turned_away(peer, push, problem);
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
                    self.audit_refused_revocation(peer, &refusal);
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
            let policy = Arc::clone(&self.terms.borrow().policy);
            HostView {
                host_id: policy.host_id().to_string(),
                boot_id: self.boot_id.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                workloads: policy.workloads().map(|w| w.name.to_string()).collect(),
                coverage: self.coverage(Detail::All).await,
            }
        })
    }
}

/// How much of the known ways out an answer tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Each, with its reason: for who asks about the host.
    All,
    /// Only the IDs of those that are not closed: for every acknowledgement.
    NotClosed,
}

fn coverage_json(status: &crate::enforcer::EnforcerStatus, detail: Detail) -> Value {
    let hooks: Vec<Value> = status
        .coverage
        .iter()
        .map(|c| json!({ "hook": c.hook, "attached": c.attached, "detail": c.detail }))
        .collect();
    let mut coverage = json!({ "enforcing": status.trouble.is_empty(), "hooks": hooks });
    let with = |wanted: State| {
        let found = status.threats.iter().filter(move |t| t.state == wanted);
        found.map(|t| t.id).collect::<Vec<_>>()
    };
    if let Some(members) = coverage.as_object_mut() {
        members.insert("partly".to_owned(), json!(with(State::Partly)));
        members.insert("open".to_owned(), json!(with(State::Open)));
        if detail == Detail::All {
            let threats = status.threats.iter().map(|t| {
                json!({ "id": t.id, "way": t.way, "state": t.state.as_str(), "reason": t.reason, "doc": t.doc })
            });
            members.insert("threats".to_owned(), threats.collect());
        }
    }
    coverage
}
