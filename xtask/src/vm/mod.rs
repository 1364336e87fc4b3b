//! End-to-end tests on another kernel, in a virtual machine that is emulated in software: slow, but it needs
//! no privilege, and nothing but the kernel differs from where they run else.

mod archive;
mod contents;
mod listener;
mod modules;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};

use self::contents::Contents;
use self::listener::Listener;
use crate::command;
use crate::say::{self, say, step};
use crate::setup::{self, Kernel, Machine};
use crate::test::report::{Group, Report};
use crate::workspace;

/// The kernels that the product is tested on beside the host's: its floor, and a present one.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Machines that share the tests at most. Each has one processor: emulated ones that run side by side
/// trip over code that the kernel changes while it runs.
const MACHINES: usize = 4;
/// What a machine has of memory.
const MEMORY: &str = "2G";
/// Seconds that booting may take on a loaded machine, each test as a rule, and the longest one beyond that.
const BOOT: usize = 240;
const EACH_TEST: usize = 120;
const LONGEST_TEST: usize = 480;
/// Lines of a kernel's log that are shown when its machine fails.
const TAIL: usize = 40;

/// The security modules that a kernel is booted with: those of a Debian system, and BPF's.
const LSM: &str = "landlock,lockdown,yama,bpf";

/// A test program, and the tests of it that are run.
pub(crate) struct Selected {
    /// Its name for a person.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Its name as a file.
    pub(crate) file: String,
    pub(crate) tests: Vec<String>,
}

/// Runs tests on a kernel and reports them. Whatever keeps it from running them is a failure.
pub(crate) fn run(series: &str, programs: &Path, selected: &[Selected], report: &mut Report) {
    let ran = bootable(series)
        .and_then(|(machine, kernel)| run_on(&machine, &kernel, programs, selected, report));
    if let Err(error) = ran {
        report.fault(format!("kernel {series}: {error:#}"));
    }
}

/// The same, but where no such kernel can be booted, the tests are reported as not run.
pub(crate) fn run_where_possible(
    series: &str,
    programs: &Path,
    selected: &[Selected],
    report: &mut Report,
) {
    match bootable(series) {
        Ok((machine, kernel)) => {
            if let Err(error) = run_on(&machine, &kernel, programs, selected, report) {
                report.fault(format!("kernel {series}: {error:#}"));
            }
        }
        Err(why) => report.not_run(format!("tests on kernel {series}"), format!("{why:#}")),
    }
}

/// An emulator and a kernel, installed and fetched first where they are missing.
fn bootable(series: &str) -> Result<(Machine, Kernel)> {
    Ok((setup::machine()?, setup::kernel(series)?))
}

fn run_on(
    machine: &Machine,
    kernel: &Kernel,
    programs: &Path,
    selected: &[Selected],
    report: &mut Report,
) -> Result<()> {
    let series = kernel.series.as_str();
    let tests: usize = selected.iter().map(|program| program.tests.len()).sum();
    let machines = thread::available_parallelism().map_or(1, usize::from).min(MACHINES).min(tests);
    step!("{tests} end-to-end tests on kernel {}, in {machines} virtual machines", kernel.release);
    let directory = workspace::root().join("target/vm");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let lists: Vec<String> = (0..machines).map(|number| list(selected, number, machines)).collect();
    let contents = Contents { machine, kernel, programs, selected, lists: &lists };
    let initramfs = contents::write(&contents, &directory)?;
    let heard = thread::scope(|scope| {
        let boot = |number| {
            let limit = BOOT + LONGEST_TEST * selected.len() + EACH_TEST * tests.div_ceil(machines);
            let log = directory.join(format!("kernel-{series}-{number}.log"));
            let label = format!("{series}/{number}");
            let boot = Boot { machine, kernel, initramfs: &initramfs, log, number, limit };
            scope.spawn(move || boot.listen(Listener::new(series), &label))
        };
        let running: Vec<_> = (0..machines).map(boot).collect();
        let ended = running.into_iter().map(|machine| machine.join());
        ended.map(|end| end.map_err(|_| anyhow!("a thread panicked"))).collect::<Result<Vec<_>>>()
    })?;
    add(heard, kernel, report);
    Ok(())
}

/// What one of several machines runs: every n-th test, so that each gets its part of the slow ones.
fn list(selected: &[Selected], number: usize, machines: usize) -> String {
    let mut list = String::new();
    let mut at = 0;
    for program in selected {
        let mut mine = Vec::new();
        for test in &program.tests {
            if at % machines == number {
                mine.push(test.as_str());
            }
            at += 1;
        }
        if !mine.is_empty() {
            // Names of programs and tests are words.
            let (name, file, limit) =
                (&program.name, &program.file, LONGEST_TEST + EACH_TEST * mine.len());
            list.push_str(&format!(
                "run {name} {limit} ./{file} --test-threads 1 --exact {}\n",
                mine.join(" ")
            ));
        }
    }
    list
}

struct Boot<'a> {
    machine: &'a Machine,
    kernel: &'a Kernel,
    initramfs: &'a Path,
    /// Where the kernel's own log goes.
    log: PathBuf,
    number: usize,
    /// Seconds.
    limit: usize,
}

impl Boot<'_> {
    /// Boots the machine and listens until it is off. It never fails: what goes wrong is among the results.
    fn listen(&self, mut listener: Listener, label: &str) -> Listener {
        let ended = command::lines(&mut self.command(), |line| {
            if let Some(line) = listener.read(line) {
                say::out(&format!("[{label}] {line}"));
            }
        });
        let how = match ended {
            // What timeout(1) says of a command that it killed.
            Ok(status) if matches!(status.code(), Some(124 | 137)) => {
                format!("killed after {} seconds", self.limit)
            }
            Ok(status) => status.to_string(),
            Err(error) => format!("{error:#}"),
        };
        listener.off(&how);
        if !listener.is_good() {
            self.show_log(label);
        }
        listener
    }

    fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &self.limit.to_string()]).arg(&self.machine.qemu);
        command.args(["-machine", "pc", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // The kernel talks to the first line, the tests to the second.
        command.arg("-serial").arg(format!("file:{}", self.log.display()));
        command.args(["-serial", "stdio"]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(self.initramfs);
        // An emulated machine's clock goes as evenly as this one's, and needs no watching. A kernel that
        // stumbles turns the machine off.
        command.arg("-append").arg(format!(
            "console=ttyS0 loglevel=5 panic=-1 oops=panic tsc=reliable lsm={LSM} grantd_shard={}",
            self.number
        ));
        command.stdin(Stdio::null());
        command
    }

    fn show_log(&self, label: &str) {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        say!("    end of the kernel's log, {}:", self.log.display());
        for line in lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default() {
            say!("[{label}] {line}");
        }
    }
}

/// Adds up what the machines have said.
fn add(heard: Vec<Listener>, kernel: &Kernel, report: &mut Report) {
    let seconds = heard.iter().filter_map(|listener| listener.seconds).max().unwrap_or(0);
    let lsm = heard.iter().find_map(|listener| listener.lsm.clone()).unwrap_or_default();
    let name =
        format!("end-to-end tests, kernel {} emulated (LSM {lsm}; {seconds} s)", kernel.release);
    let mut group = Group::new(name);
    for listener in heard {
        for (what, why) in listener.notes {
            report.not_run(what, why);
        }
        for ignored in &listener.group.ignored {
            report.not_run(format!("{}::{}", ignored.program, ignored.test), &ignored.reason);
        }
        listener.faults.into_iter().for_each(|fault| report.fault(fault));
        if let Some(other) = listener.kernel.filter(|release| *release != kernel.release) {
            report.fault(format!("kernel {} calls itself {other}", kernel.release));
        }
        group.merge(listener.group);
    }
    report.add(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_together_run_every_test_once() {
        let program = |name: &str, tests: &[&str]| Selected {
            name: format!("e2e/{name}"),
            path: PathBuf::from(name),
            file: name.to_owned(),
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
        };
        let selected = [program("a", &["a1", "a2", "a3"]), program("b", &["b1"])];
        let first = list(&selected, 0, 2);
        let second = list(&selected, 1, 2);
        assert_eq!(first, "run e2e/a 720 ./a --test-threads 1 --exact a1 a3\n");
        assert_eq!(
            second,
            "run e2e/a 600 ./a --test-threads 1 --exact a2\nrun e2e/b 600 ./b --test-threads 1 --exact b1\n"
        );
    }
}
