//! Which kernels the end-to-end tests run on, and which tests a virtual machine gets.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::report::Report;
use super::{TestArgs, name};
use crate::command;
use crate::vm::{self, SERIES, Selected};
use crate::workspace::Executable;

/// The kernel that runs now.
pub(super) const HOST: &str = "host";
/// That one, and those of [`SERIES`].
const ALL: &str = "all";

/// The one that is booted when nobody asks for any: what runs here may refuse what some of enforcement takes,
/// such as LSM programs and attachment at the cgroup root.
const USUAL: &str = "6.12";

/// The tests that it is booted for, by how their names begin: ways out that LSM programs close, or the origin of
/// a socket or process, and some everyday software. The others are the same on every kernel, and slow on an
/// emulated one.
const USUAL_WAYS: [&str; 7] = ["a01_", "a02_", "a03_", "a04_", "c0", "d0", "everyday_"];

/// The words that `--kernel` takes.
pub(super) const WORDS: [&str; 4] = [HOST, "6.1", "6.12", ALL];

/// The kernels of one run.
pub(super) struct Kernels {
    /// This machine's: all tests, those that are not end to end too.
    pub(super) host: bool,
    /// Series of kernels that are booted for the end-to-end tests.
    machines: Vec<&'static str>,
    /// Whether one is booted although nobody asked for it.
    usual: bool,
}

impl Kernels {
    pub(super) fn of(args: &TestArgs) -> Self {
        let asked = |word: &str| args.kernel.iter().any(|kernel| kernel == word || kernel == ALL);
        let machines: Vec<_> = SERIES.into_iter().filter(|series| asked(series)).collect();
        let usual = args.kernel.is_empty() && args.filter.is_none() && !args.no_vm;
        Self { host: machines.is_empty() || asked(HOST), machines, usual }
    }

    /// Runs the end-to-end tests in a virtual machine for each kernel that is asked for.
    pub(super) fn run_machines(
        &self,
        programs: &Path,
        end_to_end: &[Executable],
        args: &TestArgs,
        report: &mut Report,
    ) -> Result<()> {
        if self.usual {
            let selected = select(end_to_end, &|_, test| is_usual(test))?;
            vm::run_where_possible(USUAL, programs, &selected, report);
        }
        if self.machines.is_empty() && args.filter.is_none() {
            let rest = "the other end-to-end tests on kernels 6.1 and 6.12";
            report.not_run(rest, "`cargo xtask test --kernel all` runs them");
            if args.no_vm {
                report.not_run("tests of ways out on another kernel", "--no-vm leaves them out");
            }
        }
        let filter = args.filter.as_deref();
        let selected = select(end_to_end, &|program, test| {
            filter.is_none_or(|part| program.contains(part) || test.contains(part))
        })?;
        for series in self.machines.iter().filter(|_| !selected.is_empty()) {
            vm::run(series, programs, &selected, report);
        }
        Ok(())
    }
}

/// Whether a test quotes one of [`USUAL_WAYS`].
fn is_usual(test: &str) -> bool {
    USUAL_WAYS.iter().any(|way| test.starts_with(way))
}

/// The integration tests that are chosen by their program's name and their own.
fn select(end_to_end: &[Executable], chosen: &dyn Fn(&str, &str) -> bool) -> Result<Vec<Selected>> {
    let mut selected = Vec::new();
    for program in end_to_end.iter().filter(|program| program.kind == "test") {
        let name = name(program);
        let listed =
            command::output(Command::new(&program.path).args(["--list", "--format", "terse"]))?;
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let tests: Vec<String> =
            tests.filter(|test| chosen(&name, test)).map(str::to_owned).collect();
        if !tests.is_empty() {
            let (path, file) = (program.path.clone(), program.target.clone());
            selected.push(Selected { name, path, file, tests });
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels(words: &[&str]) -> Kernels {
        let kernel = words.iter().map(|word| (*word).to_owned()).collect();
        Kernels::of(&TestArgs { all: false, kernel, no_vm: false, filter: None })
    }

    #[test]
    fn without_a_word_the_tests_run_on_this_machines_kernel_and_with_all_on_each() {
        let usual = kernels(&[]);
        assert!(usual.host && usual.usual && usual.machines.is_empty());
        assert!(!kernels(&["host"]).usual, "who says where gets no more");
        assert!(!kernels(&["6.1"]).host, "a named kernel is the only one");
        assert_eq!(kernels(&["6.12"]).machines, ["6.12"]);
        let both = kernels(&["host", "6.1"]);
        assert!(both.host && both.machines == ["6.1"]);
        assert!(kernels(&["all"]).host && kernels(&["all"]).machines == SERIES);
        assert!(SERIES.iter().chain([&USUAL]).all(|series| WORDS.contains(series)));
    }

    #[test]
    fn what_another_kernel_is_booted_for_is_chosen_by_its_number() {
        assert!(is_usual("a01_a_socket_made_elsewhere") && is_usual("c03_c05_families"));
        for other in ["a_granted_connection", "a07_nested", "p07_at_the_deadline", "e09_nat"] {
            assert!(!is_usual(other), "{other}");
        }
    }
}
