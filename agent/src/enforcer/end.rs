//! Ending grants: at their deadline, and for every cause but a revocation, which is recorded first.

use std::collections::BTreeSet;

use grantd_audit::event::FindingKind;
use grantd_common::{GrantRef, WorkloadEntry};
use grantd_grant::{ControlPlaneKeys, GrantId, KeyId, Reason, Refusal};

use super::Enforcer;
use super::audit::EndedBy;
use crate::compile::Deadlines;
use crate::kernel::Op;
use crate::ledger::{EndCause, LedgerError, LedgerGrant};
use crate::text::chain;

/// A clock that moved less than this is being slewed, not stepped.
const STEP_NS: u64 = 1_000_000_000;

impl Enforcer {
    /// Takes live grants out of the kernel, then out of the ledger. Returns how many ended.
    pub(super) fn end_grants(&mut self, ids: &[GrantId], cause: EndCause, by: &EndedBy<'_>) -> u64 {
        let ended: Vec<LedgerGrant> =
            ids.iter().filter_map(|id| self.ledger.get(id).cloned()).collect();
        if ended.is_empty() {
            return 0;
        }
        if cause == EndCause::Expired {
            // The kernel denies since the deadline. While the slot still says so, the kernel's own records of
            // the cut do as well.
            self.cut_or_retry(&ended);
        }
        for grant in &ended {
            self.close_in_kernel(grant, cause);
        }
        if cause != EndCause::Expired {
            self.cut_or_retry(&ended);
        }
        let now = self.clock.now();
        let ended_with = ended.iter().map(|g| (g.id(), cause));
        if let Err(error) = self.ledger.end_many(ended_with, now) {
            self.note_ledger_trouble(&error);
        }
        for grant in &ended {
            self.audit_ended(grant, cause, by, now);
        }
        ended.len() as u64
    }

    /// A cut that fails has been told and is tried again; the grants end all the same.
    fn cut_or_retry(&mut self, ended: &[LedgerGrant]) {
        let _ = self.cut_grants(ended);
    }

    /// Ends one grant's slot and removes its rules.
    pub(super) fn close_in_kernel(&mut self, grant: &LedgerGrant, cause: EndCause) {
        let (slot, generation) = (grant.placement.slot, grant.placement.generation);
        let why = if cause == EndCause::Expired { "expired" } else { "revoked" };
        self.directory.put_end_of_grant(GrantRef::new(slot, generation), why);
        let ops = self.compiler.close(grant.placement.slot);
        let result = self.kernel.apply_all(&ops).and_then(|()| self.kernel.read_back(&ops));
        if let Err(error) = result {
            self.note_trouble(format!(
                "grant {} is not wholly out of the kernel: {}",
                grant.id(),
                chain(&error)
            ));
        }
    }

    /// Ends what is past its deadline. The kernel denies since then by itself.
    pub(super) fn expire(&mut self) {
        let past: Vec<GrantId> =
            self.ledger.past(self.clock.now()).map(|g| g.id().clone()).collect();
        self.end_grants(&past, EndCause::Expired, &EndedBy::default());
    }

    /// The wall clock was set: deadlines that are now nearer are brought forward, none is put off.
    pub(super) fn clock_stepped(&mut self) {
        let now = self.clock.now();
        let mut shortened = Vec::new();
        for live in self.ledger.live() {
            let left = (live.grant.expires().as_secs().saturating_mul(1_000_000_000))
                .saturating_sub(now.wall_ns);
            let boot_ns = now.boot_ns.saturating_add(left).max(1);
            if boot_ns.saturating_add(STEP_NS) < live.placement.deadline_boot_ns {
                shortened.push((live.id().clone(), live.placement, boot_ns));
            }
        }
        let detail = format!(
            "the wall clock was set; {} grants end earlier for it, none later",
            shortened.len()
        );
        tracing::warn!("{detail}");
        self.audit_finding(FindingKind::ClockStep, detail);
        for (_, placement, boot_ns) in &shortened {
            let deadlines = Deadlines { boot_ns: *boot_ns, tai_ns: placement.deadline_tai_ns };
            let ops = self.compiler.shorten(placement.slot, deadlines);
            if let Err(error) = self.kernel.apply_all(&ops) {
                self.note_trouble(format!(
                    "a deadline could not be brought forward: {}",
                    chain(&error)
                ));
            }
        }
        let earlier = shortened.iter().map(|(id, _, boot_ns)| (id, *boot_ns));
        if let Err(error) = self.ledger.shorten(earlier) {
            self.note_ledger_trouble(&error);
        }
        self.expire();
    }

    /// Ends every grant whose Okta token was signed with a key that Okta withdrew.
    pub(super) fn okta_key_withdrawn(&mut self, kid: &KeyId) {
        self.next_epoch();
        let ids = self.live_where(|g| g.grant.okta_kid() == kid);
        let detail = format!("Okta withdrew key {kid}");
        let by = EndedBy { detail: Some(&detail), ..EndedBy::default() };
        self.end_grants(&ids, EndCause::KeyWithdrawn, &by);
    }

    /// Ends every grant that was signed with a control-plane key that is not pinned any more.
    pub(super) fn retain_control_plane_keys(
        &mut self,
        keys: &ControlPlaneKeys,
        removed: &BTreeSet<KeyId>,
    ) -> u64 {
        let ids = self.live_where(|g| {
            let kid = g.grant.control_plane_kid();
            !keys.contains(kid) || removed.contains(kid)
        });
        let by = EndedBy {
            detail: Some("its control-plane key is not pinned any more"),
            ..EndedBy::default()
        };
        self.end_grants(&ids, EndCause::KeyWithdrawn, &by)
    }

    /// Refuses new grants, or takes them again.
    pub(super) fn set_frozen(&mut self, frozen: bool) -> Result<(), Refusal> {
        let result = if frozen { self.ledger.freeze() } else { self.ledger.thaw() };
        result.map_err(|error| {
            self.note_ledger_trouble(&error);
            Refusal::new(Reason::LedgerFailed, chain(&error))
        })
    }

    fn live_where(&self, wanted: impl Fn(&LedgerGrant) -> bool) -> Vec<GrantId> {
        self.ledger.live().filter(|g| wanted(g)).map(|g| g.id().clone()).collect()
    }

    /// Something is not as the ledger says. It is said aloud, and until a reconciliation succeeds no
    /// new grant is taken.
    pub(super) fn note_trouble(&mut self, what: String) {
        if self.trouble.is_none() {
            tracing::error!(what, "enforcement needs attention");
            self.audit_finding(FindingKind::NotEnforcing, what.clone());
        }
        self.trouble.get_or_insert(what);
    }

    /// The disk did not take something. What closes access is done all the same; no new grant is taken
    /// until the disk takes everything.
    pub(super) fn note_ledger_trouble(&mut self, error: &LedgerError) {
        let what = format!("the ledger: {}", chain(error));
        if self.ledger_trouble.is_none() {
            tracing::error!(what, "the ledger needs attention");
            self.audit_finding(FindingKind::NotEnforcing, what.clone());
        }
        self.ledger_trouble.get_or_insert(what);
    }

    /// Writes to the ledger what waits, and says so when it works again.
    pub(super) fn flush_ledger(&mut self) {
        if self.ledger.settled() && self.ledger_trouble.is_none() {
            return;
        }
        match self.ledger.settle() {
            Ok(()) if self.ledger_trouble.take().is_some() => {
                tracing::info!("the ledger takes everything again");
            }
            Ok(()) => {}
            Err(error) => self.note_ledger_trouble(&error),
        }
    }

    /// Compares the kernel with the model again after trouble, and mends what differs.
    pub(super) fn retry_trouble(&mut self) {
        if self.trouble.is_none() {
            return;
        }
        match self.reconcile() {
            Ok(()) => {
                tracing::info!("the kernel holds what the ledger says again");
                self.trouble = None;
            }
            Err(error) => tracing::debug!(error, "reconciling failed again"),
        }
    }

    /// Makes the kernel hold exactly the model.
    pub(super) fn reconcile(&mut self) -> Result<(), String> {
        let contents = self.kernel.contents().map_err(|e| chain(&e))?;
        let mut ops = self.compiler.reconcile(&contents).map_err(|e| e.to_string())?;
        // A slice that was made anew while no daemon ran has left its old id behind.
        let slice = self.kernel.slice().id;
        let stale = contents
            .workloads
            .iter()
            .filter(|(id, entry)| entry.flags & WorkloadEntry::SLICE != 0 && **id != slice);
        ops.extend(stale.map(|(id, _)| Op::DeleteWorkload { cgroup: *id }));
        self.kernel
            .apply_all(&ops)
            .and_then(|()| self.kernel.read_back(&ops))
            .map_err(|e| chain(&e))
    }
}
