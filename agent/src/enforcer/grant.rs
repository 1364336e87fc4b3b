//! Checks 16 and 17: from a verified grant to one that is in force.

use std::sync::atomic::Ordering;

use grantd_audit::event::Peer;
use grantd_common::WorkloadId;
use grantd_grant::{GrantId, Reason, Refusal, ReplayAnswer, VerifiedGrant};

use super::Enforcer;
use super::audit::EndedBy;
use super::command::Applied;
use super::revoke::since_us;
use crate::clock::Now;
use crate::compile::{CompileError, Deadlines, Opening, SlotRef};
use crate::kernel::{self, Op};
use crate::ledger::{AcceptError, EndCause, LedgerGrant, Placement};
use crate::text::chain;

impl Enforcer {
    /// Ledger, kernel, read-back, in this order; a failure leaves nothing of the grant behind.
    pub(super) fn apply_grant(
        &mut self,
        grant: VerifiedGrant,
        peer: Peer,
        received: Now,
        epoch: u64,
    ) -> Result<Applied, Refusal> {
        if epoch != self.epoch.load(Ordering::Acquire) {
            let detail = "policy or keys changed while the grant was checked; push it again";
            return Err(grant.refuse(Reason::Busy, detail));
        }
        let (workload, cgroup_id) = self.check_host(&grant)?;
        self.check_quota(&grant)?;
        let replaced = self.check_replaced(&grant)?;
        let now = self.clock.now();
        let deadlines = deadlines(&grant, now)?;
        let opening = Opening { workload, deadlines, destinations: grant.destinations() };
        let (slot, ops) = self.compiler.open(&opening).map_err(|e| refuse_compile(&grant, e))?;
        let placement = Placement {
            slot: slot.index,
            generation: slot.generation,
            deadline_boot_ns: deadlines.boot_ns,
            deadline_tai_ns: deadlines.tai_ns,
            cgroup_id,
            accepted_unix_ms: now.unix_ms(),
        };
        let id = grant.id().clone();
        if let Err(refusal) = self.accept(grant.clone(), placement) {
            // Nothing was written to the kernel yet: only the model has to forget it.
            self.compiler.close(slot.index);
            return Err(refusal);
        }
        if let Err(error) = self.write(&ops) {
            self.take_back(&id, slot);
            let full = matches!(error, kernel::Error::MapFull { .. });
            let reason = if full { Reason::Capacity } else { Reason::KernelFailed };
            return Err(grant.refuse(reason, chain(&error)));
        }
        self.settle(&id, slot, replaced.as_ref(), &peer, received);
        self.rate_of(&grant).push_back(now.boot_ns);
        self.in_force(&id)
            .map(|applied| Applied { already: false, ..applied })
            .ok_or_else(|| grant.refuse(Reason::Expired, "its deadline passed meanwhile"))
    }

    /// Check 16: the workload is here, and this is the boot and the start of it that the grant means.
    fn check_host(&mut self, grant: &VerifiedGrant) -> Result<(WorkloadId, u64), Refusal> {
        if let Some(trouble) = self.trouble.as_ref().or(self.slice_trouble.as_ref()) {
            return Err(grant.refuse(Reason::NotEnforcing, trouble.clone()));
        }
        if !self.settings.unsynchronised_allowed && !self.clock.synchronised() {
            let detail = "the kernel holds this host's clock to be unsynchronised; start a time service, \
                          or set [time] unsynchronised = \"allow\"";
            return Err(grant.refuse(Reason::ClockUnsynchronised, detail));
        }
        let name = grant.workload();
        let Some(workload) = self.workloads.get(name) else {
            return Err(
                grant.refuse(Reason::WorkloadUnknown, format!("no [[workload]] named {name}"))
            );
        };
        let (id, path) = (workload.id, workload.path.clone());
        if grant.boot_id().is_some_and(|b| b.as_str() != self.settings.boot_id) {
            return Err(grant.refuse(Reason::BootIdMismatch, "boot_id is not that of this boot"));
        }
        let cgroup =
            self.look_at(name).map_err(|e| grant.refuse(Reason::KernelFailed, chain(&e)))?;
        let Some(cgroup) = cgroup else {
            let detail = format!("no cgroup {}: start the workload first", path.display());
            return Err(grant.refuse(Reason::WorkloadAbsent, detail));
        };
        if let Some(wanted) = grant.invocation_id()
            && kernel::invocation_id(&path).as_deref() != Some(wanted.as_str())
        {
            let detail = "invocation_id is not that of the running unit";
            return Err(grant.refuse(Reason::InvocationIdMismatch, detail));
        }
        Ok((id, cgroup))
    }

    fn check_quota(&mut self, grant: &VerifiedGrant) -> Result<(), Refusal> {
        let name = grant.workload();
        let Some(policy) = self.settings.policy.workload(name) else {
            return Err(
                grant.refuse(Reason::WorkloadUnknown, format!("no [[workload]] named {name}"))
            );
        };
        let (most, rate) = (policy.max_live_grants, policy.grant_rate);
        let live = self.ledger.live().filter(|g| g.grant.workload() == name).count();
        // A renewal takes the place of a grant that counts already.
        let taken =
            live - usize::from(grant.replaces().is_some_and(|old| self.ledger.get(old).is_some()));
        if taken >= most as usize {
            let detail = format!(
                "{name} has {live} live grants, at most {most} are allowed (max_live_grants)"
            );
            return Err(grant.refuse(Reason::Quota, detail));
        }
        let period = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let since = self.clock.now().boot_ns.saturating_sub(period);
        let recent = self.rate_of(grant);
        while recent.front().is_some_and(|at| *at < since) {
            recent.pop_front();
        }
        if recent.len() >= rate.grants as usize {
            let detail = format!(
                "{name} had {} grants within {} s (grant_rate)",
                rate.grants,
                rate.per.as_secs()
            );
            return Err(grant.refuse(Reason::RateLimited, detail));
        }
        Ok(())
    }

    fn rate_of(&mut self, grant: &VerifiedGrant) -> &mut std::collections::VecDeque<u64> {
        self.accepted.entry(grant.workload().clone()).or_default()
    }

    /// The live grant that this one replaces, of the same workload and subject.
    fn check_replaced(&self, grant: &VerifiedGrant) -> Result<Option<LedgerGrant>, Refusal> {
        let Some(old) = grant.replaces() else { return Ok(None) };
        match self.ledger.get(old) {
            Some(live)
                if live.grant.workload() == grant.workload() && live.grant.sub() == grant.sub() =>
            {
                Ok(Some(live.clone()))
            }
            Some(_) => {
                let detail = "replaces names a grant of another workload or subject";
                Err(grant.refuse(Reason::ReplacesUnknown, detail))
            }
            None => {
                let detail = "replaces names no live grant of this host; issue it without";
                Err(grant.refuse(Reason::ReplacesUnknown, detail))
            }
        }
    }

    fn accept(&mut self, grant: VerifiedGrant, placement: Placement) -> Result<(), Refusal> {
        // Kept apart: the ledger takes the grant itself.
        let about = grant.clone();
        match self.ledger.accept(grant, placement) {
            Ok(_) => Ok(()),
            Err(AcceptError::Frozen) => Err(about
                .refuse(Reason::Frozen, "new grants are frozen on this host (`grantctl thaw`)")),
            Err(AcceptError::Replay(answer)) => Err(refuse_replay(&about, answer)),
            Err(AcceptError::Ledger(error)) => {
                Err(about.refuse(Reason::LedgerFailed, chain(&error)))
            }
        }
    }

    fn write(&mut self, ops: &[Op]) -> Result<(), kernel::Error> {
        self.kernel.apply(ops)?;
        self.kernel.read_back(ops)
    }

    /// The kernel did not take it: nothing of it may stay, in no map and not in the ledger.
    fn take_back(&mut self, id: &GrantId, slot: SlotRef) {
        let ops = self.compiler.close(slot.index);
        if let Err(error) = self.kernel.apply_all(&ops) {
            self.note_trouble(format!("grant {id} could not be taken back: {}", chain(&error)));
        }
        if let Err(error) = self.ledger.abandon(id) {
            self.note_trouble(format!("grant {id} could not be taken back: {}", chain(&error)));
        }
    }

    /// It is in force: the one that it replaces ends, the ledger notes both, audit hears of both.
    fn settle(
        &mut self,
        id: &GrantId,
        slot: SlotRef,
        replaced: Option<&LedgerGrant>,
        peer: &Peer,
        received: Now,
    ) {
        if let Some(old) = replaced {
            let ops = self.compiler.supersede(old.placement.slot, slot.index);
            let result = self.kernel.apply_all(&ops).and_then(|()| self.kernel.read_back(&ops));
            if let Err(error) = result {
                self.note_trouble(format!("replaced grant {}: {}", old.id(), chain(&error)));
            }
        }
        let now = self.clock.now();
        if let Err(error) = self.ledger.mark_in_force(id, replaced.map(LedgerGrant::id), now) {
            self.note_trouble(format!(
                "grant {id} is in force but not marked so: {}",
                chain(&error)
            ));
        }
        if let Some(live) = self.ledger.get(id).cloned() {
            self.list_grant(&live);
            self.audit_in_force(&live, Some(peer.clone()), Some(since_us(received, now)), now);
        }
        if let Some(old) = replaced {
            let by =
                EndedBy { peer: Some(peer), replaced_by: Some(id.as_str()), ..EndedBy::default() };
            self.audit_ended(old, EndCause::Replaced, &by, now);
        }
    }

    /// The acknowledgement of a live grant, if it is one.
    pub(super) fn in_force(&self, id: &GrantId) -> Option<Applied> {
        let live = self.ledger.get(id)?;
        Some(Applied {
            id: id.to_string(),
            deadline_unix_ms: self.deadline_unix_ms(&live.placement),
            already: true,
        })
    }
}

/// `exp` as the kernel compares it, derived once: a wall clock set back later cannot put it off.
fn deadlines(grant: &VerifiedGrant, now: Now) -> Result<Deadlines, Refusal> {
    let left = grant.expires().as_secs().saturating_mul(1_000_000_000).checked_sub(now.wall_ns);
    match left {
        Some(left) if left > 0 => Ok(Deadlines {
            boot_ns: now.boot_ns.saturating_add(left),
            tai_ns: now.tai_ns.saturating_add(left),
        }),
        Some(_) | None => Err(grant.refuse(Reason::Expired, "its deadline has passed")),
    }
}

fn refuse_compile(grant: &VerifiedGrant, error: CompileError) -> Refusal {
    let reason = match error {
        CompileError::NameUnsupported => Reason::NamesUnsupported,
        CompileError::NoSlot
        | CompileError::ExactFull
        | CompileError::RangesFull
        | CompileError::TooManyPortRanges => Reason::Capacity,
    };
    grant.refuse(reason, error.to_string())
}

fn refuse_replay(grant: &VerifiedGrant, answer: ReplayAnswer) -> Refusal {
    match answer {
        ReplayAnswer::OtherHash => {
            grant.refuse(Reason::JtiReused, "this jti was seen with other content")
        }
        ReplayAnswer::BelowFloor => {
            grant.refuse(Reason::BelowFloor, "issued before this host's floor")
        }
        ReplayAnswer::SubjectRevoked => {
            grant.refuse(Reason::SubjectRevoked, "issued before a revocation that covers it")
        }
        // A copy of it was pushed at the same time and came first.
        ReplayAnswer::New | ReplayAnswer::Same => {
            grant.refuse(Reason::Busy, "the same grant is being applied; push it again")
        }
        ReplayAnswer::Revoked => grant.refuse(Reason::GrantRevoked, "this grant is over"),
    }
}
