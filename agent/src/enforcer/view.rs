//! What the enforcer tells about its state, read back from the kernel.

use grantd_grant::{GrantId, Reason, Refusal};

use super::Enforcer;
use super::command::EnforcerStatus;
use crate::coverage::{self, Facts, Threat};
use crate::ctl::{GrantPage, GrantView, KernelView, WorkloadStatus};
use crate::kernel::HookCoverage;
use crate::ledger::{LedgerGrant, Placement, State};
use crate::text::chain;

impl Enforcer {
    /// What stands in the way of enforcement, with the hooks as they were found.
    fn all_trouble(&self, coverage: &[HookCoverage]) -> Vec<String> {
        let noted = self.trouble.iter().chain(&self.slice_trouble).chain(&self.ledger_trouble);
        let detached = coverage.iter().filter(|c| !c.attached);
        let noted = noted.chain(&self.tampered);
        let noted = noted.cloned().chain(self.canary_view().problem);
        noted.chain(detached.map(|c| format!("{}: {}", c.hook, c.detail))).collect()
    }

    /// The known ways out, with the hooks as they were found.
    fn threats(&self, hooks: &[HookCoverage]) -> Vec<Threat> {
        coverage::judge(&Facts {
            hooks: hooks.iter().map(|c| (c.hook.to_owned(), c.attached)).collect(),
            watch: self.kernel.watch_state().is_whole(),
            guard: self.kernel.guard_state().in_effect().map(str::to_owned).collect(),
            cut: true,
            self_check: true,
            canary: self.canary_passes(),
            no_udp_callers: !self.lets_in_by_udp(),
        })
    }

    fn lets_in_by_udp(&self) -> bool {
        let mut callers = self.settings.workloads.iter().flat_map(|workload| &workload.callers);
        callers.any(|caller| caller.protocol == grantd_common::Protocol::UDP)
    }

    /// Only trouble and coverage, as of the last look.
    #[must_use]
    pub fn coverage_only(&self) -> EnforcerStatus {
        EnforcerStatus {
            trouble: self.all_trouble(&self.coverage),
            coverage: self.coverage.clone(),
            threats: self.threats(&self.coverage),
            ..EnforcerStatus::default()
        }
    }

    pub(super) fn status(&self) -> EnforcerStatus {
        let coverage = self.kernel.coverage();
        let mut trouble = self.all_trouble(&coverage);
        let counters = self.kernel.counters().unwrap_or_else(|error| {
            trouble.push(chain(&error));
            Vec::new()
        });
        EnforcerStatus {
            trouble,
            frozen: self.ledger.frozen(),
            since_unix_ms: self.since_unix_ms,
            pins: self.kernel.pins(),
            workloads: self.workload_status(),
            live_grants: self.ledger.count() as u64,
            next_deadline_unix_ms: self
                .ledger
                .next_deadline_boot_ns()
                .map(|at| self.boot_to_unix_ms(at)),
            threats: self.threats(&coverage),
            coverage,
            canary: self.canary_view(),
            counters,
        }
    }

    fn workload_status(&self) -> Vec<WorkloadStatus> {
        let mut all: Vec<WorkloadStatus> = self
            .workloads
            .iter()
            .map(|(name, w)| WorkloadStatus {
                name: name.to_string(),
                cgroup: w.path.clone(),
                cgroup_id: w.cgroup,
                present: w.cgroup.is_some(),
                live_grants: self.ledger.count_of(name) as u64,
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(super) fn grants(
        &self,
        workload: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> GrantPage {
        let after = after.and_then(|id| GrantId::new(id).ok());
        let wanted = |g: &&LedgerGrant| workload.is_none_or(|w| g.grant.workload().as_str() == w);
        let mut found: Vec<&LedgerGrant> = match &after {
            Some(id) => self.ledger.live_after(id).filter(wanted).take(limit + 1).collect(),
            None => self.ledger.live().filter(wanted).take(limit + 1).collect(),
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let grants: Vec<GrantView> = found.into_iter().map(|g| self.view(g)).collect();
        let next = if more { grants.last().map(|g| g.id.clone()) } else { None };
        GrantPage { grants, next }
    }

    pub(super) fn grant(&self, id: &GrantId) -> Result<Option<GrantView>, Refusal> {
        let found =
            self.ledger.find(id).map_err(|e| Refusal::new(Reason::LedgerFailed, chain(&e)))?;
        Ok(found.map(|g| self.view(&g)))
    }

    fn view(&self, grant: &LedgerGrant) -> GrantView {
        let g = &grant.grant;
        let now = self.clock.now();
        let live = grant.state.is_live();
        let left = grant.placement.deadline_boot_ns.saturating_sub(now.boot_ns) / 1_000_000_000;
        GrantView {
            id: g.id().to_string(),
            txn: g.txn().to_string(),
            workload: g.workload().to_string(),
            sub: g.sub().to_string(),
            cid: g.cid().map(ToString::to_string),
            destinations: g.destinations().iter().map(ToString::to_string).collect(),
            accepted_unix_ms: grant.placement.accepted_unix_ms,
            deadline_unix_ms: if live {
                self.deadline_unix_ms(&grant.placement)
            } else {
                g.expires().as_secs().saturating_mul(1_000)
            },
            seconds_left: if live { left } else { 0 },
            state: grant.state.as_str().to_owned(),
            ended_cause: match grant.state {
                State::Ended { cause, .. } => Some(cause.as_str().to_owned()),
                State::Accepted | State::InForce => None,
            },
            kernel: live.then(|| self.kernel_view(&grant.placement)).flatten(),
        }
    }

    pub(super) fn kernel_view(&self, placement: &Placement) -> Option<KernelView> {
        let slot = self.kernel.slot(placement.slot).ok()?;
        let same = slot.generation == placement.generation
            && slot.deadline_boot_ns == placement.deadline_boot_ns
            && slot.successor == 0;
        Some(KernelView {
            slot: placement.slot,
            generation: slot.generation,
            deadline_boot_ns: slot.deadline_boot_ns,
            entries: self.compiler.rules_of(placement.slot) as u64,
            matches: same,
        })
    }

    pub(super) fn deadline_unix_ms(&self, placement: &Placement) -> u64 {
        self.boot_to_unix_ms(placement.deadline_boot_ns)
    }

    fn boot_to_unix_ms(&self, boot_ns: u64) -> u64 {
        let now = self.clock.now();
        let wall = i128::from(now.wall_ns) + i128::from(boot_ns) - i128::from(now.boot_ns);
        // Rounded: the two clocks are read one after the other.
        u64::try_from((wall + 500_000) / 1_000_000).unwrap_or(0)
    }
}
