//! What test harnesses print, read and added up.

use std::collections::BTreeSet;

use crate::say;

/// The results of a run of tests.
#[derive(Default)]
pub(crate) struct Report {
    /// Groups in the order in which they ran.
    groups: Vec<Group>,
    /// What did not run, and why.
    not_run: Vec<(String, String)>,
    /// What failed other than by a test's own result: a harness that died, a tool.
    faults: Vec<String>,
}

/// The results of some test programs that belong together.
#[derive(Default)]
pub(crate) struct Group {
    name: String,
    pub(crate) counts: Counts,
    /// Tests that failed, by name.
    failed: BTreeSet<String>,
    /// Tests that are marked to be left out, with the reason that the mark gives.
    pub(crate) ignored: Vec<Ignored>,
}

/// A test that its source marks with `#[ignore]`.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Ignored {
    /// The test program.
    pub(crate) program: String,
    pub(crate) test: String,
    pub(crate) reason: String,
}

/// What `test result:` lines say.
#[derive(Default, Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Group {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Takes in what ran elsewhere.
    pub(crate) fn merge(&mut self, other: Self) {
        self.counts.add(other.counts);
        self.failed.extend(other.failed);
        self.ignored.extend(other.ignored);
    }

    /// Takes in one line that a test program printed; tells whether it was the line that closes a run.
    pub(crate) fn read(&mut self, program: &str, line: &str) -> bool {
        let line = without_colour(line);
        if let Some(counts) = result_line(&line) {
            self.counts.add(counts);
            return true;
        }
        match test_line(&line) {
            Some((test, Outcome::Failed)) => {
                self.failed.insert(format!("{program}::{test}"));
            }
            Some((test, Outcome::Ignored(reason))) => self.ignored.push(Ignored {
                program: program.to_owned(),
                test: test.to_owned(),
                reason: reason.to_owned(),
            }),
            None => {}
        }
        false
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.ignored = self.ignored.saturating_add(other.ignored);
    }

    pub(crate) fn ran(self) -> u64 {
        self.passed.saturating_add(self.failed)
    }
}

impl Report {
    pub(crate) fn add(&mut self, group: Group) {
        self.groups.push(group);
    }

    pub(crate) fn not_run(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.not_run.push((what.into(), why.into()));
    }

    /// A failure that no test's own result tells; it counts as one failed test.
    pub(crate) fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for group in &self.groups {
            total.add(group.counts);
        }
        total.failed = total.failed.saturating_add(self.faults.len() as u64);
        total
    }

    /// Prints what ran, what did not and why, what failed, and the one line that closes the run.
    pub(crate) fn print(&self) {
        say::out("\nran:");
        for Group { name, counts, .. } in &self.groups {
            say::out(&format!("    {name}: {} passed, {} failed", counts.passed, counts.failed));
        }
        if !self.not_run.is_empty() {
            say::out("did not run:");
            for (what, why) in &self.not_run {
                say::out(&format!("    {what}: {why}"));
            }
        }
        let failed = self.groups.iter().flat_map(|group| &group.failed).chain(&self.faults);
        let failed: Vec<&String> = failed.collect();
        if !failed.is_empty() {
            say::out("failed:");
            for what in failed {
                say::out(&format!("    {what}"));
            }
        }
        let total = self.total();
        say::out(&format!("{} passed, {} failed", total.passed, total.failed));
    }
}

/// How one test ended, where it says more than that it passed.
#[derive(Debug, PartialEq, Eq)]
enum Outcome<'a> {
    Failed,
    Ignored(&'a str),
}

/// The numbers in `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
fn result_line(line: &str) -> Option<Counts> {
    // A test that prints without a line end may stand before it.
    let (_, numbers) = line.split_once("test result: ")?;
    let (_, numbers) = numbers.split_once(". ")?;
    let count = |word: &str| {
        let part = numbers.split(';').find_map(|part| part.trim().strip_suffix(word))?;
        part.trim().parse::<u64>().ok()
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

/// The test and its outcome in `test NAME ... FAILED` and `test NAME ... ignored, REASON`.
fn test_line(line: &str) -> Option<(&str, Outcome<'_>)> {
    let (test, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    if outcome == "FAILED" {
        return Some((test, Outcome::Failed));
    }
    let reason = outcome.strip_prefix("ignored")?;
    Some((test, Outcome::Ignored(reason.strip_prefix(", ").unwrap_or("no reason is given"))))
}

/// The line without the escape sequences that colour it.
fn without_colour(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, text)| text));
    }
    // Some terminals get a character-set switch (ESC ( B) as well.
    plain.replace("\u{1b}(B", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; \
                          finished in 0.01s";

    #[test]
    fn results_are_added_over_all_programs() {
        let mut group = Group::new("unit tests");
        let ok = "test result: ok. 10 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert!(group.read("a", ok) && group.read("b", FAILED));
        let mut report = Report::default();
        report.add(group);
        assert_eq!(report.total(), Counts { passed: 13, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_coloured_result_counts_like_a_plain_one() {
        let coloured = FAILED.replace("FAILED", "\u{1b}[31mFAILED\u{1b}[m").replace('\n', "");
        assert_eq!(result_line(&without_colour(&coloured)).map(|c| c.failed), Some(2));
        assert_eq!(
            result_line(&without_colour(&FAILED.replace("FAILED", "\u{1b}[32mok\u{1b}(B\u{1b}[m")))
                .map(|c| c.passed),
            Some(3)
        );
    }

    #[test]
    fn a_test_that_talks_about_results_is_not_counted() {
        assert_eq!(result_line("the test result: was fine"), None);
        assert_eq!(result_line("test result: ok. many passed; 0 failed; 0 ignored"), None);
    }

    #[test]
    fn an_ignored_test_is_reported_with_its_reason() {
        let mut group = Group::new("end to end");
        assert!(!group.read("p1", "test suspend ... ignored, long: sleeps for a minute"));
        assert!(!group.read("p1", "test other ... ignored"));
        let reasons: Vec<_> = group.ignored.iter().map(|i| i.reason.as_str()).collect();
        assert_eq!(reasons, ["long: sleeps for a minute", "no reason is given"]);
    }

    #[test]
    fn a_program_that_dies_counts_as_a_failure() {
        let mut report = Report::default();
        report.add(Group::new("end to end"));
        report.fault("p1 was ended by signal 9");
        assert_eq!(report.total().failed, 1);
    }
}
