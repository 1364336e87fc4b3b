//! What memory holds and the disk does not: notes that wait for the next transaction, and everything in
//! the closing direction that a failing disk did not take. Both go with the next transaction.

use std::collections::{BTreeMap, BTreeSet};

use grantd_grant::{GrantId, Selector};

use super::{
    record::LedgerGrant,
    replay::Floor,
    store::{Change, Meta},
};

#[derive(Debug, Default)]
pub(super) struct Pending {
    grants: BTreeMap<GrantId, LedgerGrant>,
    dropped: BTreeSet<GrantId>,
    floors: BTreeMap<Selector, Floor>,
    meta: bool,
}

impl Pending {
    pub(super) fn grant(&mut self, grant: LedgerGrant) {
        self.dropped.remove(grant.id());
        self.grants.insert(grant.id().clone(), grant);
    }

    pub(super) fn drop_grant(&mut self, id: &GrantId) {
        self.grants.remove(id);
        self.dropped.insert(id.clone());
    }

    pub(super) fn floor(&mut self, selector: Selector, floor: Floor) {
        self.floors.insert(selector, floor);
    }

    pub(super) fn meta(&mut self) {
        self.meta = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.dropped.is_empty() && self.floors.is_empty() && !self.meta
    }

    /// What has to be written before anything newer.
    pub(super) fn changes<'a>(&'a self, meta: &'a Meta) -> Vec<Change<'a>> {
        let mut changes: Vec<Change<'a>> = self.dropped.iter().map(Change::DropGrant).collect();
        changes.extend(self.grants.values().map(Change::PutGrant));
        changes
            .extend(self.floors.iter().map(|(selector, floor)| Change::PutFloor(selector, *floor)));
        changes.extend(self.meta.then_some(Change::Meta(meta)));
        changes
    }
}
