//! The start: ledger and kernel are brought together before anything else is served.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use grantd_audit::Recorder;
use grantd_audit::event::FindingKind;
use grantd_common::WorkloadId;
use grantd_grant::ids::BootId;
use grantd_grant::{ControlPlaneKeys, GrantId};

use super::audit::EndedBy;
use super::{Directory, Enforcer, Settings};
use crate::clock::{Clock, Now};
use crate::compile::{Compiler, Deadlines, Opening, SlotRef};
use crate::kernel::{self, Contents, Kernel, Setup};
use crate::ledger::{EndCause, Ledger, LedgerError, LedgerGrant, Opened, State};

/// Why enforcement could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger.
    #[error("the ledger")]
    Ledger(#[from] LedgerError),
    /// The kernel.
    #[error("the kernel")]
    Kernel(#[from] kernel::Error),
    /// The boot id could not be read.
    #[error("/proc/sys/kernel/random/boot_id does not hold a boot id")]
    BootId,
    /// What the ledger says could not be written to the kernel.
    #[error("what the ledger says could not be written to the kernel: {0}")]
    Reconcile(String),
}

/// What enforcement is begun with.
pub struct Start<'a> {
    /// The config's part.
    pub settings: Settings,
    /// Where the ledger lies.
    pub state: &'a Path,
    /// Where the kernel side lies.
    pub setup: &'a Setup,
    /// The keys that are pinned now.
    pub keys: &'a ControlPlaneKeys,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Where audit events go.
    pub recorder: Recorder,
}

impl Enforcer {
    /// Opens the ledger, loads or adopts the kernel side, and makes the one hold what the other says.
    /// Live connections under live grants notice nothing.
    ///
    /// # Errors
    /// [`StartError`]; what was enforced before is enforced still.
    pub fn start(start: Start<'_>) -> Result<Self, StartError> {
        let Start { settings, state, setup, keys, clock, recorder } = start;
        let boot = BootId::new(settings.boot_id.clone()).map_err(|_| StartError::BootId)?;
        let now = clock.now();
        let (ledger, opened) = Ledger::open(state, settings.policy.host_id(), &boot, now)?;
        let kernel = Kernel::start(setup)?;
        let mut enforcer = Self {
            settings,
            clock,
            recorder,
            directory: Arc::new(Directory::default()),
            ledger,
            compiler: Compiler::default(),
            kernel,
            workloads: HashMap::new(),
            accepted: HashMap::new(),
            trouble: None,
            slice_trouble: None,
            closed_sockets: Vec::new(),
            ledger_trouble: None,
            coverage: Vec::new(),
            cutting: Default::default(),
            tampered: Vec::new(),
            tampered_at: None,
            tasks: Default::default(),
            trust: Default::default(),
            canary: Default::default(),
            stopping: false,
            epoch: Arc::default(),
            since_unix_ms: now.unix_ms(),
        };
        // Reconciling below makes the kernel follow.
        enforcer.number_workloads()?;
        enforcer.follow_cgroups();
        enforcer.tell_opened(opened);
        enforcer.bring_together(keys)?;
        enforcer.coverage = enforcer.kernel.coverage();
        enforcer.follow_guard();
        Ok(enforcer)
    }

    /// Whether enforcement of an earlier run was adopted.
    #[must_use]
    pub const fn adopted(&self) -> bool {
        self.kernel.adopted()
    }

    /// For naming kernel events.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// The kernel handle, for opening the rings before the enforcer runs.
    pub const fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Keys of the Okta tokens behind live grants.
    pub fn okta_keys_relied_on(&self) -> impl Iterator<Item = grantd_grant::KeyId> + '_ {
        self.ledger.live().map(|g| g.grant.okta_kid().clone())
    }

    /// Live grants.
    #[must_use]
    pub fn live_grants(&self) -> u64 {
        self.ledger.count() as u64
    }

    fn tell_opened(&mut self, opened: Opened) {
        match opened {
            Opened::Fresh | Opened::Restored { .. } => {}
            Opened::NewBoot { ended } => {
                let now = self.clock.now();
                for grant in &ended {
                    self.audit_ended(grant, EndCause::Rebooted, &EndedBy::default(), now);
                }
            }
            Opened::Corrupt { problem, moved_to, floor } => {
                let kept =
                    moved_to.map(|p| format!(", kept as {}", p.display())).unwrap_or_default();
                let detail = format!(
                    "the ledger could not be trusted ({problem}{kept}): every grant ended, and those issued before {floor} are refused"
                );
                tracing::error!("{detail}");
                self.audit_finding(FindingKind::LedgerCorrupt, detail);
            }
        }
    }

    fn bring_together(&mut self, keys: &ControlPlaneKeys) -> Result<(), StartError> {
        let contents = self.kernel.contents()?;
        self.compiler.remember_slots(&contents);
        self.find_cgroups()?;
        let now = self.clock.now();
        let live: Vec<LedgerGrant> = self.ledger.live().cloned().collect();
        let mut over: Vec<(LedgerGrant, EndCause)> = Vec::new();
        for grant in live {
            match self.why_over(&grant, keys, &contents, now) {
                Some(cause) => over.push((grant, cause)),
                None if self.restore_one(&grant) => self.list_grant(&grant),
                None => over.push((grant, EndCause::KernelFailed)),
            }
        }
        self.adopt_over(&over, &contents);
        let replaced = self.finish_renewals(&over);
        // Before and after: while a deadline that passed stands in its slot, the kernel's records of the cut
        // say so. A cut that fails has been told and is tried again; the packets are stopped.
        let all = self.workloads.values().map(|w| w.id).collect();
        let _ = self.cut(&all);
        self.reconcile().map_err(StartError::Reconcile)?;
        self.kernel.take_over()?;
        let _ = self.cut(&all);
        self.ledger.end_many(over.iter().map(|(g, cause)| (g.id(), *cause)), now)?;
        for (grant, cause) in &over {
            self.audit_ended(grant, *cause, &EndedBy::default(), now);
        }
        self.mark_restored(&replaced, now)
    }

    /// What another live grant covers goes on, unless the kernel holds the end to be final.
    fn adopt_over(&mut self, over: &[(LedgerGrant, EndCause)], contents: &Contents) {
        for (grant, _) in over {
            self.list_grant(grant);
            let p = &grant.placement;
            let open = contents.slots.get(&p.slot).is_some_and(|s| {
                s.generation == p.generation && (s.deadline_boot_ns != 0 || s.successor != 0)
            });
            if let Some(workload) = self.workloads.get(grant.grant.workload()).filter(|_| open) {
                let slot = SlotRef { index: p.slot, generation: p.generation };
                self.compiler.adopt_ended(slot, workload.id);
            }
        }
        self.compiler.adopt_superseded(contents);
    }

    /// A renewal that a crash cut short is finished: the new grant stands, the old one goes. One that is
    /// `over` already has its end.
    fn finish_renewals(
        &mut self,
        over: &[(LedgerGrant, EndCause)],
    ) -> HashMap<GrantId, LedgerGrant> {
        let accepted = self.ledger.live().filter(|g| g.state == State::Accepted);
        let pairs: Vec<(LedgerGrant, LedgerGrant)> = accepted
            .filter_map(|new| Some((new.clone(), self.ledger.get(new.grant.replaces()?)?.clone())))
            .filter(|(_, old)| over.iter().all(|(ended, _)| ended.id() != old.id()))
            .collect();
        for (new, old) in &pairs {
            self.compiler.supersede(old.placement.slot, new.placement.slot);
        }
        pairs.into_iter().map(|(new, old)| (new.id().clone(), old)).collect()
    }

    /// What was written before a crash and never acknowledged is in force now.
    fn mark_restored(
        &mut self,
        replaced: &HashMap<GrantId, LedgerGrant>,
        now: Now,
    ) -> Result<(), StartError> {
        let accepted = self.ledger.live().filter(|g| g.state == State::Accepted);
        let accepted: Vec<GrantId> = accepted.map(|g| g.id().clone()).collect();
        for id in accepted {
            let old = replaced.get(&id);
            self.ledger.mark_in_force(&id, old.map(LedgerGrant::id), now)?;
            if let Some(live) = self.ledger.get(&id) {
                self.audit_in_force(live, None, None, now);
            }
            if let Some(old) = old {
                let by = EndedBy { replaced_by: Some(id.as_str()), ..EndedBy::default() };
                self.audit_ended(old, EndCause::Replaced, &by, now);
            }
        }
        Ok(())
    }

    /// Makes every workload's cgroup known to the model and the directory; the kernel follows with the
    /// rest.
    fn find_cgroups(&mut self) -> Result<(), kernel::Error> {
        self.directory.put_workload(
            WorkloadId::UNKNOWN,
            grantd_audit::event::Workload { name: String::new(), ..Default::default() },
        );
        for (name, workload) in &mut self.workloads {
            workload.cgroup = kernel::cgroup_of(&workload.path)?;
            self.compiler.set_cgroup(workload.id, workload.cgroup);
            let cgroup = workload.cgroup.unwrap_or(0);
            let shown = super::audit::audit_workload(
                name,
                &workload.path,
                cgroup,
                &self.settings.cgroup_mount,
            );
            self.directory.put_workload(workload.id, shown);
        }
        Ok(())
    }

    fn why_over(
        &self,
        grant: &LedgerGrant,
        keys: &ControlPlaneKeys,
        contents: &Contents,
        now: Now,
    ) -> Option<EndCause> {
        let workload = self.workloads.get(grant.grant.workload());
        let p = &grant.placement;
        // The kernel's word stands: an end that the disk did not take is an end all the same.
        let slot = contents.slots.get(&p.slot).filter(|s| s.generation == p.generation);
        let ended = slot.filter(|s| s.deadline_boot_ns == 0);
        if let Some(slot) = ended {
            let replaced = slot.successor != 0;
            Some(if replaced { EndCause::Replaced } else { EndCause::KernelFailed })
        } else if grant.is_past(now.boot_ns, now.tai_ns) {
            Some(EndCause::Expired)
        } else if !keys.contains(grant.grant.control_plane_kid()) {
            Some(EndCause::KeyWithdrawn)
        } else if !self.still_covered(&grant.grant) {
            Some(EndCause::NotCovered)
        } else if workload.and_then(|w| w.cgroup) != Some(grant.placement.cgroup_id) {
            Some(EndCause::WorkloadGone)
        } else {
            None
        }
    }

    fn restore_one(&mut self, grant: &LedgerGrant) -> bool {
        let Some(workload) = self.workloads.get(grant.grant.workload()) else { return false };
        let p = &grant.placement;
        let opening = Opening {
            workload: workload.id,
            deadlines: Deadlines { boot_ns: p.deadline_boot_ns, tai_ns: p.deadline_tai_ns },
            destinations: grant.grant.destinations(),
        };
        let slot = SlotRef { index: p.slot, generation: p.generation };
        match self.compiler.restore(&opening, slot) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(grant = %grant.id(), %error, "a live grant could not be taken up again");
                false
            }
        }
    }
}
