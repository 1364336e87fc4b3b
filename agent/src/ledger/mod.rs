//! The ledger: which grants were accepted, which ended, what was revoked. Durable and synchronous.
//!
//! Owned by one task, which hands in the time. A change is one transaction that is on disk when the
//! method returns. What opens something (accepting, thawing) is in memory only after that; what closes
//! something (ending, revoking, freezing) is in memory whatever the disk says, and a disk that failed is
//! tried again. What is on disk is the truth after a crash:
//!
//! - a grant that was accepted and not marked in force is [`State::Accepted`] after a restart: to be
//!   programmed or ended by whoever reconciles the ledger with the kernel;
//! - a grant is remembered until five minutes after its `exp`, a revocation until nothing that it
//!   refuses could pass the other checks. When either is forgotten, the floor for `iat` moves past it:
//!   a wall clock that is set back does not bring it back.

mod error;
mod index;
mod open;
mod pending;
mod record;
mod replay;
mod revoke;
mod store;

use grantd_grant::{GrantId, ReplayAnswer, UnixTime, VerifiedGrant, WorkloadName};

pub use error::{AcceptError, LedgerError};
pub use open::Opened;
pub use record::{EndCause, LedgerGrant, Placement, State};
pub use replay::ReplayQuery;
pub use revoke::Revoked;
pub use store::StoreError;

use crate::clock::Now;
use index::Index;
use open::Place;
use pending::Pending;
use store::{Change, Meta, Store};

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    place: Place,
    store: Store,
    index: Index,
    pending: Pending,
}

impl Ledger {
    /// Check 10: what is remembered of this grant, its subject and its time. Reads no disk.
    ///
    /// A grant that is over, by whatever cause, is answered [`ReplayAnswer::Revoked`].
    #[must_use]
    pub fn replay(&self, query: &ReplayQuery) -> ReplayAnswer {
        self.index.replay(query)
    }

    /// Whether a grant may be accepted now. Asks check 10 again, since time has passed since it was
    /// asked.
    ///
    /// # Errors
    /// [`AcceptError::Frozen`] or [`AcceptError::Replay`].
    pub fn check_accept(&self, grant: &VerifiedGrant) -> Result<(), AcceptError> {
        if self.index.meta.frozen {
            return Err(AcceptError::Frozen);
        }
        let answer = self.replay(&ReplayQuery::new(grant, *grant.jws_sha256()));
        if answer == ReplayAnswer::New { Ok(()) } else { Err(AcceptError::Replay(answer)) }
    }

    /// Records grants that [`Self::check_accept`] took as accepted, in one transaction.
    ///
    /// # Errors
    /// [`LedgerError::Write`]; then none is accepted, and none may be programmed.
    pub fn accept_many(
        &mut self,
        grants: impl IntoIterator<Item = (VerifiedGrant, Placement)>,
    ) -> Result<(), LedgerError> {
        let accepted = grants.into_iter().map(|(grant, placement)| LedgerGrant {
            grant,
            placement,
            state: State::Accepted,
        });
        let accepted: Vec<LedgerGrant> = accepted.collect();
        let changes: Vec<_> = accepted.iter().map(Change::PutGrant).collect();
        let written = self.commit("accept grants", &changes);
        match &written {
            Ok(()) => accepted.into_iter().for_each(|grant| self.index.put(grant)),
            // A failed transaction may be on disk all the same.
            Err(_) => accepted.iter().for_each(|grant| self.pending.drop_grant(grant.id())),
        }
        written
    }

    /// Records a live grant as read back from the kernel and, in the same transaction, the one that it
    /// replaces as ended. Does nothing for grants that are not live.
    ///
    /// Without a replaced grant this waits for the next transaction: after a crash the grant is
    /// [`State::Accepted`] again, which reconciling settles.
    ///
    /// # Errors
    /// [`LedgerError::Write`]; in memory it is done all the same.
    pub fn mark_in_force(
        &mut self,
        id: &GrantId,
        replaced: Option<&GrantId>,
        now: Now,
    ) -> Result<(), LedgerError> {
        let state = State::Ended { cause: EndCause::Replaced, at_unix_ms: now.unix_ms() };
        let ended = replaced.and_then(|old| self.with_state(old, state));
        let at_once = ended.is_some();
        for grant in self.with_state(id, State::InForce).into_iter().chain(ended) {
            self.note(grant);
        }
        if at_once { self.flush("replace a grant") } else { Ok(()) }
    }

    /// Ends a live grant. Does nothing for one that is not live: the first cause stays.
    ///
    /// # Errors
    /// [`LedgerError::Write`].
    pub fn end(&mut self, id: &GrantId, cause: EndCause, now: Now) -> Result<(), LedgerError> {
        self.end_many([(id, cause)], now)
    }

    /// Ends live grants in one transaction.
    ///
    /// # Errors
    /// [`LedgerError::Write`]; in memory they have ended all the same.
    pub fn end_many<'a>(
        &mut self,
        ends: impl IntoIterator<Item = (&'a GrantId, EndCause)>,
        now: Now,
    ) -> Result<(), LedgerError> {
        let at_unix_ms = now.unix_ms();
        let ended: Vec<LedgerGrant> = ends
            .into_iter()
            .filter_map(|(id, cause)| self.with_state(id, State::Ended { cause, at_unix_ms }))
            .collect();
        ended.into_iter().for_each(|grant| self.note(grant));
        self.flush("end grants")
    }

    /// Forgets a grant that is accepted and not in force, as if it had never come, so that it can be
    /// pushed again. For a kernel that did not take it.
    ///
    /// # Errors
    /// [`LedgerError::Write`].
    pub fn abandon(&mut self, id: &GrantId) -> Result<(), LedgerError> {
        let accepted = self.index.live.get(id).is_some_and(|live| live.state == State::Accepted);
        if accepted {
            self.index.drop_grant(id);
            self.pending.drop_grant(id);
        }
        self.flush("abandon a grant")
    }

    /// Brings deadlines of live grants forward, after a step of the wall clock. A later deadline than
    /// the recorded one is ignored.
    ///
    /// # Errors
    /// [`LedgerError::Write`].
    pub fn shorten<'a>(
        &mut self,
        deadlines_boot_ns: impl IntoIterator<Item = (&'a GrantId, u64)>,
    ) -> Result<(), LedgerError> {
        let earlier: Vec<LedgerGrant> = deadlines_boot_ns
            .into_iter()
            .filter_map(|(id, deadline)| {
                let mut grant = self.index.live.get(id)?.clone();
                let shorter = deadline < grant.placement.deadline_boot_ns;
                grant.placement.deadline_boot_ns = deadline;
                shorter.then_some(grant)
            })
            .collect();
        earlier.into_iter().for_each(|grant| self.note(grant));
        self.flush("bring deadlines forward")
    }

    /// The kernel's id of a workload: the same for the same name for as long as the ledger lives, never
    /// given to another. Ids below 16 are reserved.
    ///
    /// # Errors
    /// [`LedgerError::Write`] or [`LedgerError::NoWorkloadIds`].
    pub fn workload_id(&mut self, name: &WorkloadName) -> Result<u32, LedgerError> {
        if let Some(id) = self.index.workloads.get(name) {
            return Ok(*id);
        }
        let id = self.index.next_workload_id().ok_or(LedgerError::NoWorkloadIds)?;
        let change = Change::Workload(name, id);
        self.commit("record a workload id", &[change])?;
        self.index.workloads.insert(name.clone(), id);
        Ok(id)
    }

    /// From now on, also after a restart, no grant is accepted.
    ///
    /// # Errors
    /// [`LedgerError`]; frozen all the same, until a restart.
    pub fn freeze(&mut self) -> Result<(), LedgerError> {
        self.index.meta.frozen = true;
        self.pending.meta();
        self.place.mark_frozen()?;
        self.flush("freeze")
    }

    /// Accepts grants again.
    ///
    /// # Errors
    /// [`LedgerError`]; then still frozen.
    pub fn thaw(&mut self) -> Result<(), LedgerError> {
        let meta = Meta { frozen: false, ..self.index.meta.clone() };
        self.commit("thaw", &[Change::Meta(&meta)])?;
        self.place.unmark_frozen()?;
        self.index.meta = meta;
        Ok(())
    }

    /// Whether new grants are frozen.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.index.meta.frozen
    }

    /// Grants with an earlier `iat` are refused.
    #[must_use]
    pub fn floor(&self) -> UnixTime {
        self.index.meta.min_iat
    }

    /// Highest `seq` of a revocation so far; 0 before the first.
    #[must_use]
    pub fn revocation_seq(&self) -> u64 {
        self.index.meta.revocation_seq
    }

    /// Live grants, ordered by id.
    pub fn live(&self) -> impl Iterator<Item = &LedgerGrant> {
        self.index.live.values()
    }

    /// Live grants whose ids come after `id`, ordered by id.
    pub fn live_after<'a>(&'a self, id: &GrantId) -> impl Iterator<Item = &'a LedgerGrant> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.index.live.range((Excluded(id), Unbounded)).map(|(_, grant)| grant)
    }

    /// A live grant.
    #[must_use]
    pub fn get(&self, id: &GrantId) -> Option<&LedgerGrant> {
        self.index.live.get(id)
    }

    /// A grant that is remembered, live or over; reads the disk.
    ///
    /// # Errors
    /// [`LedgerError::Write`], when the store cannot be read.
    pub fn find(&self, id: &GrantId) -> Result<Option<LedgerGrant>, LedgerError> {
        if let Some(live) = self.get(id) {
            return Ok(Some(live.clone()));
        }
        let read = self.store.grant(id);
        read.map_err(|source| LedgerError::Write { operation: "read a grant", source })
    }

    /// How many grants are live.
    #[must_use]
    pub fn count(&self) -> usize {
        self.index.live.len()
    }

    /// How many grants are remembered, live or over.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.index.remembered()
    }

    /// Earliest deadline of a live grant, `CLOCK_BOOTTIME` nanoseconds.
    #[must_use]
    pub fn next_deadline_boot_ns(&self) -> Option<u64> {
        self.index.next_deadline_boot_ns()
    }

    /// Live grants of which a deadline has passed, by either clock.
    pub fn past(&self, now: Now) -> impl Iterator<Item = &LedgerGrant> {
        self.live().filter(move |grant| grant.is_past(now.boot_ns, now.tai_ns))
    }

    /// Whether everything in memory is on disk.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many live grants a workload has.
    #[must_use]
    pub fn count_of(&self, workload: &WorkloadName) -> usize {
        self.index.count_of(workload)
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// [`LedgerError`]; it waits on.
    pub fn settle(&mut self) -> Result<(), LedgerError> {
        self.flush("write what waits")
    }

    fn with_state(&self, id: &GrantId, state: State) -> Option<LedgerGrant> {
        self.index.live.get(id).map(|live| LedgerGrant { state, ..live.clone() })
    }

    /// In memory at once, on disk with the next transaction.
    fn note(&mut self, grant: LedgerGrant) {
        self.pending.grant(grant.clone());
        self.index.put(grant);
    }

    fn flush(&mut self, operation: &'static str) -> Result<(), LedgerError> {
        if self.pending.is_empty() { Ok(()) } else { self.commit(operation, &[]) }
    }

    /// One transaction, durable when this returns: what waits, then `changes`. A store that has failed is
    /// opened anew first.
    fn commit(
        &mut self,
        operation: &'static str,
        changes: &[Change<'_>],
    ) -> Result<(), LedgerError> {
        if self.store.failed() {
            self.store.close();
            self.store = self.place.reopen()?;
        }
        let waiting = self.pending.changes(&self.index.meta);
        let written = self.store.commit(waiting.iter().chain(changes));
        written.map_err(|source| LedgerError::Write { operation, source })?;
        self.pending = Pending::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
