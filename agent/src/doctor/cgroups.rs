//! Whether an agent could move itself out of what confines it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Files, Finding, Severity, Subject};

/// Files of a cgroup by which tasks are moved and children opened.
const CONTROLS: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

pub(super) fn check(files: &Files<'_>, subject: &Subject, found: &mut Vec<Finding>) {
    if files.owner(&subject.slice).is_none() {
        found.push(Finding {
            severity: Severity::Fault,
            check: "slice",
            threats: &["A8"],
            found: format!("the enforced slice {} does not exist", subject.slice.display()),
            remedy: "systemctl start agents.slice (or what `[enforcement] slice` names)".into(),
        });
    }
    for directory in chain(subject) {
        delegated(files, &directory, found);
    }
    v1(files, found);
}

/// The slice, what is above it, and every workload with what lies between.
fn chain(subject: &Subject) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let ends = subject.workloads.iter().map(|w| &w.cgroup).chain([&subject.slice]);
    for end in ends {
        let upwards = end.ancestors().take_while(|path| path.starts_with(&subject.cgroup_mount));
        all.extend(upwards.filter(|path| *path != subject.cgroup_mount).map(Path::to_path_buf));
    }
    all
}

fn delegated(files: &Files<'_>, directory: &Path, found: &mut Vec<Finding>) {
    let paths = CONTROLS.iter().map(|name| directory.join(name)).chain([directory.to_owned()]);
    for path in paths {
        let Some(owner) = files.owner(&path) else { continue };
        if owner.uid != 0 || owner.mode & 0o022 != 0 {
            found.push(Finding {
                severity: Severity::Fault,
                check: "delegated_cgroup",
                threats: &["A6"],
                found: format!(
                    "{} belongs to uid {} with mode {:04o}: a process of that account moves itself out",
                    path.display(),
                    owner.uid,
                    owner.mode
                ),
                remedy: format!(
                    "chown root:root {0} && chmod go-w {0}; for a unit, remove Delegate= and User= of its slice",
                    path.display()
                ),
            });
            return;
        }
    }
}

fn v1(files: &Files<'_>, found: &mut Vec<Finding>) {
    let mounts = files.text("/proc/self/mountinfo").unwrap_or_default();
    let used = mounts.lines().filter_map(|line| line.split_once(" - ")).find_map(|(_, after)| {
        let mut fields = after.split(' ');
        let options = (fields.next()? == "cgroup").then(|| fields.nth(1)).flatten()?;
        options.split(',').find(|option| matches!(*option, "net_cls" | "net_prio"))
    });
    if let Some(controller) = used {
        found.push(Finding {
            severity: Severity::Warning,
            check: "cgroup_v1_network",
            threats: &["A10"],
            found: format!("cgroup v1 mounts the controller {controller}, which once hid sockets from cgroup v2"),
            remedy: "boot with systemd.unified_cgroup_hierarchy=1, or with cgroup_no_v1=net_cls,net_prio".into(),
        });
    }
}
