//! How a connection ended: by itself, or with its grant.

use crate::address::Endpoint;
use crate::decide::{Now, Query, Tables, Verdict, decide};
use crate::event::EventKind;
use crate::reason::Reason;
use crate::tables::{GrantRef, WorkloadId};

/// What the record of an end says: [`EventKind::Closed`] while what it rested on stands,
/// [`EventKind::Reset`] with the reason once it does not.
#[inline(always)]
#[must_use]
pub fn end<T: Tables>(
    tables: &T,
    now: &Now,
    workload: WorkloadId,
    grant: GrantRef,
    destination: &Endpoint,
) -> (EventKind, Reason) {
    if grant.0 == GrantRef::SAME_WORKLOAD.0 {
        return (EventKind::Closed, Reason::SameWorkload);
    }
    if grant.0 == GrantRef::INBOUND.0 {
        return (EventKind::Closed, Reason::Listener);
    }
    if grant.slot() == 0 || grant.0 == GrantRef::IN_TRANSITION.0 {
        return (EventKind::Closed, Reason::Granted);
    }
    let Some(slot) = tables.slot(grant.slot()) else {
        return (EventKind::Reset, Reason::Ended);
    };
    match slot.refusal(grant.generation(), now) {
        None => (EventKind::Closed, Reason::Granted),
        Some(Reason::Expired) => (EventKind::Reset, Reason::Expired),
        Some(Reason::Ended) if slot.successor != 0 => {
            let query = Query { workload, to: *destination, ask_ranges: true };
            match decide(tables, now, &query) {
                // No packet has moved it to the grant that replaced its own.
                Verdict::Allow(_) => (EventKind::Closed, Reason::Granted),
                Verdict::Deny(_) => (EventKind::Reset, Reason::Superseded),
            }
        }
        // The slot has been used again since.
        Some(_) => (EventKind::Reset, Reason::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Port, Protocol};
    use crate::tables::{ExactKey, ExactRule, GrantSlot, PortSet, RangeKey, RangeRule};

    const WORKLOAD: WorkloadId = WorkloadId(16);
    const NOW: Now = Now { boot_ns: 100, tai_ns: 100 };

    /// Slot 1 lives, 2 is past its deadline, 3 was ended, 4 was replaced by 1. Port 80 is granted by 1.
    struct World;

    impl Tables for World {
        fn exact(&self, key: &ExactKey) -> Option<ExactRule> {
            let rule = ExactRule {
                slot: 1,
                generation: 1,
                not_after_boot_ns: u64::MAX,
                name: 0,
                padding: 0,
            };
            (key.port == Port::new(80)).then_some(rule)
        }
        fn range(&self, _: &RangeKey) -> Option<RangeRule> {
            None
        }
        fn port_set(&self, _: u32) -> Option<&PortSet> {
            None
        }
        fn slot(&self, index: u32) -> Option<GrantSlot> {
            let deadline_boot_ns = match index {
                1 => 200,
                2 => 50,
                3 | 4 => 0,
                _ => return None,
            };
            let successor = u32::from(index == 4);
            Some(GrantSlot { deadline_boot_ns, deadline_tai_ns: 200, generation: 1, successor })
        }
    }

    fn ended(grant: GrantRef, port: u16) -> (EventKind, Reason) {
        let to = Endpoint::new(Address::from_v4([10, 0, 0, 1]), Port::new(port), Protocol::TCP);
        end(&World, &NOW, WORKLOAD, grant, &to)
    }

    #[test]
    fn the_record_of_an_end_says_whether_the_grant_or_the_connection_was_over() {
        let closed = (EventKind::Closed, Reason::Granted);
        assert_eq!(ended(GrantRef::new(1, 1), 80), closed);
        assert_eq!(ended(GrantRef::new(2, 1), 80), (EventKind::Reset, Reason::Expired));
        assert_eq!(ended(GrantRef::new(3, 1), 80), (EventKind::Reset, Reason::Ended));
        assert_eq!(ended(GrantRef::new(4, 1), 80), closed, "its renewal covers it");
        assert_eq!(ended(GrantRef::new(4, 1), 81), (EventKind::Reset, Reason::Superseded));
        assert_eq!(ended(GrantRef::new(1, 7), 80), (EventKind::Reset, Reason::Ended), "reused");
        assert_eq!(ended(GrantRef::new(9, 1), 80), (EventKind::Reset, Reason::Ended));
    }

    #[test]
    fn what_needed_no_grant_was_not_cut() {
        for (grant, reason) in [
            (GrantRef::SAME_WORKLOAD, Reason::SameWorkload),
            (GrantRef::INBOUND, Reason::Listener),
            (GrantRef::NONE, Reason::Granted),
            (GrantRef::IN_TRANSITION, Reason::Granted),
        ] {
            assert_eq!(ended(grant, 80), (EventKind::Closed, reason));
        }
    }
}
