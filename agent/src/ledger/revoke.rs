//! Revoking, and forgetting what is over.

use std::time::Duration;

use grantd_grant::{Selector, UnixTime, VerifiedRevocation};

use super::{
    EndCause, Ledger, LedgerError, LedgerGrant, State,
    replay::Floor,
    store::{Applied, Change, Meta},
};
use crate::clock::Now;

/// How long a grant is remembered after its `exp`.
const REPLAY_MEMORY: Duration = Duration::from_secs(5 * 60);

/// What a pushed revocation did.
#[derive(Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It is recorded; these grants ended with it and are to be taken out of the kernel.
    Applied {
        /// As they were while live.
        ended: Vec<LedgerGrant>,
    },
    /// This very revocation was recorded before, which did everything that it says.
    Repeated,
}

impl Ledger {
    /// Records a pushed revocation, ends the live grants that it means, and refuses those to come.
    ///
    /// # Errors
    /// [`LedgerError::Write`]; in memory it is done all the same, and the caller ends in the kernel what
    /// [`Self::matching`] named before.
    pub fn revoke(
        &mut self,
        revocation: &VerifiedRevocation,
        now: Now,
    ) -> Result<Revoked, LedgerError> {
        let (jti, seq) = (revocation.jti(), revocation.seq());
        let same = |applied: &Applied| applied.jws_sha256 == *revocation.jws_sha256();
        if self.index.revocations.get(jti).is_some_and(same) {
            return Ok(Revoked::Repeated);
        }
        // Revoking is the safe direction: one that comes out of order counts all the same.
        let newest = self.index.meta.revocation_seq.max(seq);
        let issued_before = revocation.issued_before();
        let floor = Floor::new(issued_before, now.unix());
        let meta = Meta { revocation_seq: newest, ..self.index.meta.clone() };
        let applied = Applied { seq, jws_sha256: *revocation.jws_sha256(), until: floor.until };
        let extra = [Change::Meta(&meta), Change::PutRevocation(jti, applied)];
        let selectors = revocation.selectors();
        let ended = self.apply(selectors, issued_before, floor, EndCause::Revoked, now, extra)?;
        self.index.meta = meta;
        self.index.revocations.insert(jti.clone(), applied);
        Ok(Revoked::Applied { ended })
    }

    /// Revokes on the word of this host's root: live grants that `selector` means end, and ones issued
    /// up to now are refused. Live grants issued ahead of this host's clock end as well.
    ///
    /// # Errors
    /// [`LedgerError::Write`]; the caller ends in the kernel what it can all the same.
    pub fn revoke_locally(
        &mut self,
        selector: Selector,
        now: Now,
    ) -> Result<Vec<LedgerGrant>, LedgerError> {
        let everything = UnixTime::MAX;
        let floor = Floor::new(now.unix(), now.unix());
        self.apply(&[selector], everything, floor, EndCause::RevokedLocally, now, [])
    }

    /// Which live grants a revocation of `selectors` would end: for ending them when the ledger fails.
    pub fn matching<'a>(
        &'a self,
        selectors: &'a [Selector],
        issued_before: UnixTime,
    ) -> impl Iterator<Item = &'a LedgerGrant> {
        self.index.hit(selectors, issued_before)
    }

    fn apply<'a>(
        &mut self,
        selectors: &[Selector],
        issued_before: UnixTime,
        floor: Floor,
        cause: EndCause,
        now: Now,
        extra: impl IntoIterator<Item = Change<'a>>,
    ) -> Result<Vec<LedgerGrant>, LedgerError> {
        let floors: Vec<_> = selectors
            .iter()
            .map(|selector| (selector, floor.or(self.index.floors.get(selector).copied())))
            .collect();
        let live: Vec<_> = self.index.hit(selectors, issued_before).cloned().collect();
        let state = State::Ended { cause, at_unix_ms: now.unix_ms() };
        let ended: Vec<_> = live.iter().map(|g| LedgerGrant { state, ..g.clone() }).collect();
        let mut changes: Vec<_> = extra.into_iter().collect();
        changes.extend(floors.iter().map(|(selector, floor)| Change::PutFloor(selector, *floor)));
        changes.extend(ended.iter().map(Change::PutGrant));
        let written = self.commit("record a revocation", &changes);
        // In memory whatever the disk says: it is the safe direction, and the disk is tried again.
        for (selector, floor) in floors {
            self.index.floors.insert(selector.clone(), floor);
            if written.is_err() {
                self.pending.floor(selector.clone(), floor);
            }
        }
        for grant in ended {
            if written.is_err() {
                self.pending.grant(grant.clone());
            }
            self.index.put(grant);
        }
        written.map(|()| live)
    }

    /// Forgets what cannot matter any more; answers how many grants it forgot.
    ///
    /// # Errors
    /// [`LedgerError::Write`].
    pub fn prune(&mut self, now: Now) -> Result<usize, LedgerError> {
        let unix = now.unix();
        let horizon = UnixTime(unix.as_secs().saturating_sub(REPLAY_MEMORY.as_secs()));
        let (grants, newest) = self.index.forgettable(horizon);
        let floors = self.index.floors.iter().filter(|(_, floor)| floor.until < unix);
        let floors: Vec<_> = floors.map(|(selector, floor)| (selector.clone(), *floor)).collect();
        let revocations = self.index.revocations.iter().filter(|(_, a)| a.until < unix);
        let revocations: Vec<_> = revocations.map(|(jti, _)| jti.clone()).collect();
        if grants.is_empty() && floors.is_empty() && revocations.is_empty() {
            return Ok(0);
        }
        // Anything issued this early is refused for its age as long as the clock is right.
        let passed = floors.iter().map(|(_, floor)| floor.issued_before).chain(newest).max();
        let mut meta = self.index.meta.clone();
        if let Some(passed) = passed {
            meta.min_iat = meta.min_iat.max(UnixTime(passed.as_secs().saturating_add(1)));
        }
        let mut changes = vec![Change::Meta(&meta)];
        changes.extend(grants.iter().map(Change::DropGrant));
        changes.extend(floors.iter().map(|(selector, _)| Change::DropFloor(selector)));
        changes.extend(revocations.iter().map(Change::DropRevocation));
        self.commit("forget what is over", &changes)?;
        grants.iter().for_each(|id| self.index.drop_grant(id));
        for (selector, _) in &floors {
            self.index.floors.remove(selector);
        }
        for jti in &revocations {
            self.index.revocations.remove(jti);
        }
        self.index.meta = meta;
        Ok(grants.len())
    }
}
