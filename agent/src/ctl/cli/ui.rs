//! Where output goes and how it looks.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::error::{CliError, chain};

/// Output of one command.
pub struct Ui<'a> {
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Errors and notes.
    pub err: &'a mut dyn Write,
    /// Whether answers may be coloured.
    pub colour: bool,
}

/// Colours that carry meaning; every one also has its word.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Good,
    Bad,
    Faint,
    Strong,
}

/// Colour only on a terminal, and never when `NO_COLOR` is set and not empty (no-color.org).
pub(super) fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !refused && !dumb && io::stdout().is_terminal()
}

impl Ui<'_> {
    /// `text`, coloured where that is wanted.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// One JSON document, indented.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(self.out, "{text}")?;
        Ok(())
    }

    /// The error with its causes, once. With nowhere left to write to, there is nothing to do.
    pub(super) fn error(&mut self, error: &CliError, json: bool) {
        let texts = chain(error);
        let line = if json {
            let (message, causes) = texts.split_first().map_or(("", &[][..]), |(m, c)| (m, c));
            let exit = error.exit().code();
            serde_json::json!({"error": {"exit": exit, "message": message, "causes": causes}})
                .to_string()
        } else {
            format!("grantctl: {}", texts.join(": "))
        };
        drop(writeln!(self.err, "{line}"));
    }
}

/// Unix milliseconds as RFC 3339 in UTC, to the second.
pub(super) fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date by 400-year eras that begin on 1 March, where leap days come last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Seconds as a person says them: `14m 05s`.
pub(super) fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m {s:02}s"),
        (h, m, _) => format!("{h}h {m:02}m"),
    }
}

/// Text from elsewhere made safe for a terminal: control characters become `?`.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_310_987_000), "2026-11-22T01:29:47Z");
        assert_eq!(utc(4_102_444_799_999), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(9), "9s");
        assert_eq!(duration(845), "14m 05s");
        assert_eq!(duration(7260), "2h 01m");
    }

    #[test]
    fn text_from_a_grant_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\n"), "a?[2Jb??");
    }

    #[test]
    fn without_colour_there_is_not_one_escape() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ui = Ui { out: &mut out, err: &mut err, colour: false };
        assert_eq!(ui.paint(Tone::Bad, "NO"), "NO");
    }
}
