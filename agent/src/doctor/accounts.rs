//! The accounts that agents run as.

use super::{Account, Files, Finding, Severity, Subject, WorkloadSubject};

/// Groups whose members do by others what grantd denies them, or become root.
const GROUPS: [(&str, &str); 12] = [
    ("docker", "starts containers with any network"),
    ("podman", "starts containers with any network"),
    ("lxd", "starts containers with any network"),
    ("incus", "starts containers with any network"),
    ("incus-admin", "starts containers with any network"),
    ("libvirt", "starts machines with any network"),
    ("kvm", "starts machines with any network"),
    ("sudo", "becomes root"),
    ("wheel", "becomes root"),
    ("admin", "becomes root"),
    ("disk", "reads and writes every file"),
    ("wireshark", "captures packets"),
];

pub(super) fn check(files: &Files<'_>, subject: &Subject, found: &mut Vec<Finding>) {
    for workload in &subject.workloads {
        match (&workload.user, &workload.account) {
            (None, _) => found.push(Finding {
                severity: Severity::Note,
                check: "no_user",
                threats: &["A4", "A5"],
                found: format!("workload {} names no user", workload.name),
                remedy: "give each workload an account of its own: user = \"…\"".into(),
            }),
            (Some(user), None) => found.push(Finding {
                severity: Severity::Fault,
                check: "unknown_user",
                threats: &["A4"],
                found: format!("workload {}: no account is named {user}", workload.name),
                remedy: format!(
                    "useradd --system --no-create-home --shell /usr/sbin/nologin {user}"
                ),
            }),
            (Some(_), Some(account)) => account_of(files, workload, account, found),
        }
    }
    shared(subject, found);
}

fn account_of(
    files: &Files<'_>,
    workload: &WorkloadSubject,
    account: &Account,
    found: &mut Vec<Finding>,
) {
    let name = &workload.name;
    if account.uid == 0 {
        found.push(Finding {
            severity: Severity::Fault,
            check: "root_user",
            threats: &["C11", "C12"],
            found: format!("workload {name} runs as root, which may undo what confines it"),
            remedy: "give it an ordinary account".into(),
        });
        return;
    }
    for (group, does) in
        GROUPS.iter().filter(|(group, _)| account.groups.iter().any(|g| g == group))
    {
        found.push(Finding {
            severity: Severity::Warning,
            check: "group",
            threats: &["D1", "C12"],
            found: format!(
                "workload {name}: {} is in the group {group}, which {does}",
                account.name
            ),
            remedy: format!("gpasswd --delete {} {group}", account.name),
        });
    }
    let lingers = files.exists(&format!("/var/lib/systemd/linger/{}", account.name));
    if lingers || files.exists(&format!("/run/user/{}/systemd", account.uid)) {
        found.push(Finding {
            severity: Severity::Warning,
            check: "user_manager",
            threats: &["D2", "A5"],
            found: format!(
                "workload {name}: {} has a systemd user manager, which starts units outside the slice",
                account.name
            ),
            remedy: format!("loginctl disable-linger {0} && systemctl stop user@{1}.service", account.name, account.uid),
        });
    }
    let tables = ["/var/spool/cron/crontabs", "/var/spool/cron"];
    if let Some(table) =
        tables.iter().map(|d| format!("{d}/{}", account.name)).find(|p| files.exists(p))
    {
        found.push(Finding {
            severity: Severity::Warning,
            check: "crontab",
            threats: &["D2"],
            found: format!("workload {name}: cron starts {table} outside the slice"),
            remedy: format!(
                "crontab -r -u {0}, and add {0} to /etc/cron.deny and /etc/at.deny",
                account.name
            ),
        });
    }
}

fn shared(subject: &Subject, found: &mut Vec<Finding>) {
    let mut seen: Vec<(u32, &str)> = Vec::new();
    for workload in &subject.workloads {
        let Some(account) = &workload.account else { continue };
        match seen.iter().find(|(uid, _)| *uid == account.uid) {
            Some((_, other)) => found.push(Finding {
                severity: Severity::Warning,
                check: "shared_user",
                threats: &["A4"],
                found: format!(
                    "workloads {other} and {} run as the same user, {}: each may trace the other",
                    workload.name, account.name
                ),
                remedy: "give each workload an account of its own".into(),
            }),
            None => seen.push((account.uid, &workload.name)),
        }
    }
}
