//! Refusals that somebody can cause without end: the first is recorded at once, then at most one in ten
//! seconds, and the records say exactly how many there were.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use grantd_audit::event::Event;

use crate::clock::Now;

/// Between two records of one caller, nanoseconds.
const PERIOD_NS: u64 = 10_000_000_000;
/// Callers that are told apart. More share one count.
const CALLERS: usize = 256;

/// What was refused to each caller since its last record.
#[derive(Debug, Default)]
pub struct Repeats {
    callers: Mutex<BTreeMap<String, Repeated>>,
    withheld: AtomicU64,
}

#[derive(Debug)]
struct Repeated {
    recorded_boot_ns: u64,
    /// The newest that was not recorded, and how many there were.
    last: Option<(Event, u64)>,
}

impl Repeats {
    /// What is to be recorded now that `event` was refused to `caller`; nothing if it is only counted.
    pub fn take(&self, caller: &str, event: Event, now: Now) -> Option<Event> {
        let mut callers = self.callers();
        let caller = Self::place(&mut callers, caller, now);
        let Some(repeated) = callers.get_mut(caller) else {
            let repeated = Repeated { recorded_boot_ns: now.boot_ns, last: None };
            callers.insert(caller.to_owned(), repeated);
            return Some(event);
        };
        if !repeated.due(now) {
            let count = repeated.last.take().map_or(0, |(_, count)| count);
            repeated.last = Some((event, count + 1));
            self.withheld.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        repeated.recorded_boot_ns = now.boot_ns;
        let others = repeated.last.take().map_or(0, |(_, count)| count);
        Some(with_others(event, others))
    }

    /// Records for what was counted and whose time has come; with `all`, for everything that was counted.
    pub fn due(&self, now: Now, all: bool) -> Vec<Event> {
        let mut callers = self.callers();
        let mut events = Vec::new();
        callers.retain(|_, repeated| {
            let due = repeated.due(now);
            if !due && !all {
                return true;
            }
            let Some((event, count)) = repeated.last.take() else { return !due };
            repeated.recorded_boot_ns = now.boot_ns;
            events.push(with_others(event, count - 1));
            true
        });
        events
    }

    /// How many refusals were counted in place of a record of their own, since start.
    pub fn withheld(&self) -> u64 {
        self.withheld.load(Ordering::Relaxed)
    }

    /// Under which name to count `caller`: its own while there is room.
    fn place<'a>(callers: &mut BTreeMap<String, Repeated>, caller: &'a str, now: Now) -> &'a str {
        const EVERYBODY_ELSE: &str = "";
        if callers.len() < CALLERS || callers.contains_key(caller) {
            return caller;
        }
        callers.retain(|_, repeated| repeated.last.is_some() || !repeated.due(now));
        if callers.len() < CALLERS { caller } else { EVERYBODY_ELSE }
    }

    fn callers(&self) -> MutexGuard<'_, BTreeMap<String, Repeated>> {
        // Each entry is whole at every moment, whoever panicked.
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repeated {
    const fn due(&self, now: Now) -> bool {
        now.boot_ns.saturating_sub(self.recorded_boot_ns) >= PERIOD_NS
    }
}

/// The event, saying how many it stands for besides itself.
fn with_others(mut event: Event, others: u64) -> Event {
    let detail = match &mut event {
        Event::GrantRefused(refused) => &mut refused.detail,
        Event::RevocationRefused(refused) => &mut refused.detail,
        Event::ApiCall(call) => &mut call.detail,
        Event::ConnectionAllowed(_)
        | Event::ConnectionDenied(_)
        | Event::ConnectionClosed(_)
        | Event::ConnectionCut(_)
        | Event::GrantInForce(_)
        | Event::GrantEnded(_)
        | Event::RevocationApplied(_)
        | Event::Lifecycle(_)
        | Event::Finding(_)
        | Event::Loss(_) => return event,
    };
    if others > 0 {
        detail.push_str(&format!(" (and {others} more of this caller since its last record)"));
    }
    event
}

#[cfg(test)]
mod tests {
    use grantd_audit::event::RevocationRefused;

    use super::*;

    fn at(seconds: u64) -> Now {
        Now { boot_ns: seconds * 1_000_000_000, tai_ns: 0, wall_ns: 0 }
    }

    fn event(detail: &str) -> Event {
        let detail = detail.to_owned();
        Event::RevocationRefused(RevocationRefused { detail, ..RevocationRefused::default() })
    }

    fn detail(event: &Event) -> &str {
        let Event::RevocationRefused(refused) = event else { panic!("{event:?}") };
        &refused.detail
    }

    #[test]
    fn the_first_refusal_of_a_caller_is_recorded_at_once_and_a_flood_only_counted() {
        let repeats = Repeats::default();
        assert!(repeats.take("a", event("1"), at(0)).is_some(), "the first left no record");
        for n in 0..1000 {
            assert!(repeats.take("a", event("more"), at(n / 200)).is_none(), "floods the stream");
        }
        assert!(repeats.take("b", event("b"), at(5)).is_some(), "a flood hides another caller");
        assert_eq!(repeats.withheld(), 1000);
        let next = repeats.take("a", event("next"), at(10)).expect("its time has come");
        assert_eq!(detail(&next), "next (and 1000 more of this caller since its last record)");
    }

    #[test]
    fn a_flood_that_ends_is_recorded_with_its_count() {
        let repeats = Repeats::default();
        repeats.take("a", event("1"), at(0));
        repeats.take("a", event("2"), at(1));
        repeats.take("a", event("3"), at(2));
        assert!(repeats.due(at(9), false).is_empty());
        let due = repeats.due(at(10), false);
        assert_eq!(
            due.iter().map(detail).collect::<Vec<_>>(),
            ["3 (and 1 more of this caller since its last record)"]
        );
        assert!(repeats.due(at(30), false).is_empty(), "told twice");
        assert!(repeats.callers().is_empty(), "callers are remembered for ever");
    }

    #[test]
    fn at_the_end_nothing_that_was_counted_goes_untold() {
        let repeats = Repeats::default();
        repeats.take("a", event("1"), at(0));
        repeats.take("a", event("2"), at(1));
        assert_eq!(repeats.due(at(2), true).iter().map(detail).collect::<Vec<_>>(), ["2"]);
    }

    #[test]
    fn endless_many_callers_take_no_endless_memory_and_are_counted_still() {
        let repeats = Repeats::default();
        let recorded = (0..10 * CALLERS)
            .filter(|n| repeats.take(&format!("caller {n}"), event("x"), at(1)).is_some())
            .count();
        let recorded = recorded as u64;
        assert_eq!(recorded, CALLERS as u64 + 1, "one of all the others together");
        assert_eq!(repeats.callers().len(), CALLERS + 1);
        assert_eq!(repeats.withheld() + recorded, 10 * CALLERS as u64);
    }
}
