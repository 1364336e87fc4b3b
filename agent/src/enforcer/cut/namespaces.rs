//! The network namespaces in which workloads have sockets.
//!
//! Each is found by a task of the workload that is in it, and remembered until nothing of a workload
//! is left there: a socket outlives the task that made it. A namespace that a task enters and leaves
//! between two looks is missed; its sockets' packets are stopped all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use grantd_audit::event::FindingKind;
use grantd_common::WorkloadId;

use crate::enforcer::Enforcer;
use crate::kernel::{self, Namespace, NamespaceId, tasks_below};
use crate::text::chain;

/// Namespaces of one workload; in those beyond, packets are stopped and nobody is told.
const MOST_OF_ONE: usize = 64;

/// A namespace, and what is known of it.
#[derive(Debug)]
struct Known {
    namespace: Namespace,
    workloads: BTreeSet<WorkloadId>,
    /// A task of a workload was in it at the last look.
    peopled: bool,
}

#[derive(Debug, Default)]
pub(in crate::enforcer) struct Namespaces {
    own: Option<Namespace>,
    known: BTreeMap<NamespaceId, Known>,
    problem: Option<String>,
    /// Workloads of which more namespaces were seen than are followed.
    too_many: BTreeSet<WorkloadId>,
}

impl Namespaces {
    /// The daemon's own, and those of the workloads.
    pub(super) fn of<'a>(
        &'a self,
        workloads: &'a BTreeSet<WorkloadId>,
    ) -> impl Iterator<Item = &'a Namespace> {
        let theirs = self.known.values().filter(|k| !k.workloads.is_disjoint(workloads));
        self.own.iter().chain(theirs.map(|k| &k.namespace))
    }

    /// Why one could not be entered at the last look.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether one might be forgotten.
    pub(super) fn has_empty(&self) -> bool {
        self.known.values().any(|k| !k.peopled)
    }

    /// Forgets those that have neither a task nor a socket of a workload; `tagged` looks for one. Whether
    /// every namespace of these workloads could be looked at.
    pub(super) fn retain(
        &mut self,
        workloads: &BTreeSet<WorkloadId>,
        mut tagged: impl FnMut(&Namespace) -> Result<bool, kernel::Error>,
    ) -> bool {
        let own = self.own.as_ref().map(&mut tagged);
        let mut whole = own.is_some_and(|looked| looked.is_ok());
        self.known.retain(|_, known| {
            let looked = tagged(&known.namespace);
            whole &= looked.is_ok() && known.workloads.is_subset(workloads);
            known.peopled || looked.unwrap_or(true)
        });
        whole && self.too_many.is_empty()
    }

    /// Takes note of where tasks of a workload are. Whether it has more than are followed, which was not
    /// known.
    fn look(&mut self, workload: WorkloadId, tasks: &[u32]) -> bool {
        let own = self.own.as_ref().map(Namespace::id);
        let mut by_id: HashMap<NamespaceId, u32> = HashMap::new();
        for task in tasks {
            // A task that is gone is in none.
            if let Ok(id) = NamespaceId::of_task(*task) {
                by_id.entry(id).or_insert(*task);
            }
        }
        let mut count = self.known.values().filter(|k| k.workloads.contains(&workload)).count();
        let mut left_out = false;
        for (id, task) in by_id.into_iter().filter(|(id, _)| Some(*id) != own) {
            if let Some(known) = self.known.get_mut(&id) {
                known.peopled = true;
                known.workloads.insert(workload);
            } else if count >= MOST_OF_ONE {
                left_out = true;
            } else if self.enter(id, task, workload) {
                count += 1;
            }
        }
        if left_out {
            self.too_many.insert(workload)
        } else {
            self.too_many.remove(&workload);
            false
        }
    }

    fn enter(&mut self, id: NamespaceId, task: u32, workload: WorkloadId) -> bool {
        match Namespace::of_task(task) {
            // It moved on meanwhile: the next look finds where.
            Ok(namespace) if namespace.id() != id => false,
            Ok(namespace) => {
                let workloads = BTreeSet::from([workload]);
                self.known.insert(id, Known { namespace, workloads, peopled: true });
                true
            }
            Err(error) => {
                if NamespaceId::of_task(task).is_ok_and(|now| now == id) {
                    let what = format!("a network namespace of task {task}: {}", chain(&error));
                    self.problem.get_or_insert(what);
                }
                false
            }
        }
    }
}

impl Enforcer {
    /// Looks where the tasks of these workloads are now.
    pub(super) fn find_namespaces(&mut self, of: &BTreeSet<WorkloadId>) {
        let mut namespaces = std::mem::take(&mut self.cutting.namespaces);
        namespaces.problem = None;
        if namespaces.own.is_none() {
            match Namespace::own() {
                Ok(own) => namespaces.own = Some(own),
                Err(error) => namespaces.problem = Some(chain(&error)),
            }
        }
        for known in namespaces.known.values_mut().filter(|k| !k.workloads.is_disjoint(of)) {
            known.peopled = false;
        }
        for (name, workload) in self.workloads.iter().filter(|(_, w)| of.contains(&w.id)) {
            if namespaces.look(workload.id, &tasks_below(&workload.path)) {
                let detail = format!(
                    "workload {name} uses more than {MOST_OF_ONE} network namespaces: in the others its \
                     connections are stopped when their grant ends, but nobody is told"
                );
                tracing::warn!("{detail}");
                self.audit_finding(FindingKind::NotEnforcing, detail);
            }
        }
        self.cutting.namespaces = namespaces;
    }
}
