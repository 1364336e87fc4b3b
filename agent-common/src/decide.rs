//! The decision: may this workload send to this endpoint now? Pure, and the same code in the kernel
//! programs and in the tests on the host.

use crate::address::Endpoint;
use crate::reason::Reason;
use crate::tables::{
    ExactKey, ExactRule, GrantRef, GrantSlot, PortSet, RangeKey, RangeRule, WorkloadId,
};

/// The two clocks that deadlines are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// `CLOCK_TAI`, nanoseconds.
    pub tai_ns: u64,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Who sends.
    pub workload: WorkloadId,
    /// Where to.
    pub to: Endpoint,
    /// Whether this workload may hold rules in `RANGES`; saves a look-up where it does not.
    pub ask_ranges: bool,
}

/// The maps, as the decision reads them.
pub trait Tables {
    /// `EXACT`.
    fn exact(&self, key: &ExactKey) -> Option<ExactRule>;
    /// `RANGES`, the longest prefix that covers the key.
    fn range(&self, key: &RangeKey) -> Option<RangeRule>;
    /// `PORTSETS`.
    fn port_set(&self, index: u32) -> Option<&PortSet>;
    /// `GRANTS`.
    fn slot(&self, index: u32) -> Option<GrantSlot>;
}

/// The evidence of an allowance: which grant it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The grant's slot and generation.
    pub grant: GrantRef,
    /// The name that was asked for; 0: an address.
    pub name: u32,
}

/// Allow, with the evidence, or deny, with the reason.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A live grant covers it.
    Allow(Match),
    /// It is refused.
    Deny(Reason),
}

/// Decides. Any live match allows; a rule that is absent or dead falls through to the prefixes.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, now: &Now, query: &Query) -> Verdict {
    if query.workload.0 <= WorkloadId::UNKNOWN.0 {
        return Verdict::Deny(Reason::UnknownWorkload);
    }
    let mut reason = Reason::NoGrant;
    if let Some(rule) = tables.exact(&ExactKey::new(query.workload, &query.to)) {
        match live(tables, now, rule.slot, rule.generation) {
            None if rule.not_after_boot_ns <= now.boot_ns => reason = Reason::NameExpired,
            None => {
                return Verdict::Allow(Match {
                    grant: GrantRef::new(rule.slot, rule.generation),
                    name: rule.name,
                });
            }
            Some(dead) => reason = dead,
        }
    }
    if query.ask_ranges {
        return by_range(tables, now, query, reason);
    }
    Verdict::Deny(reason)
}

#[inline(always)]
fn by_range<T: Tables>(tables: &T, now: &Now, query: &Query, mut reason: Reason) -> Verdict {
    let key = RangeKey::new(query.workload, query.to.protocol, query.to.address);
    let Some(rule) = tables.range(&key) else { return Verdict::Deny(reason) };
    let Some(set) = tables.port_set(rule.port_set) else { return Verdict::Deny(reason) };
    if set.workload.0 != query.workload.0 || set.protocol.0 != query.to.protocol.0 {
        return Verdict::Deny(reason);
    }
    let port = query.to.port.get();
    for range in &set.ranges {
        if port < range.from || port > range.to {
            continue;
        }
        match live(tables, now, range.slot, range.generation) {
            None => {
                return Verdict::Allow(Match {
                    grant: GrantRef::new(range.slot, range.generation),
                    name: 0,
                });
            }
            Some(dead) => reason = dead,
        }
    }
    Verdict::Deny(reason)
}

/// `None` when the slot allows, else why not. Slot 0 never allows.
#[inline(always)]
pub fn live<T: Tables>(tables: &T, now: &Now, slot: u32, generation: u32) -> Option<Reason> {
    if slot == 0 {
        return Some(Reason::NoGrant);
    }
    match tables.slot(slot) {
        Some(s) => s.refusal(generation, now),
        None => Some(Reason::NoGrant),
    }
}
