//! Workloads and their cgroups: which exist, under which id, and what happens when one is made anew.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use grantd_audit::event::FindingKind;
use grantd_common::WorkloadId;
use grantd_grant::policy::{ApprovalRule, SubjectPattern};
use grantd_grant::{ControlPlaneKeys, KeyId, Reason, Refusal, VerifiedGrant, WorkloadName};

use super::audit::{EndedBy, audit_workload};
use super::{Enforcer, Settings, WorkloadSettings};
use crate::compile::HostRules;
use crate::config::LaunchConfig;
use crate::ctl::Enrolled;
use crate::kernel::{self, Op};
use crate::ledger::{EndCause, LedgerError};
use crate::text::chain;

/// A workload of the config.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) id: WorkloadId,
    /// Its cgroup's directory.
    pub(super) path: PathBuf,
    /// How the config wants its commands started.
    pub(super) launch: LaunchConfig,
    /// Whether its tasks may have dangerous capabilities.
    pub(super) allow_privileged: bool,
    /// Its cgroup's id while it exists.
    pub(super) cgroup: Option<u64>,
}

impl Enforcer {
    /// Gives each configured workload its number. Returns what the kernel has to follow: who is let in, and
    /// how many sockets each may hold.
    pub(super) fn number_workloads(&mut self) -> Result<Vec<Op>, LedgerError> {
        let mut numbered = std::collections::HashMap::new();
        let mut rules = HostRules::default();
        for settings in self.settings.workloads.clone() {
            let WorkloadSettings {
                name, path, launch, callers, max_sockets, allow_privileged, ..
            } = settings;
            let id = WorkloadId(self.ledger.workload_id(&name)?);
            let cgroup =
                self.workloads.get(&name).filter(|w| w.path == path).and_then(|w| w.cgroup);
            callers.into_iter().for_each(|rule| rules.let_in(id, rule));
            rules.limit(id, max_sockets);
            numbered.insert(name, Workload { id, path, launch, allow_privileged, cgroup });
        }
        self.workloads = numbered;
        Ok(self.compiler.set_host_rules(rules))
    }

    /// Follows the slice and every workload's cgroup.
    pub(super) fn look_at_cgroups(&mut self) {
        self.look_at_slice();
        self.coverage = self.kernel.coverage();
        let names: Vec<WorkloadName> = self.workloads.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.look_at(&name) {
                tracing::warn!(workload = %name, error = chain(&error), "cannot follow the workload's cgroup");
            }
        }
        self.follow_guard();
        self.retry_trouble();
        self.flush_ledger();
    }

    /// Said once, not at every look: a slice that is gone may stay so for long, and holds nobody.
    fn look_at_slice(&mut self) {
        let trouble = match self.kernel.renew_slice() {
            Ok(false) => None,
            Ok(true) => {
                let detail =
                    "the enforced slice was removed and made anew; its hooks are attached again";
                if self.kernel.watch_state().knows_new_cgroups() {
                    tracing::warn!("{detail}. Until then nothing in it could open a socket");
                } else {
                    let detail = format!(
                        "{detail}. Until then tasks in it were not confined: keep it alive (RefuseManualStop=yes)"
                    );
                    tracing::warn!("{detail}");
                    self.audit_finding(FindingKind::NotEnforcing, detail);
                }
                None
            }
            Err(error) => Some(format!("the enforced slice: {}", chain(&error))),
        };
        if let (Some(what), None) = (&trouble, &self.slice_trouble) {
            tracing::error!("{what}");
            self.audit_finding(FindingKind::NotEnforcing, what.clone());
        }
        self.slice_trouble = trouble;
    }

    /// Looks at one workload's cgroup now, and makes the kernel follow.
    pub(super) fn look_at(&mut self, name: &WorkloadName) -> Result<Option<u64>, kernel::Error> {
        let Some(workload) = self.workloads.get(name).cloned() else { return Ok(None) };
        let found = kernel::cgroup_of(&workload.path)?;
        // What the kernel goes by counts: a workload that the config moved elsewhere has an old one there.
        if found == workload.cgroup && found == self.compiler.cgroup(workload.id) {
            return Ok(found);
        }
        // Grants were given to the processes of the old cgroup: the new one starts with nothing.
        self.end_of_workload(name, found);
        let ops = self.compiler.set_cgroup(workload.id, found);
        self.kernel.apply_all(&ops)?;
        if let Some(w) = self.workloads.get_mut(name) {
            w.cgroup = found;
        }
        let shown =
            audit_workload(name, &workload.path, found.unwrap_or(0), &self.settings.cgroup_mount);
        self.directory.put_workload(workload.id, shown);
        tracing::debug!(workload = %name, cgroup = found, "the workload's cgroup changed");
        Ok(found)
    }

    fn end_of_workload(&mut self, name: &WorkloadName, now_cgroup: Option<u64>) {
        let ids: Vec<_> = self
            .ledger
            .live()
            .filter(|g| g.grant.workload() == name && Some(g.placement.cgroup_id) != now_cgroup)
            .map(|g| g.id().clone())
            .collect();
        let detail = "its cgroup was removed or made anew";
        self.end_grants(
            &ids,
            EndCause::WorkloadGone,
            &EndedBy { detail: Some(detail), ..EndedBy::default() },
        );
    }

    /// Makes sure that a workload's cgroup exists and that the kernel knows it.
    pub(super) fn enrol(&mut self, name: &WorkloadName) -> Result<Enrolled, Refusal> {
        let Some(workload) = self.workloads.get(name).cloned() else {
            let detail = format!("no [[workload]] named {name} in the config");
            return Err(Refusal::new(Reason::WorkloadUnknown, detail));
        };
        let failed = |what: String| Refusal::new(Reason::KernelFailed, what);
        if let Err(error) = std::fs::create_dir_all(&workload.path) {
            return Err(failed(format!(
                "cannot make the cgroup {}: {error}",
                workload.path.display()
            )));
        }
        match self.look_at(name) {
            Ok(Some(cgroup_id)) => Ok(Enrolled {
                workload: name.to_string(),
                cgroup: workload.path,
                cgroup_id,
                user: workload.launch.user,
                hide: workload.launch.hide,
                unhide: workload.launch.unhide,
            }),
            Ok(None) => {
                Err(failed(format!("the cgroup {} is gone again", workload.path.display())))
            }
            Err(error) => Err(failed(chain(&error))),
        }
    }

    /// Goes by new settings and keys: grants that they no longer cover end.
    pub(super) fn reconfigure(
        &mut self,
        settings: Settings,
        keys: &ControlPlaneKeys,
        removed: &BTreeSet<KeyId>,
    ) -> Result<u64, Refusal> {
        self.next_epoch();
        let before = std::mem::replace(&mut self.settings, settings);
        match self.number_workloads() {
            Ok(ops) => {
                if let Err(error) = self.kernel.apply_all(&ops) {
                    self.note_trouble(format!("the workloads' listeners: {}", chain(&error)));
                }
            }
            Err(error) => {
                self.settings = before;
                return Err(Refusal::new(Reason::LedgerFailed, chain(&error)));
            }
        }
        self.follow_cgroups();
        let live = self.ledger.live();
        let uncovered: Vec<_> =
            live.filter(|g| !self.still_covered(&g.grant)).map(|g| g.id().clone()).collect();
        let detail = "the host's config no longer covers it";
        let by = EndedBy { detail: Some(detail), ..EndedBy::default() };
        let mut ended = self.end_grants(&uncovered, EndCause::NotCovered, &by);
        ended += self.retain_control_plane_keys(keys, removed);
        self.forget_removed_workloads();
        self.look_at_cgroups();
        Ok(ended)
    }

    fn forget_removed_workloads(&mut self) {
        let known: std::collections::HashSet<WorkloadId> =
            self.workloads.values().map(|w| w.id).chain([WorkloadId::CANARY]).collect();
        let removed: Vec<WorkloadId> =
            self.compiler.workloads().filter(|w| !known.contains(w)).collect();
        for id in removed {
            let ops = self.compiler.set_cgroup(id, None);
            if let Err(error) = self.kernel.apply_all(&ops) {
                self.note_trouble(format!("a removed workload: {}", chain(&error)));
            }
        }
    }

    /// Whether the config would still let this grant stand, as far as that can be told without its
    /// token: workload, subject, lifetime, denies, and a ceiling entry with its approval for each
    /// destination.
    pub(super) fn still_covered(&self, grant: &VerifiedGrant) -> bool {
        let policy = &self.settings.policy;
        let ttl = grant.expires().since(grant.issued_at()).unwrap_or(Duration::MAX);
        let known = policy.workload(grant.workload()).is_some_and(|w| {
            let subject = w.subjects.iter().any(|s| subject_matches(s, grant));
            subject && ttl <= w.max_ttl
        });
        known
            && grant.destinations().iter().all(|d| {
                let allowed = policy.ceiling().iter().any(|entry| {
                    let approved = entry.approval == ApprovalRule::Optional
                        || grant.approval().is_some_and(|a| a.by != *grant.sub());
                    approved
                        && entry.workloads.contains(grant.workload())
                        && entry.max_ttl.is_none_or(|max| ttl <= max)
                        && entry.allow.iter().any(|a| a.covers(d))
                });
                allowed && !policy.denies().iter().any(|deny| deny.overlaps(d))
            })
    }
}

fn subject_matches(pattern: &SubjectPattern, grant: &VerifiedGrant) -> bool {
    match pattern {
        SubjectPattern::Client(cid) => grant.cid() == Some(cid),
        SubjectPattern::User(uid) => grant.sub() == uid,
        SubjectPattern::Actor(act) => grant.act().is_some_and(|a| a.sub == *act),
    }
}
