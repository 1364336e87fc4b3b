//! `[canary]`: how often it is proven that enforcement takes effect.

use std::time::Duration;

use super::reader::Section;
use super::values::bounded_duration;

/// Where the file says nothing.
const DEFAULT_PERIOD: Duration = Duration::from_secs(5);
/// Longest period: an alarm is to come while it is of use.
const MAX_PERIOD: Duration = Duration::from_secs(60);

/// Reads `[canary]`, which may be absent, into the time between two rounds.
pub(super) fn read(root: &mut Section<'_>) -> Option<Duration> {
    let Some(value) = root.optional("canary") else { return Some(DEFAULT_PERIOD) };
    value.table("[canary]", |section| match section.optional("period") {
        None => Some(DEFAULT_PERIOD),
        Some(value) => bounded_duration(&value, MAX_PERIOD, "60s"),
    })
}
