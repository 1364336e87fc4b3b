//! The process behind an event, as far as it can still be seen.

use std::collections::HashMap;
use std::fs;

use grantd_audit::event::Process;

/// How long what was read of a process is believed, nanoseconds: less than it takes to use up all
/// process ids.
const BELIEVED_NS: u64 = 50_000_000;
/// Processes that are remembered; beyond, all are forgotten.
const REMEMBERED: usize = 1024;

/// Reads `/proc`, and not again for each event of the same process.
#[derive(Debug, Default)]
pub(super) struct Processes {
    known: HashMap<u32, (u64, Process)>,
}

impl Processes {
    /// What is known of a process. `comm` and ids come from the kernel at the moment of the event; the
    /// rest is read now and left out where the process is gone or is another by now.
    pub(super) fn describe(
        &mut self,
        event: &grantd_common::Event,
        now_boot_ns: u64,
    ) -> Option<Process> {
        if event.pid == 0 {
            return None;
        }
        let comm = comm(&event.comm);
        if let Some((at, known)) = self.known.get(&event.pid)
            && now_boot_ns.saturating_sub(*at) < BELIEVED_NS
            && known.comm == comm
            && known.uid == Some(event.uid)
        {
            return Some(known.clone());
        }
        let mut process =
            Process { pid: event.pid, uid: Some(event.uid), comm, ..Process::default() };
        add_from_proc(&mut process, event.boot_ns);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(event.pid, (now_boot_ns, process.clone()));
        Some(process)
    }
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// A process that started after the event is not the one that caused it: its id was used again.
fn add_from_proc(process: &mut Process, event_boot_ns: u64) {
    let directory = format!("/proc/{}", process.pid);
    let Some(start) = start_boot_ns(&directory).filter(|start| *start <= event_boot_ns) else {
        return;
    };
    process.start_boot_ns = Some(start);
    if let Ok(exe) = fs::read_link(format!("{directory}/exe")) {
        process.exe = exe.to_string_lossy().into_owned();
    }
    if let Ok(arguments) = fs::read(format!("{directory}/cmdline")) {
        let text: Vec<String> = arguments
            .split(|b| *b == 0)
            .filter(|a| !a.is_empty())
            .map(|a| String::from_utf8_lossy(a).into_owned())
            .collect();
        process.cmd_line = text.join(" ");
    }
}

/// proc_pid_stat(5): field 22, in clock ticks; the name before it may hold blanks and parentheses.
fn start_boot_ns(directory: &str) -> Option<u64> {
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    let ticks: u64 = after_name.split(' ').nth(19)?.parse().ok()?;
    ticks.checked_mul(TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_started_after_the_event_lends_it_neither_path_nor_arguments() {
        let mut process = Process { pid: std::process::id(), ..Process::default() };
        add_from_proc(&mut process, 1);
        assert_eq!((process.exe.as_str(), process.start_boot_ns), ("", None));
        add_from_proc(&mut process, u64::MAX);
        assert!(process.exe.contains("grantd"), "{}", process.exe);
    }
}
