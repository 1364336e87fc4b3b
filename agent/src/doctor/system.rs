//! Settings of the kernel and the system.

use super::{Files, Finding, Severity, Subject};

/// Programs that talk to the network with more rights than their caller.
const SETUID: [&str; 14] = [
    "ping",
    "fping",
    "mtr-packet",
    "traceroute",
    "traceroute6.iputils",
    "nmap",
    "pppd",
    "mount.nfs",
    "mount.cifs",
    "newuidmap",
    "pkexec",
    "sudo",
    "su",
    "at",
];
const DIRECTORIES: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/lib/polkit-1"];
/// File systems whose reading and writing is network traffic of the kernel's own.
const NETWORK_FILE_SYSTEMS: [&str; 9] =
    ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs", "glusterfs", "fuse.sshfs"];

pub(super) fn check(files: &Files<'_>, _: &Subject, found: &mut Vec<Finding>) {
    sysctls(files, found);
    setuid(files, found);
    mounts(files, found);
}

fn sysctls(files: &Files<'_>, found: &mut Vec<Finding>) {
    let number = |path: &str| files.text(path).and_then(|text| text.parse::<u64>().ok());
    if number("/proc/sys/kernel/yama/ptrace_scope").unwrap_or(0) == 0 {
        found.push(Finding {
            severity: Severity::Warning,
            check: "ptrace_scope",
            threats: &["A4"],
            found: "any process may trace others of its user (kernel.yama.ptrace_scope is 0 or missing)".into(),
            remedy: "sysctl -w kernel.yama.ptrace_scope=1, in /etc/sysctl.d".into(),
        });
    }
    if number("/proc/sys/kernel/unprivileged_bpf_disabled") == Some(0) {
        found.push(Finding {
            severity: Severity::Warning,
            check: "unprivileged_bpf",
            threats: &["C11", "C12"],
            found: "ordinary users may load BPF programs".into(),
            remedy: "sysctl -w kernel.unprivileged_bpf_disabled=2, in /etc/sysctl.d".into(),
        });
    }
    let namespaces = number("/proc/sys/user/max_user_namespaces").unwrap_or(0);
    let restricted = number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0)
        || number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1);
    if namespaces > 0 && !restricted {
        found.push(Finding {
            severity: Severity::Note,
            check: "user_namespaces",
            threats: &["C9"],
            found: "ordinary users may make user namespaces, and have every capability inside"
                .into(),
            remedy:
                "`grantctl run` and the unit drop-in (RestrictNamespaces=) refuse it; for all: \
                     sysctl -w user.max_user_namespaces=0"
                    .into(),
        });
    }
    let range = files.text("/proc/sys/net/ipv4/ping_group_range").unwrap_or_default();
    let numbers: Vec<u64> = range.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    if matches!(numbers[..], [first, last] if first <= last) {
        found.push(Finding {
            severity: Severity::Note,
            check: "ping_sockets",
            threats: &["C2"],
            found: format!(
                "groups {range} may make ping sockets; grantd refuses them to workloads"
            ),
            remedy: "sysctl -w net.ipv4.ping_group_range=\"1 0\", in /etc/sysctl.d".into(),
        });
    }
    let resolvers = files.text("/etc/resolv.conf").unwrap_or_default();
    let local = resolvers
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .any(|address| address.trim().starts_with("127."));
    if local {
        found.push(Finding {
            severity: Severity::Note,
            check: "resolver",
            threats: &["D4"],
            found: "names are looked up by a local resolver, which workloads do not reach".into(),
            remedy: "grant addresses; give agents the names that they need in /etc/hosts".into(),
        });
    }
}

fn setuid(files: &Files<'_>, found: &mut Vec<Finding>) {
    let candidates =
        DIRECTORIES.iter().flat_map(|d| SETUID.iter().map(move |p| format!("{d}/{p}")));
    let privileged: Vec<String> = candidates
        .filter(|path| {
            let owner = files.owner(std::path::Path::new(path));
            owner.is_some_and(|owner| owner.uid == 0 && owner.mode & 0o4000 != 0)
        })
        .collect();
    if !privileged.is_empty() {
        found.push(Finding {
            severity: Severity::Note,
            check: "setuid",
            threats: &["D8"],
            found: format!("setuid root: {}", privileged.join(", ")),
            remedy: "no new privileges, as `grantctl run` and the unit drop-in set them, takes their effect".into(),
        });
    }
}

fn mounts(files: &Files<'_>, found: &mut Vec<Finding>) {
    let mounts = files.text("/proc/self/mountinfo").unwrap_or_default();
    let network: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            NETWORK_FILE_SYSTEMS.contains(&kind).then(|| before.split(' ').nth(4)).flatten()
        })
        .collect();
    if !network.is_empty() {
        found.push(Finding {
            severity: Severity::Warning,
            check: "network_file_system",
            threats: &["D7"],
            found: format!("network file systems are mounted: {}", network.join(", ")),
            remedy: "keep them out of sight of agents: InaccessiblePaths= in their units".into(),
        });
    }
}
