//! Whether a workload can be held to what it is granted: its cgroups are root's alone, so that it cannot
//! move itself out, and none of its tasks has a right to undo what confines it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use grantd_audit::event::FindingKind;
use grantd_grant::{Reason, Refusal, VerifiedGrant, WorkloadName};

use super::Enforcer;
use crate::{kernel, proc};

/// Files of a cgroup by which tasks are moved, and cgroups handed on.
const HANDLES: [&str; 4] = ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// A task, by its number and its start.
type Task = (u32, u64);

/// What was found at the last look.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Tasks with dangerous capabilities. A task may have them for the moment that it takes to give them up.
    seen: HashMap<WorkloadName, Vec<Task>>,
    /// Those that were seen twice: while one of them has them still, no grant is taken.
    privileged: HashMap<WorkloadName, Vec<Task>>,
    /// Who can move a workload's tasks beside root.
    delegated: HashMap<WorkloadName, String>,
}

impl Enforcer {
    /// Looks at the cgroups and tasks of every workload; what is new is told once.
    pub(super) fn look_at_trust(&mut self) {
        let names: Vec<WorkloadName> = self.workloads.keys().cloned().collect();
        self.trust.seen.retain(|name, _| self.workloads.contains_key(name));
        self.trust.privileged.retain(|name, _| self.workloads.contains_key(name));
        self.trust.delegated.retain(|name, _| self.workloads.contains_key(name));
        for name in names {
            self.look_at_delegation(&name);
            self.look_at_capabilities(&name);
        }
    }

    /// Check 16: the workload cannot slip what confines it.
    pub(super) fn check_trust(&mut self, grant: &VerifiedGrant) -> Result<(), Refusal> {
        let name = grant.workload();
        self.look_at_delegation(name);
        if let Some(fault) = self.trust.delegated.get(name) {
            return Err(grant.refuse(Reason::WorkloadDelegated, delegated(name, fault)));
        }
        let Some(tasks) = self.trust.privileged.get(name) else { return Ok(()) };
        match tasks.iter().find_map(|task| Some((task.0, capabilities(*task)?))) {
            Some((tid, held)) => {
                let detail = privileged(name, tid, &held);
                Err(grant.refuse(Reason::WorkloadPrivileged, detail))
            }
            None => Ok(()),
        }
    }

    fn look_at_delegation(&mut self, name: &WorkloadName) {
        let Some(workload) = self.workloads.get(name).filter(|w| w.cgroup.is_some()) else {
            return;
        };
        let found = delegation(&workload.path, &self.settings.cgroup_mount);
        let known = self.trust.delegated.get(name);
        if found.as_ref() == known {
            return;
        }
        match found {
            Some(fault) => {
                let detail = delegated(name, &fault);
                self.trust.delegated.insert(name.clone(), fault);
                tracing::error!("{detail}");
                self.audit_workload_finding(FindingKind::WorkloadDelegated, name, detail);
            }
            None => drop(self.trust.delegated.remove(name)),
        }
    }

    fn look_at_capabilities(&mut self, name: &WorkloadName) {
        let held_to = self.workloads.get(name).filter(|w| !w.allow_privileged);
        let Some(workload) = held_to.filter(|w| w.cgroup.is_some()) else {
            self.trust.seen.remove(name);
            self.trust.privileged.remove(name);
            return;
        };
        let tasks = kernel::tasks_below(&workload.path).into_iter();
        let with_start = tasks.filter_map(|tid| Some((tid, proc::start_ticks(tid)?)));
        let now: Vec<Task> = with_start.filter(|task| capabilities(*task).is_some()).collect();
        let before = self.trust.seen.insert(name.clone(), now.clone()).unwrap_or_default();
        let twice: Vec<Task> = now.into_iter().filter(|task| before.contains(task)).collect();
        let known = self.trust.privileged.insert(name.clone(), twice.clone()).unwrap_or_default();
        let Some(new) = twice.iter().find(|task| !known.contains(task)) else { return };
        if let Some(held) = capabilities(*new) {
            let detail = privileged(name, new.0, &held);
            tracing::error!("{detail}");
            self.audit_workload_finding(FindingKind::WorkloadPrivileged, name, detail);
        }
    }
}

/// The dangerous capabilities of a task, if it has any and is the one that is meant.
fn capabilities(task: Task) -> Option<Vec<&'static str>> {
    let held = proc::dangerous_capabilities(task.0);
    (!held.is_empty() && proc::start_ticks(task.0) == Some(task.1)).then_some(held)
}

/// Who beside root can move tasks out of a cgroup: the first handle on the way up to the mount that is not
/// root's alone.
fn delegation(cgroup: &Path, mount: &Path) -> Option<String> {
    let chain = cgroup.ancestors().take_while(|path| path.starts_with(mount));
    chain.flat_map(|path| HANDLES.map(|name| path.join(name))).find_map(|handle| {
        // The root has no handles but the first; what is gone cannot be written.
        let m = fs::metadata(&handle).ok()?;
        fault(m.uid(), m.gid(), m.mode()).map(|fault| format!("{} {fault}", handle.display()))
    })
}

fn fault(owner: u32, group: u32, mode: u32) -> Option<String> {
    const GROUP_WRITES: u32 = 0o020;
    const OTHERS_WRITE: u32 = 0o002;
    if owner != 0 {
        Some(format!("belongs to uid {owner}"))
    } else if mode & OTHERS_WRITE != 0 {
        Some("can be written by everybody".to_owned())
    } else if mode & GROUP_WRITES != 0 && group != 0 {
        Some(format!("can be written by gid {group}"))
    } else {
        None
    }
}

fn delegated(name: &WorkloadName, fault: &str) -> String {
    format!(
        "workload {name} can be moved out of its confinement: {fault}. Give the cgroup back to root \
         (Delegate=no, chown root); until then no grant is taken for it"
    )
}

fn privileged(name: &WorkloadName, tid: u32, held: &[&str]) -> String {
    format!(
        "task {tid} ({}) of workload {name} has {}: it can undo what confines it. Start it without \
         (`grantctl run`, or CapabilityBoundingSet= in its unit), or set allow_privileged = true; until then \
         no grant is taken for it",
        proc::comm(tid),
        held.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_that_another_than_root_can_write_is_a_fault() {
        assert_eq!(fault(0, 0, 0o100_644), None);
        assert_eq!(fault(0, 0, 0o040_775), None, "the group is root's");
        assert!(fault(1000, 0, 0o100_644).is_some());
        assert!(fault(0, 1000, 0o100_664).is_some());
        assert_eq!(fault(0, 1000, 0o100_644), None, "may be read, not written");
        assert!(fault(0, 0, 0o100_646).is_some());
    }

    #[test]
    fn a_fault_is_found_anywhere_between_the_cgroup_and_the_mount() {
        let mount = tempfile::tempdir().unwrap();
        let cgroup = mount.path().join("agents.slice/agent");
        fs::create_dir_all(&cgroup).unwrap();
        let owner = fs::metadata(&cgroup).unwrap().uid();
        let found = delegation(&cgroup, mount.path());
        assert_eq!(found.is_some(), owner != 0, "{found:?}");
        fs::write(mount.path().join("agents.slice/cgroup.procs"), "").unwrap();
        let handle = mount.path().join("agents.slice/cgroup.procs");
        fs::set_permissions(&handle, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(delegation(&cgroup, mount.path()).is_some());
        assert_eq!(delegation(Path::new("/elsewhere"), mount.path()), None);
    }
}
