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

/// The words that `--kernel` takes.
pub(super) const WORDS: [&str; 4] = [HOST, "6.1", "6.12", ALL];

/// The kernels of one run.
pub(super) struct Kernels {
    /// This machine's: all tests, those that are not end to end too.
    pub(super) host: bool,
    /// Series of kernels that are booted for the end-to-end tests.
    machines: Vec<&'static str>,
}

impl Kernels {
    pub(super) fn of(args: &TestArgs) -> Self {
        let asked = |word: &str| args.kernel.iter().any(|kernel| kernel == word || kernel == ALL);
        let machines: Vec<_> = SERIES.into_iter().filter(|series| asked(series)).collect();
        Self { host: machines.is_empty() || asked(HOST), machines }
    }

    /// Runs the end-to-end tests in a virtual machine for each kernel that is asked for.
    pub(super) fn run_machines(
        &self,
        programs: &Path,
        end_to_end: &[Executable],
        args: &TestArgs,
        report: &mut Report,
    ) -> Result<()> {
        if self.machines.is_empty() {
            if args.filter.is_none() {
                let how = "they are booted by `cargo xtask test --kernel all`";
                report.not_run(format!("kernels {}", SERIES.join(" and ")), how);
            }
            return Ok(());
        }
        let selected = select(end_to_end, args.filter.as_deref())?;
        if !selected.is_empty() {
            for series in &self.machines {
                vm::run(series, programs, &selected, report);
            }
        }
        Ok(())
    }
}

/// The integration tests whose name, or whose program's name, contains the filter.
fn select(end_to_end: &[Executable], filter: Option<&str>) -> Result<Vec<Selected>> {
    let mut selected = Vec::new();
    for program in end_to_end.iter().filter(|program| program.kind == "test") {
        let name = name(program);
        let whole = filter.is_none_or(|filter| name.contains(filter));
        let listed =
            command::output(Command::new(&program.path).args(["--list", "--format", "terse"]))?;
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let tests = tests.filter(|test| whole || filter.is_some_and(|part| test.contains(part)));
        let tests: Vec<String> = tests.map(str::to_owned).collect();
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
        Kernels::of(&TestArgs { all: false, kernel, filter: None })
    }

    #[test]
    fn without_a_word_the_tests_run_on_this_machines_kernel_and_with_all_on_each() {
        assert!(kernels(&[]).host && kernels(&[]).machines.is_empty());
        assert!(!kernels(&["6.1"]).host, "a named kernel is the only one");
        assert_eq!(kernels(&["6.12"]).machines, ["6.12"]);
        let both = kernels(&["host", "6.1"]);
        assert!(both.host && both.machines == ["6.1"]);
        assert!(kernels(&["all"]).host && kernels(&["all"]).machines == SERIES);
        assert!(SERIES.iter().all(|series| WORDS.contains(series)));
    }
}
