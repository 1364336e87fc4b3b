//! The store's content in memory, so that reads take no disk. Changed only after a commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use grantd_grant::{GrantFacts, GrantId, ReplayAnswer, Selector, UnixTime, WorkloadName};

use super::{
    record::LedgerGrant,
    replay::{Floor, ReplayQuery, covering},
    store::{Applied, Contents, Meta},
};

/// Workload ids below this are reserved: 0 is nobody, 1 the canary.
const FIRST_WORKLOAD_ID: u32 = 16;

#[derive(Debug)]
pub(super) struct Index {
    pub(super) meta: Meta,
    pub(super) live: BTreeMap<GrantId, LedgerGrant>,
    pub(super) floors: HashMap<Selector, Floor>,
    pub(super) revocations: HashMap<GrantId, Applied>,
    pub(super) workloads: HashMap<WorkloadName, u32>,
    known: HashMap<GrantId, Known>,
    by_expiry: BTreeSet<(UnixTime, GrantId)>,
    deadlines: BTreeSet<(u64, GrantId)>,
    /// Live grants by workload.
    counts: HashMap<WorkloadName, usize>,
}

/// What replay protection needs of every grant that is remembered.
#[derive(Debug, Clone, Copy)]
struct Known {
    jws_sha256: [u8; 32],
    issued_at: UnixTime,
    expires: UnixTime,
}

impl Index {
    pub(super) fn new(meta: Meta) -> Self {
        Self {
            meta,
            live: BTreeMap::new(),
            floors: HashMap::new(),
            revocations: HashMap::new(),
            workloads: HashMap::new(),
            known: HashMap::new(),
            by_expiry: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            counts: HashMap::new(),
        }
    }

    pub(super) fn load(contents: Contents) -> Self {
        let Contents { meta, grants, floors, revocations, workloads } = contents;
        let mut index = Self::new(meta);
        index.floors = floors.into_iter().collect();
        index.revocations = revocations.into_iter().collect();
        index.workloads = workloads.into_iter().collect();
        for grant in grants {
            index.put(grant);
        }
        index
    }

    /// Adds a grant or takes over its new state.
    pub(super) fn put(&mut self, grant: LedgerGrant) {
        let id = grant.id().clone();
        let known = Known {
            jws_sha256: *grant.grant.jws_sha256(),
            issued_at: grant.grant.issued_at(),
            expires: grant.grant.expires(),
        };
        self.by_expiry.insert((known.expires, id.clone()));
        self.known.insert(id.clone(), known);
        self.take_live(&id);
        if grant.state.is_live() {
            *self.counts.entry(grant.grant.workload().clone()).or_insert(0) += 1;
            self.deadlines.insert((grant.placement.deadline_boot_ns, id.clone()));
            self.live.insert(id, grant);
        }
    }

    /// Forgets a grant altogether.
    pub(super) fn drop_grant(&mut self, id: &GrantId) {
        if let Some(known) = self.known.remove(id) {
            self.by_expiry.remove(&(known.expires, id.clone()));
        }
        self.take_live(id);
    }

    fn take_live(&mut self, id: &GrantId) {
        let Some(before) = self.live.remove(id) else { return };
        self.deadlines.remove(&(before.placement.deadline_boot_ns, id.clone()));
        if let Some(count) = self.counts.get_mut(before.grant.workload()) {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn count_of(&self, workload: &WorkloadName) -> usize {
        self.counts.get(workload).copied().unwrap_or(0)
    }

    /// Check 10.
    pub(super) fn replay(&self, query: &ReplayQuery) -> ReplayAnswer {
        if let Some(known) = self.known.get(query.id()) {
            return if known.jws_sha256 != query.jws_sha256 {
                ReplayAnswer::OtherHash
            } else if self.live.contains_key(query.id()) {
                ReplayAnswer::Same
            } else {
                // Over for good, by whatever cause: it may not be reported as in force.
                ReplayAnswer::Revoked
            };
        }
        if self.floors.contains_key(&Selector::Jti(query.id().clone())) {
            return ReplayAnswer::Revoked;
        }
        if query.issued_at() < self.meta.min_iat {
            return ReplayAnswer::BelowFloor;
        }
        let refused = |target| {
            self.floors.get(&target).is_some_and(|floor| query.issued_at() <= floor.issued_before)
        };
        if covering(query).any(refused) {
            return ReplayAnswer::SubjectRevoked;
        }
        ReplayAnswer::New
    }

    /// Live grants that one of `selectors` revokes.
    pub(super) fn hit<'a>(
        &'a self,
        selectors: &'a [Selector],
        issued_before: UnixTime,
    ) -> impl Iterator<Item = &'a LedgerGrant> {
        self.live.values().filter(move |live| {
            selectors.iter().any(|selector| selector.revokes(&live.grant, issued_before))
        })
    }

    pub(super) fn next_deadline_boot_ns(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Grants whose replay memory may go: not live, and expired before `horizon`. With them the highest
    /// `iat` among them.
    pub(super) fn forgettable(&self, horizon: UnixTime) -> (Vec<GrantId>, Option<UnixTime>) {
        let old = self.by_expiry.iter().take_while(|(expires, _)| *expires < horizon);
        let ids: Vec<_> =
            old.map(|(_, id)| id).filter(|id| !self.live.contains_key(*id)).cloned().collect();
        let newest = ids.iter().filter_map(|id| Some(self.known.get(id)?.issued_at)).max();
        (ids, newest)
    }

    pub(super) fn next_workload_id(&self) -> Option<u32> {
        match self.workloads.values().max() {
            Some(highest) => highest.checked_add(1),
            None => Some(FIRST_WORKLOAD_ID),
        }
    }

    pub(super) fn remembered(&self) -> usize {
        self.known.len()
    }
}
