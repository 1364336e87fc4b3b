//! What a person reads while a command runs: progress on standard error, so that standard output
//! belongs to the programs that are run.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes one line to standard error.
macro_rules! say {
    ($($argument:tt)*) => { $crate::say::line(format_args!($($argument)*)) };
}

/// Writes one line that opens a step of the work to standard error.
macro_rules! step {
    ($($argument:tt)*) => { $crate::say::line(format_args!("==> {}", format_args!($($argument)*))) };
}

pub(crate) use {say, step};

/// A terminal that has gone away is no reason to stop the work: the exit status still tells the result.
pub(crate) fn line(text: Arguments<'_>) {
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

/// Writes one line to standard output: a program's own output passed on, or the closing lines of a run.
pub(crate) fn out(text: &str) {
    let _gone = writeln!(io::stdout().lock(), "{text}");
}
