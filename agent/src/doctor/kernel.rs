//! Whether the kernel side can work.

use std::path::Path;

use super::{Files, Finding, Severity, Subject};

pub(super) fn check(files: &Files<'_>, subject: &Subject, found: &mut Vec<Finding>) {
    if !subject.root {
        found.push(Finding {
            severity: Severity::Fault,
            check: "root",
            threats: &[],
            found: "this runs without root: programs cannot be tried, and much is out of sight"
                .into(),
            remedy: "run `sudo grantctl doctor`".into(),
        });
    } else if let Err(problem) = &subject.programs {
        found.push(Finding {
            severity: Severity::Fault,
            check: "programs",
            threats: &[],
            found: format!("the kernel does not take the programs: {problem}"),
            remedy: "Linux 6.1 or later with CONFIG_CGROUP_BPF and cgroup v2 is needed; \
                     `grantd run --check` tells more"
                .into(),
        });
    }
    pins(files, subject, found);
    if !subject.clock_synchronised {
        found.push(Finding {
            severity: Severity::Warning,
            check: "clock",
            threats: &["F4"],
            found: "the kernel holds the clock to be unsynchronised".into(),
            remedy: "run a time service (systemd-timesyncd, chrony); until then new grants are \
                     refused unless `[time] unsynchronised = \"allow\"`"
                .into(),
        });
    }
    let lsm = files.text("/sys/kernel/security/lsm").unwrap_or_default();
    if !lsm.split(',').any(|name| name == "bpf") {
        found.push(Finding {
            severity: Severity::Note,
            check: "bpf_lsm",
            threats: &["F10"],
            found: "the BPF security module is not active, so the guard cannot be".into(),
            remedy: "add `bpf` to `lsm=` on the kernel's command line; without it `grantctl run` and the \
                     unit drop-in close what they can"
                .into(),
        });
    }
}

fn pins(files: &Files<'_>, subject: &Subject, found: &mut Vec<Finding>) {
    let directory = subject.bpffs.join("grantd");
    let Some(owner) = files.owner(&directory) else { return };
    if owner.uid != 0 || owner.mode & 0o077 != 0 {
        found.push(Finding {
            severity: Severity::Fault,
            check: "pins",
            threats: &["C11"],
            found: format!(
                "{} belongs to uid {} with mode {:04o}: others than root may reach what enforces",
                directory.display(),
                owner.uid,
                owner.mode
            ),
            remedy: format!("chown root {0} && chmod 0700 {0}", shown(&directory)),
        });
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
