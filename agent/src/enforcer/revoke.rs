//! Revocations: in the ledger first, so that no restart brings a grant back, then in the kernel.

use grantd_audit::Event;
use grantd_audit::event::{Peer, RevocationApplied};
use grantd_grant::{Reason, Refusal, Selector, UnixTime, VerifiedRevocation};

use super::Enforcer;
use super::audit::EndedBy;
use super::command::Revoked;
use crate::clock::Now;
use crate::ledger::{self, EndCause, LedgerGrant};
use crate::text::chain;

impl Enforcer {
    /// A pushed revocation. What it means is out of the kernel when this returns, also when the ledger
    /// could not record it, which then is the refusal.
    pub(super) fn revoke(
        &mut self,
        revocation: &VerifiedRevocation,
        peer: &Peer,
        received: Now,
    ) -> Result<Revoked, Refusal> {
        let now = self.clock.now();
        let meant = self.meant(revocation.selectors(), revocation.issued_before());
        let ended = match self.ledger.revoke(revocation, now) {
            Ok(ledger::Revoked::Applied { ended }) => ended,
            Ok(ledger::Revoked::Repeated) => Vec::new(),
            Err(error) => {
                let id = revocation.jti().as_str();
                // Its failure is the lesser one, and is told where it is found out.
                let _ = self.finish_revocation(&meant, EndCause::Revoked, peer, id, now);
                self.note_ledger_trouble(&error);
                return Err(Refusal::new(Reason::LedgerFailed, chain(&error)));
            }
        };
        let id = revocation.jti().to_string();
        let cut = self.finish_revocation(&ended, EndCause::Revoked, peer, &id, now);
        let event = RevocationApplied {
            id,
            seq: Some(revocation.seq()),
            selectors: revocation.selectors().iter().map(ToString::to_string).collect(),
            issued_before_s: Some(revocation.issued_before().as_secs()),
            ended: ended.iter().map(|g| g.id().to_string()).collect(),
            peer: Some(peer.clone()),
            apply_us: Some(since_us(received, self.clock.now())),
        };
        self.recorder.record(Event::RevocationApplied(event), now.unix_ms());
        self.standing(ended, cut)
    }

    /// Root's own revocation.
    pub(super) fn revoke_locally(
        &mut self,
        selector: Selector,
        peer: &Peer,
    ) -> Result<Revoked, Refusal> {
        let now = self.clock.now();
        let id = format!("local-{}", now.wall_ns);
        let meant = self.meant(std::slice::from_ref(&selector), UnixTime(u64::MAX));
        let ended = match self.ledger.revoke_locally(selector.clone(), now) {
            Ok(ended) => ended,
            Err(error) => {
                // As above.
                let _ = self.finish_revocation(&meant, EndCause::RevokedLocally, peer, &id, now);
                self.note_ledger_trouble(&error);
                return Err(Refusal::new(Reason::LedgerFailed, chain(&error)));
            }
        };
        let cut = self.finish_revocation(&ended, EndCause::RevokedLocally, peer, &id, now);
        let event = RevocationApplied {
            id,
            selectors: vec![selector.to_string()],
            ended: ended.iter().map(|g| g.id().to_string()).collect(),
            peer: Some(peer.clone()),
            apply_us: Some(since_us(now, self.clock.now())),
            ..RevocationApplied::default()
        };
        self.recorder.record(Event::RevocationApplied(event), now.unix_ms());
        self.standing(ended, cut)
    }

    fn finish_revocation(
        &mut self,
        ended: &[LedgerGrant],
        cause: EndCause,
        peer: &Peer,
        id: &str,
        now: Now,
    ) -> Result<(), String> {
        for grant in ended {
            self.close_in_kernel(grant, cause);
        }
        let cut = if ended.is_empty() { Ok(()) } else { self.cut_grants(ended) };
        let by = EndedBy { peer: Some(peer), revocation: Some(id), ..EndedBy::default() };
        for grant in ended {
            self.audit_ended(grant, cause, &by, now);
        }
        cut
    }

    fn meant(&self, selectors: &[Selector], issued_before: UnixTime) -> Vec<LedgerGrant> {
        self.ledger.matching(selectors, issued_before).cloned().collect()
    }

    /// Acknowledges only what the kernel confirmed, connections that were cut included.
    fn standing(
        &self,
        ended: Vec<LedgerGrant>,
        cut: Result<(), String>,
    ) -> Result<Revoked, Refusal> {
        match self.trouble.as_ref().or(cut.as_ref().err()) {
            None => Ok(Revoked { ended: ended.iter().map(|g| g.id().to_string()).collect() }),
            Some(what) => Err(Refusal::new(Reason::KernelFailed, what.clone())),
        }
    }
}

pub(super) const fn since_us(from: Now, to: Now) -> u64 {
    to.boot_ns.saturating_sub(from.boot_ns) / 1_000
}
