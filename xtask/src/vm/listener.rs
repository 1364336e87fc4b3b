//! What a virtual machine prints: the output of test programs, and between them lines of `init.sh`.

use crate::test::report::Group;

/// How the lines of `init.sh` begin.
const MARK: &str = "@@vm ";

/// The results of one machine, as they come in.
pub(super) struct Listener {
    /// Stands before every name.
    label: String,
    pub(super) group: Group,
    /// What failed other than by a test's own result.
    pub(super) faults: Vec<String>,
    /// What was not run, and why.
    pub(super) notes: Vec<(String, String)>,
    /// What the kernel calls itself, and its security modules.
    pub(super) kernel: Option<String>,
    pub(super) lsm: Option<String>,
    /// Seconds from the start of the kernel to the end of the tests, once it has ended in order.
    pub(super) seconds: Option<u64>,
    program: Option<Program>,
}

/// A test program that is running.
struct Program {
    name: String,
    /// Whether it has printed its result.
    closed: bool,
    failed_before: u64,
}

impl Listener {
    pub(super) fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            group: Group::default(),
            faults: Vec::new(),
            notes: Vec::new(),
            kernel: None,
            lsm: None,
            seconds: None,
            program: None,
        }
    }

    /// Takes in one line. Gives it back, for a person, where it is a test program's.
    pub(super) fn read<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let Some((_, said)) = line.split_once(MARK) else {
            if let Some(program) = &mut self.program {
                program.closed |= self.group.read(&program.name, line);
            }
            return Some(line);
        };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "kernel" => self.kernel = Some(rest.to_owned()),
            "lsm" => self.lsm = Some(rest.to_owned()),
            "program" => self.begin(rest),
            "status" => self.end(rest),
            "note" => {
                let (what, why) = rest.split_once(": ").unwrap_or((rest, "no reason is given"));
                self.notes.push((format!("{} {what}", self.label), why.to_owned()));
            }
            "end" => self.seconds = Some(rest.parse().unwrap_or(0)),
            _ => self.faults.push(format!("{}: {rest}", self.label)),
        }
        None
    }

    /// Takes in that the machine is off; `how` says how the emulator ended.
    pub(super) fn off(&mut self, how: &str) {
        if let Some(program) = self.program.take() {
            self.faults.push(format!("{} was running when the machine ended: {how}", program.name));
        } else if self.seconds.is_none() {
            self.faults.push(format!("{}: the machine ended before its tests: {how}", self.label));
        }
    }

    /// Whether all went well so far.
    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty() && self.group.counts.failed == 0
    }

    fn begin(&mut self, name: &str) {
        self.program = Some(Program {
            name: format!("{} {name}", self.label),
            closed: false,
            failed_before: self.group.counts.failed,
        });
    }

    fn end(&mut self, status: &str) {
        let Some(Program { name, closed, failed_before }) = self.program.take() else { return };
        if !closed {
            self.faults.push(format!("{name} ended without a result: exit status {status}"));
        } else if status != "0" && self.group.counts.failed == failed_before {
            self.faults.push(format!("{name}: exit status {status}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";

    fn heard(lines: &[&str]) -> Listener {
        let mut listener = Listener::new("6.1");
        for line in lines {
            listener.read(line);
        }
        listener
    }

    #[test]
    fn a_run_to_the_end_counts_and_says_what_did_not_run() {
        let lines = [
            "@@vm kernel 6.1.0-56",
            "@@vm program e2e/reach",
            OK,
            "",
            "@@vm status 0",
            "@@vm note git: there is none",
            "@@vm end 12",
        ];
        let mut listener = heard(&lines);
        listener.off("exit status 0");
        assert!(listener.is_good(), "{:?}", listener.faults);
        assert_eq!((listener.group.counts.passed, listener.seconds), (2, Some(12)));
        assert_eq!(listener.notes, [("6.1 git".to_owned(), "there is none".to_owned())]);
    }

    #[test]
    fn a_machine_that_hangs_or_never_starts_is_a_failure() {
        for lines in [&[][..], &["@@vm program e2e/reach", "running 2 tests"], &["@@vm kernel 6.1"]]
        {
            let mut listener = heard(lines);
            listener.off("killed after 300 s");
            assert_eq!(listener.faults.len(), 1);
            assert!(listener.faults[0].contains("killed after 300 s"), "{:?}", listener.faults);
        }
    }

    #[test]
    fn a_test_program_that_is_killed_is_a_failure_and_the_next_goes_on() {
        let lines =
            ["@@vm program e2e/a", "test x ... ", "@@vm status 137", "@@vm program e2e/b", OK];
        let mut listener = heard(&lines);
        listener.read("@@vm status 0");
        assert_eq!(listener.faults, ["6.1 e2e/a ended without a result: exit status 137"]);
        assert_eq!(listener.group.counts.passed, 2);
    }
}
