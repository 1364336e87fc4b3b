//! Checks 16 and 17: from a verified grant to one that is in force.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use grantd_common::WorkloadId;
use grantd_grant::{
    Destination, GrantId, Reason, Refusal, ReplayAnswer, VerifiedGrant, WorkloadName,
};

use super::Enforcer;
use super::audit::EndedBy;
use super::command::{Applied, ApplyRequest, answer};
use super::revoke::since_us;
use crate::clock::Now;
use crate::compile::{CompileError, Deadlines, Opening, SlotRef};
use crate::kernel::{self, Op};
use crate::ledger::{AcceptError, EndCause, LedgerGrant, Placement};
use crate::text::chain;

/// A grant that passed every check and has its slot; nothing of it is written yet.
struct Placed {
    request: ApplyRequest,
    slot: SlotRef,
    ops: Vec<Op>,
    placement: Placement,
    replaced: Option<LedgerGrant>,
}

impl Placed {
    /// The grant that it replaces, where that one reaches further.
    fn narrowed(&self) -> Option<LedgerGrant> {
        let new = self.request.grant.destinations();
        let covered = |d: &Destination| new.iter().any(|n| n.covers(d));
        self.replaced.clone().filter(|old| !old.grant.destinations().iter().all(covered))
    }
}

/// What the grants of one batch have taken so far.
#[derive(Default)]
struct Taken {
    ids: BTreeSet<GrantId>,
    replaced: BTreeSet<GrantId>,
    by_workload: HashMap<WorkloadName, usize>,
}

impl Enforcer {
    /// Puts grants in force: ledger, kernel, read-back, in this order. They share one write to the disk;
    /// each is answered for itself, and a failure leaves nothing of that grant behind.
    pub(super) fn apply_batch(&mut self, requests: Vec<ApplyRequest>) {
        // What ended just now is closed and cut first: none of its bytes may go on under a new grant.
        self.expire();
        let mut taken = Taken::default();
        let mut placed = Vec::with_capacity(requests.len());
        for request in requests {
            match self.place(&request, &mut taken) {
                Ok((slot, ops, placement, replaced)) => {
                    placed.push(Placed { request, slot, ops, placement, replaced });
                }
                Err(refusal) => answer(request.reply, Err(refusal)),
            }
        }
        if placed.is_empty() {
            return;
        }
        let accepted = placed.iter().map(|p| (p.request.grant.as_ref().clone(), p.placement));
        if let Err(error) = self.ledger.accept_many(accepted) {
            self.note_ledger_trouble(&error);
            for p in placed {
                // Other grants' rules may have moved for these: the kernel follows the model back.
                self.close_slot(p.slot);
                let refusal = p.request.grant.refuse(Reason::LedgerFailed, chain(&error));
                answer(p.request.reply, Err(refusal));
            }
            return;
        }
        let (placed, written) = self.write_batch(placed);
        match self.kernel.read_back(&written) {
            Ok(()) => self.settle_all(placed),
            Err(error) => {
                for p in placed {
                    self.take_back(p, &error);
                }
            }
        }
    }

    /// Writes everything in the order in which the model moved, before anything else moves it. Grants
    /// that the kernel does not take are taken back and answered; returns the others, and every change
    /// that was made.
    fn write_batch(&mut self, placed: Vec<Placed>) -> (Vec<Placed>, Vec<Op>) {
        let mut written = Vec::new();
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for p in placed {
            let result = self.kernel.apply(&p.ops);
            written.extend_from_slice(&p.ops);
            match result {
                Ok(()) => taken.push(p),
                Err(error) => refused.push((p, error)),
            }
        }
        for (p, error) in refused {
            written.extend(self.take_back(p, &error));
        }
        (taken, written)
    }

    /// Check 16, quotas, and a place in the model.
    fn place(
        &mut self,
        request: &ApplyRequest,
        taken: &mut Taken,
    ) -> Result<(SlotRef, Vec<Op>, Placement, Option<LedgerGrant>), Refusal> {
        let grant = request.grant.as_ref();
        if request.epoch != self.epoch.load(Ordering::Acquire) {
            let detail = "policy or keys changed while the grant was checked; push it again";
            return Err(grant.refuse(Reason::Busy, detail));
        }
        if taken.ids.contains(grant.id()) {
            return Err(refuse_replay(grant, ReplayAnswer::Same));
        }
        let (workload, cgroup_id) = self.check_host(grant)?;
        let replaced = self.check_replaced(grant, taken)?;
        self.check_quota(grant, replaced.is_some(), taken)?;
        self.ledger.check_accept(grant).map_err(|error| refuse_accept(grant, &error))?;
        let now = self.clock.now();
        let deadlines = deadlines(grant, now)?;
        let opening = Opening { workload, deadlines, destinations: grant.destinations() };
        let (slot, ops) = self.compiler.open(&opening).map_err(|e| refuse_compile(grant, e))?;
        let placement = Placement {
            slot: slot.index,
            generation: slot.generation,
            deadline_boot_ns: deadlines.boot_ns,
            deadline_tai_ns: deadlines.tai_ns,
            cgroup_id,
            accepted_unix_ms: now.unix_ms(),
        };
        taken.ids.insert(grant.id().clone());
        taken.replaced.extend(grant.replaces().cloned());
        *taken.by_workload.entry(grant.workload().clone()).or_insert(0) += 1;
        self.rate_of(grant).push_back(now.boot_ns);
        Ok((slot, ops, placement, replaced))
    }

    /// Check 16: the workload is here, and this is the boot and the start of it that the grant means.
    fn check_host(&mut self, grant: &VerifiedGrant) -> Result<(WorkloadId, u64), Refusal> {
        let trouble = self.trouble.as_ref().or(self.slice_trouble.as_ref());
        if let Some(trouble) = trouble.or(self.ledger_trouble.as_ref()) {
            return Err(grant.refuse(Reason::NotEnforcing, trouble.clone()));
        }
        if let Some(what) = self.canary_let_through() {
            return Err(grant.refuse(Reason::NotEnforcing, what));
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
        self.check_trust(grant)?;
        if let Some(wanted) = grant.invocation_id()
            && kernel::invocation_id(&path).as_deref() != Some(wanted.as_str())
        {
            let detail = "invocation_id is not that of the running unit";
            return Err(grant.refuse(Reason::InvocationIdMismatch, detail));
        }
        Ok((id, cgroup))
    }

    fn check_quota(
        &mut self,
        grant: &VerifiedGrant,
        renewal: bool,
        taken: &Taken,
    ) -> Result<(), Refusal> {
        let name = grant.workload();
        let Some(policy) = self.settings.policy.workload(name) else {
            return Err(
                grant.refuse(Reason::WorkloadUnknown, format!("no [[workload]] named {name}"))
            );
        };
        let (most, rate) = (policy.max_live_grants, policy.grant_rate);
        let live = self.ledger.count_of(name) + taken.by_workload.get(name).copied().unwrap_or(0);
        // A renewal takes the place of a grant that counts already.
        if live.saturating_sub(usize::from(renewal)) >= most as usize {
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
    fn check_replaced(
        &self,
        grant: &VerifiedGrant,
        taken: &Taken,
    ) -> Result<Option<LedgerGrant>, Refusal> {
        let Some(old) = grant.replaces() else { return Ok(None) };
        match self.ledger.get(old).filter(|_| !taken.replaced.contains(old)) {
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

    /// The kernel did not take it: nothing of it may stay, in no map and not in the ledger.
    fn take_back(&mut self, p: Placed, error: &kernel::Error) -> Vec<Op> {
        let grant = p.request.grant.as_ref();
        let ops = self.close_slot(p.slot);
        if let Err(error) = self.ledger.abandon(grant.id()) {
            self.note_ledger_trouble(&error);
        }
        let full = matches!(error, kernel::Error::MapFull { .. });
        let reason = if full { Reason::Capacity } else { Reason::KernelFailed };
        let refusal = grant.refuse(reason, chain(error));
        answer(p.request.reply, Err(refusal));
        ops
    }

    /// Takes a slot out of model and kernel.
    fn close_slot(&mut self, slot: SlotRef) -> Vec<Op> {
        let ops = self.compiler.close(slot.index);
        if let Err(error) = self.kernel.apply_all(&ops) {
            self.note_trouble(format!("a grant could not be taken back: {}", chain(&error)));
        }
        ops
    }

    /// They are in force; connections of replaced grants that they do not cover are cut before anybody is
    /// told so.
    fn settle_all(&mut self, placed: Vec<Placed>) {
        let narrowed: Vec<LedgerGrant> = placed.iter().filter_map(Placed::narrowed).collect();
        for p in &placed {
            self.settle(p);
        }
        if !narrowed.is_empty() {
            // A failure is told where it is found out; the new grant stands, and the old ones' packets are
            // stopped.
            let _ = self.cut_grants(&narrowed);
        }
        for p in placed {
            let applied = self.in_force(p.request.grant.id());
            let applied = applied.map(|applied| Applied { already: false, ..applied });
            let passed =
                || p.request.grant.refuse(Reason::Expired, "its deadline passed meanwhile");
            answer(p.request.reply, applied.ok_or_else(passed));
        }
    }

    /// It is in force: the one that it replaces ends, the ledger notes both, audit hears of both.
    fn settle(&mut self, p: &Placed) {
        let (id, replaced, peer) = (p.request.grant.id(), p.replaced.as_ref(), &p.request.peer);
        if let Some(old) = replaced {
            let ops = self.compiler.supersede(old.placement.slot, p.slot.index);
            let result = self.kernel.apply_all(&ops).and_then(|()| self.kernel.read_back(&ops));
            if let Err(error) = result {
                self.note_trouble(format!("replaced grant {}: {}", old.id(), chain(&error)));
            }
        }
        let now = self.clock.now();
        if let Err(error) = self.ledger.mark_in_force(id, replaced.map(LedgerGrant::id), now) {
            self.note_ledger_trouble(&error);
        }
        if let Some(live) = self.ledger.get(id).cloned() {
            self.list_grant(&live);
            let apply_us = Some(since_us(p.request.received, now));
            self.audit_in_force(&live, Some(peer.clone()), apply_us, now);
        }
        if let Some(old) = replaced {
            let by =
                EndedBy { peer: Some(peer), replaced_by: Some(id.as_str()), ..EndedBy::default() };
            self.audit_ended(old, EndCause::Replaced, &by, now);
        }
    }

    /// The acknowledgement of a live grant that the kernel holds now.
    pub(super) fn in_force(&self, id: &GrantId) -> Option<Applied> {
        let live = self.ledger.get(id)?;
        self.kernel_view(&live.placement).filter(|view| view.matches)?;
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

fn refuse_accept(grant: &VerifiedGrant, error: &AcceptError) -> Refusal {
    match error {
        AcceptError::Frozen => {
            grant.refuse(Reason::Frozen, "new grants are frozen on this host (`grantctl thaw`)")
        }
        AcceptError::Replay(answer) => refuse_replay(grant, *answer),
    }
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
