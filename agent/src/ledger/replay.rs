//! Check 10: what is asked about a grant, and what revocations leave behind to answer it.

use grantd_grant::{
    GrantFacts, GrantId, Selector, Subject, TxnId, UnixTime, WorkloadName,
    ids::{ActorId, ClientId},
    limits,
    policy::HARD_MAX_TTL,
};
use serde::{Deserialize, Serialize};

/// Every selector other than its `jti` that means a grant with these facts.
pub(super) fn covering(facts: &impl GrantFacts) -> impl Iterator<Item = Selector> {
    [
        Some(Selector::Sub(facts.sub().clone())),
        facts.cid().cloned().map(Selector::Cid),
        facts.act().cloned().map(Selector::Act),
        Some(Selector::Txn(facts.txn().clone())),
        Some(Selector::Workload(facts.workload().clone())),
        Some(Selector::All),
    ]
    .into_iter()
    .flatten()
}

/// What a revocation refuses later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Floor {
    /// Grants with `iat` up to and including this are refused; by id, whenever they were issued.
    pub(super) issued_before: UnixTime,
    /// Kept until then: after that no grant that it refuses could pass the other checks.
    pub(super) until: UnixTime,
}

impl Floor {
    pub(super) fn new(issued_before: UnixTime, now: UnixTime) -> Self {
        let margin = HARD_MAX_TTL + limits::MAX_GRANT_AGE + limits::MAX_SKEW;
        Self { issued_before, until: issued_before.max(now).plus(margin) }
    }

    /// Two revocations of the same target: the wider of each.
    pub(super) fn or(self, other: Option<Self>) -> Self {
        let other = other.unwrap_or(self);
        Self {
            issued_before: self.issued_before.max(other.issued_before),
            until: self.until.max(other.until),
        }
    }
}

/// What check 10 asks about, without the token that travels with the grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayQuery {
    /// SHA-256 of the compact JWS.
    pub jws_sha256: [u8; 32],
    id: GrantId,
    txn: TxnId,
    sub: Subject,
    cid: Option<ClientId>,
    act: Option<ActorId>,
    workload: WorkloadName,
    issued_at: UnixTime,
}

impl ReplayQuery {
    /// The query for a grant at any stage, with the hash of its JWS.
    pub fn new(facts: &impl GrantFacts, jws_sha256: [u8; 32]) -> Self {
        Self {
            jws_sha256,
            id: facts.id().clone(),
            txn: facts.txn().clone(),
            sub: facts.sub().clone(),
            cid: facts.cid().cloned(),
            act: facts.act().cloned(),
            workload: facts.workload().clone(),
            issued_at: facts.issued_at(),
        }
    }
}

impl GrantFacts for ReplayQuery {
    fn id(&self) -> &GrantId {
        &self.id
    }
    fn txn(&self) -> &TxnId {
        &self.txn
    }
    fn sub(&self) -> &Subject {
        &self.sub
    }
    fn cid(&self) -> Option<&ClientId> {
        self.cid.as_ref()
    }
    fn act(&self) -> Option<&ActorId> {
        self.act.as_ref()
    }
    fn workload(&self) -> &WorkloadName {
        &self.workload
    }
    fn issued_at(&self) -> UnixTime {
        self.issued_at
    }
}
