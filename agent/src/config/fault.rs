//! What is wrong with a configuration: every fault, each with where it is and what would be right.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Longest piece of a value that a fault quotes, in characters.
const MAX_QUOTED: usize = 80;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Line in the file, from 1; absent where the fault is about the file or a missing section.
    pub line: Option<usize>,
    /// The key's full path (`workload[1].subjects[0].cid`); empty where the fault is about the file.
    pub key: String,
    /// The value as written, shortened; absent where a key is missing.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}; {}", self.problem, self.expected)
    }
}

/// Every fault of one configuration file, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct ConfigFaults {
    /// The file.
    pub file: PathBuf,
    /// The faults.
    pub faults: Vec<Fault>,
}

impl ConfigFaults {
    pub(super) fn one(file: &Path, problem: String, expected: String) -> Self {
        let fault = Fault { line: None, key: String::new(), value: None, problem, expected };
        Self { file: file.to_owned(), faults: vec![fault] }
    }
}

/// One fault per line: `FILE:LINE: KEY = VALUE: what is wrong; what would be right`.
impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(line) = fault.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": {fault}")?;
        }
        Ok(())
    }
}

/// Where faults are gathered while a file is read.
#[derive(Debug)]
pub(super) struct Sink<'d> {
    text: &'d str,
    faults: RefCell<Vec<Fault>>,
}

impl<'d> Sink<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, faults: RefCell::new(Vec::new()) }
    }

    /// Records a fault at a byte offset of the file.
    pub(super) fn add(
        &self,
        at: Option<usize>,
        key: &str,
        value: Option<&str>,
        problem: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.faults.borrow_mut().push(Fault {
            line: at.map(|at| self.line(at)),
            key: key.to_owned(),
            value: value.map(shorten),
            problem: problem.into(),
            expected: expected.into(),
        });
    }

    /// The text of a span, as written in the file.
    pub(super) fn source(&self, span: std::ops::Range<usize>) -> &'d str {
        self.text.get(span).unwrap_or_default()
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| fault.line.unwrap_or(0));
        faults
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }
}

/// One line, bounded, with nothing that could steer a terminal.
fn shorten(value: &str) -> String {
    let line: String = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = line.chars().filter(|c| !c.is_control()).take(MAX_QUOTED).collect();
    if line.chars().count() > MAX_QUOTED {
        shown.push('…');
    }
    shown
}
