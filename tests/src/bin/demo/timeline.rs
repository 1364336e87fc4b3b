//! The terminal: one line a step, in columns, as it happens.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use anyhow::{Result, bail};
use grantd_e2e::{cleanup, clock};

const WHO: usize = 14;
const WHAT: usize = 58;

const BOLD: &str = "1";
const FAINT: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// Prints steps with the time since the first.
pub(crate) struct Timeline {
    start: Instant,
    colour: bool,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { start: clock::now(), colour }
    }

    /// Does a step and tells how it went. The closure checks; what it returns is shown.
    pub(crate) fn step(
        &mut self,
        who: &str,
        what: &str,
        action: impl FnOnce() -> Result<String>,
    ) -> Result<()> {
        let outcome = action();
        cleanup::stop_if_ending();
        let seconds = clock::since(self.start).as_secs_f64();
        let (mark, said) = match &outcome {
            Ok(said) => (self.paint(GREEN, "✓"), said.clone()),
            Err(error) => (self.paint(RED, "✗"), format!("{error:#}")),
        };
        let time = self.paint(FAINT, &format!("{seconds:>6.1} s"));
        let who = self.paint(BOLD, &format!("{who:<WHO$}"));
        self.line(&format!("{time}  {who} {what:<WHAT$} {mark} {said}"));
        if outcome.is_err() {
            bail!("“{what}” did not do what it says");
        }
        Ok(())
    }

    /// What the columns are.
    pub(crate) fn columns(&self) {
        let head = format!("{:>8}  {:<WHO$} {:<WHAT$} {}", "time", "who", "does what", "result");
        self.line(&self.paint(FAINT, &head));
    }

    /// A heading between steps.
    pub(crate) fn heading(&self, text: &str) {
        self.line(&format!("\n{}", self.paint(BOLD, text)));
    }

    /// Plain text.
    pub(crate) fn note(&self, text: &str) {
        self.line(text);
    }

    /// Text of little weight, such as a program's output.
    pub(crate) fn aside(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("          {}", self.paint(FAINT, line)));
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        // A reader that has gone away is no reason to stop half-way: what was made must be undone.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}
