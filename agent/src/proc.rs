//! What `/proc` tells of a task, now. A task that is gone has nothing to tell.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Cgroups below one that are looked into.
const MOST_CGROUPS: usize = 4096;

/// Rights by which a task could undo or pass by what confines it: numbers of `linux/capability.h`.
const DANGEROUS: [(u32, &str); 8] = [
    (1, "DAC_OVERRIDE"),
    (12, "NET_ADMIN"),
    (13, "NET_RAW"),
    (16, "SYS_MODULE"),
    (19, "SYS_PTRACE"),
    (21, "SYS_ADMIN"),
    (38, "PERFMON"),
    (39, "BPF"),
];

/// When a task was started, in clock ticks since the host's: with its number it names one task for good.
#[must_use]
pub fn start_ticks(tid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    // proc_pid_stat(5): field 22; the name before it may hold blanks and parentheses.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// The kernel's name of a task; empty where it is gone.
#[must_use]
pub fn comm(tid: u32) -> String {
    let read = fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
    read.trim_end().to_owned()
}

/// The dangerous capabilities that a task holds or may take up, by their names.
#[must_use]
pub fn dangerous_capabilities(tid: u32) -> Vec<&'static str> {
    fs::read_to_string(format!("/proc/{tid}/status"))
        .map(|status| dangerous_in(&status))
        .unwrap_or_default()
}

/// The same of the text of `/proc/PID/status`. What a task may only pass on, or not exceed, is none it has.
fn dangerous_in(status: &str) -> Vec<&'static str> {
    let sets = status.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let held = matches!(name, "CapPrm" | "CapEff" | "CapAmb");
        held.then(|| u64::from_str_radix(value.trim(), 16).ok())?
    });
    let held = sets.fold(0, |all, set| all | set);
    DANGEROUS.iter().filter(|(bit, _)| held >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

/// Inodes of the sockets that a process holds.
#[must_use]
pub fn socket_inodes(pid: u32) -> HashSet<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter_map(|target| inode_of(target.to_str()?)).collect()
}

fn inode_of(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A process's cgroup of cgroup v2, from the root of the hierarchy.
#[must_use]
pub fn cgroup(pid: u32) -> Option<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(PathBuf::from(line.strip_suffix(" (deleted)").unwrap_or(line)))
}

/// Every process in a cgroup and those below it.
#[must_use]
pub fn processes_below(cgroup: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut left = vec![cgroup.to_owned()];
    let mut seen = 0;
    while let Some(directory) = left.pop() {
        seen += 1;
        let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let below = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        left.extend(below.map(|e| e.path()).take(MOST_CGROUPS.saturating_sub(seen + left.len())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_holds_or_may_take_up_counts_and_its_bounds_do_not() {
        let status = "Name:\tagent\nCapInh:\t0000000000000000\nCapPrm:\t0000000000002000\n\
                      CapEff:\t0000000000000002\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";
        assert_eq!(dangerous_in(status), ["DAC_OVERRIDE", "NET_RAW"]);
        assert_eq!(dangerous_in("CapBnd:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(dangerous_in("CapEff:\t000001ffffffffff\n").len(), DANGEROUS.len());
    }

    #[test]
    fn sockets_are_told_from_other_files() {
        assert_eq!(inode_of("socket:[4711]"), Some(4711));
        assert_eq!(inode_of("pipe:[4711]"), None);
        assert_eq!(inode_of("/tmp/socket:[1]"), None);
    }

    #[test]
    fn a_task_that_does_not_exist_tells_nothing() {
        assert_eq!((start_ticks(u32::MAX), cgroup(u32::MAX)), (None, None));
        assert!(dangerous_capabilities(u32::MAX).is_empty() && socket_inodes(u32::MAX).is_empty());
        assert!(start_ticks(std::process::id()).is_some());
    }
}
