//! The compiled rules, run through the kernel's own decision, against a brute-force reading of the
//! open grants.

use std::collections::BTreeMap;
use std::net::IpAddr;

use grantd_common::{
    Address, Endpoint, ExactKey, ExactRule, GrantSlot, Now, Port, PortSet, Query, RangeKey,
    RangeRule, Tables, Verdict, decide,
};
use grantd_grant::{Cidr, PortRange};
use proptest::prelude::*;

use super::*;
use crate::kernel::{Contents, Prefix};

const A: WorkloadId = WorkloadId(16);
const B: WorkloadId = WorkloadId(17);
const BEFORE: Now = Now { boot_ns: 100, tai_ns: 100 };

/// The kernel maps as plain collections.
#[derive(Default, Clone)]
struct Kernel(Contents);

impl Kernel {
    fn apply(&mut self, ops: &[Op]) {
        let c = &mut self.0;
        for op in ops {
            match *op {
                Op::PutWorkload { cgroup, entry } => {
                    c.workloads.insert(cgroup, entry);
                }
                Op::DeleteWorkload { cgroup } => {
                    c.workloads.remove(&cgroup);
                }
                Op::PutSlot { slot, value } => {
                    c.slots.insert(slot, value);
                }
                Op::PutExact { key, rule } => {
                    c.exact.insert(key, rule);
                }
                Op::DeleteExact { key } => {
                    c.exact.remove(&key);
                }
                Op::PutPortSet { index, set } if set == PortSet::EMPTY => {
                    c.port_sets.remove(&index);
                }
                Op::PutPortSet { index, set } => {
                    c.port_sets.insert(index, set);
                }
                Op::PutRange { prefix, rule } => {
                    c.ranges.insert(prefix, rule);
                }
                Op::DeleteRange { prefix } => {
                    c.ranges.remove(&prefix);
                }
                Op::PutInbound { callers } => {
                    c.inbound.insert(callers);
                }
                Op::DeleteInbound { callers } => {
                    c.inbound.remove(&callers);
                }
                Op::PutLimit { workload, sockets } => {
                    c.limits.insert(workload, sockets);
                }
            }
        }
    }

    fn allows(&self, workload: WorkloadId, to: (IpAddr, u16, Protocol)) -> bool {
        let to = Endpoint::new(to.0.into(), Port::new(to.1), to.2);
        matches!(
            decide(self, &BEFORE, &Query { workload, to, ask_ranges: true }),
            Verdict::Allow(_)
        )
    }
}

impl Tables for Kernel {
    fn exact(&self, key: &ExactKey) -> Option<ExactRule> {
        self.0.exact.get(key).copied()
    }
    fn range(&self, key: &RangeKey) -> Option<RangeRule> {
        let bits = u128::from_be_bytes(key.address.0);
        (0..=128).rev().find_map(|n: u32| {
            let mask = if n == 0 { 0 } else { u128::MAX << (128 - n) };
            let address = Address((bits & mask).to_be_bytes());
            self.0.ranges.get(&Prefix { key: RangeKey { address, ..*key }, bits: n }).copied()
        })
    }
    fn port_set(&self, index: u32) -> Option<&PortSet> {
        self.0.port_sets.get(&index)
    }
    fn slot(&self, index: u32) -> Option<GrantSlot> {
        self.0.slots.get(&index).copied()
    }
}

fn tcp(host: &str, ports: &[(u16, u16)]) -> Destination {
    let host = match host.parse::<IpAddr>() {
        Ok(address) => HostPattern::Address(address),
        Err(_) => HostPattern::Cidr(Cidr::parse(host).unwrap()),
    };
    let ports: Vec<PortRange> =
        ports.iter().map(|(f, t)| PortRange::new(*f, *t).unwrap()).collect();
    Destination::new(host, ports, grantd_grant::Protocol::Tcp).unwrap()
}

fn opening<'a>(workload: WorkloadId, until: u64, destinations: &'a [Destination]) -> Opening<'a> {
    Opening { workload, deadlines: Deadlines { boot_ns: until, tai_ns: until }, destinations }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_grant_opens_its_own_workload_its_port_and_protocol_and_nothing_else() {
    let (mut c, mut k) = (Compiler::default(), Kernel::default());
    let to = [
        tcp("10.0.0.1", &[(5432, 5432)]),
        tcp("10.9.0.0/16", &[(8000, 8010)]),
        tcp("fd00::5", &[(1, 900)]),
    ];
    k.apply(&c.open(&opening(A, 200, &to)).unwrap().1);
    for (address, port) in [("10.0.0.1", 5432), ("10.9.255.1", 8005), ("fd00::5", 900)] {
        assert!(k.allows(A, (ip(address), port, Protocol::TCP)), "{address}:{port}");
        assert!(!k.allows(B, (ip(address), port, Protocol::TCP)), "another workload");
        assert!(!k.allows(A, (ip(address), port, Protocol::UDP)), "another protocol");
        assert!(
            !k.allows(A, (ip(address), 22, Protocol::TCP)) || address == "fd00::5",
            "another port"
        );
    }
    assert!(!k.allows(A, (ip("10.10.0.0"), 8005, Protocol::TCP)));
    assert!(!k.allows(A, (ip("fd00::6"), 900, Protocol::TCP)));
}

#[test]
fn ending_one_of_two_grants_leaves_what_the_other_covers_open_at_every_step() {
    let (mut c, mut k) = (Compiler::default(), Kernel::default());
    let both = [tcp("10.0.0.1", &[(80, 80)]), tcp("10.1.0.0/16", &[(80, 80)])];
    let (longer, ops) = c.open(&opening(A, 900, &both)).unwrap();
    k.apply(&ops);
    k.apply(&c.open(&opening(A, 200, &both)).unwrap().1);
    for op in c.close(longer.index) {
        k.apply(&[op]);
        assert!(k.allows(A, (ip("10.0.0.1"), 80, Protocol::TCP)), "refused after {op:?}");
        assert!(k.allows(A, (ip("10.1.2.3"), 80, Protocol::TCP)), "refused after {op:?}");
    }
}

#[test]
fn a_renewal_refuses_nothing_in_between_that_both_grants_cover() {
    let (mut c, mut k) = (Compiler::default(), Kernel::default());
    let old_to = [
        tcp("10.0.0.1", &[(80, 80)]),
        tcp("10.0.0.2", &[(80, 80)]),
        tcp("10.1.0.0/16", &[(80, 80)]),
    ];
    let new_to = [tcp("10.0.0.1", &[(80, 80)]), tcp("10.1.0.0/16", &[(80, 80)])];
    let (old, ops) = c.open(&opening(A, 200, &old_to)).unwrap();
    k.apply(&ops);
    let (new, mut ops) = c.open(&opening(A, 900, &new_to)).unwrap();
    ops.extend(c.supersede(old.index, new.index));
    for op in ops {
        k.apply(&[op]);
        assert!(k.allows(A, (ip("10.0.0.1"), 80, Protocol::TCP)), "refused after {op:?}");
        assert!(k.allows(A, (ip("10.1.0.9"), 80, Protocol::TCP)), "refused after {op:?}");
    }
    assert!(
        !k.allows(A, (ip("10.0.0.2"), 80, Protocol::TCP)),
        "the narrower grant does not cover it"
    );
    assert_eq!(k.0.slots[&old.index].successor, new.index);
    k.apply(&c.close(new.index));
    assert_eq!(k.0.slots[&old.index].successor, 0, "a chain that ended re-tags nobody");
    assert!(k.0.exact.is_empty() && k.0.ranges.is_empty() && k.0.port_sets.is_empty());
}

#[test]
fn a_reused_slot_has_a_new_generation_so_that_old_sockets_stay_dead() {
    let mut slots = Slots::default();
    let first = slots.take().unwrap();
    for _ in 1..grantd_common::capacity::GRANTS - 1 {
        slots.take().unwrap();
    }
    assert_eq!(slots.take(), None, "no slot is given out twice");
    slots.give_back(first.index);
    let again = slots.take().unwrap();
    assert_eq!((again.index, again.generation), (first.index, first.generation + 1));
}

#[test]
fn names_and_too_many_port_ranges_refuse_the_whole_grant_and_leave_no_trace() {
    let (mut c, mut k) = (Compiler::default(), Kernel::default());
    let name = Destination::new(
        HostPattern::from_host("db.internal").unwrap(),
        [PortRange::single(1).unwrap()],
        grantd_grant::Protocol::Tcp,
    )
    .unwrap();
    let to = [tcp("10.0.0.1", &[(80, 80)]), name];
    assert_eq!(c.open(&opening(A, 200, &to)).unwrap_err(), CompileError::NameUnsupported);
    let ports = |from: u16| (0..16).map(|i| (from + i * 10, from + i * 10 + 3)).collect::<Vec<_>>();
    let wide = [tcp("10.0.0.0/8", &ports(1000))];
    k.apply(&c.open(&opening(A, 200, &wide)).unwrap().1);
    let more = [tcp("10.0.0.9", &[(7, 7)]), tcp("10.5.0.0/16", &ports(2000))];
    assert_eq!(c.open(&opening(A, 200, &more)).unwrap_err(), CompileError::TooManyPortRanges);
    assert!(
        c.reconcile(&k.0)
            .unwrap()
            .iter()
            .all(|op| !matches!(op, Op::PutExact { .. } | Op::DeleteRange { .. }))
    );
    assert_eq!(c.live_grants(), 1);
}

#[test]
fn a_restart_touches_no_rule_of_a_live_grant_and_removes_what_no_grant_owns() {
    let (mut c, mut k) = (Compiler::default(), Kernel::default());
    let to = [tcp("10.0.0.1", &[(80, 80)]), tcp("10.1.0.0/16", &[(80, 90)])];
    k.apply(&c.set_cgroup(A, Some(77)));
    let (slot, ops) = c.open(&opening(A, 200, &to)).unwrap();
    k.apply(&ops);
    let forgotten = [tcp("10.0.0.2", &[(80, 80)]), tcp("10.2.0.0/16", &[(1, 99)])];
    let (other, ops) = c.open(&opening(B, 200, &forgotten)).unwrap();
    k.apply(&ops);

    let mut again = Compiler::default();
    again.remember_slots(&k.0);
    again.set_cgroup(A, Some(77));
    again.restore(&opening(A, 200, &to), slot).unwrap();
    for op in again.reconcile(&k.0).unwrap() {
        k.apply(&[op]);
        assert!(k.allows(A, (ip("10.0.0.1"), 80, Protocol::TCP)), "refused after {op:?}");
        assert!(k.allows(A, (ip("10.1.0.1"), 85, Protocol::TCP)), "refused after {op:?}");
    }
    assert!(!k.allows(B, (ip("10.0.0.2"), 80, Protocol::TCP)));
    assert!(!k.allows(B, (ip("10.2.0.2"), 80, Protocol::TCP)));
    assert_eq!(k.0.slots[&other.index].deadline_boot_ns, 0);
    assert_eq!((k.0.exact.len(), k.0.ranges.len(), k.0.port_sets.len()), (1, 1, 1));
}

#[test]
fn a_restart_after_a_renewal_keeps_connections_that_were_silent_since() {
    let (mut c, mut k) = (Compiler::default(), Kernel::default());
    let to = [tcp("10.0.0.1", &[(80, 80)])];
    let mut slots = Vec::new();
    for until in [200, 300, 400] {
        let (slot, ops) = c.open(&opening(A, until, &to)).unwrap();
        k.apply(&ops);
        if let Some(SlotRef { index: old, .. }) = slots.last().copied() {
            k.apply(&c.supersede(old, slot.index));
        }
        slots.push(slot);
    }
    let mut again = Compiler::default();
    again.remember_slots(&k.0);
    again.restore(&opening(A, 400, &to), slots[2]).unwrap();
    again.adopt_superseded(&k.0);
    k.apply(&again.reconcile(&k.0).unwrap());
    for old in &slots[..2] {
        assert_ne!(k.0.slots[&old.index].successor, 0, "its sockets would be cut");
    }
    let (reused, _) = again.open(&opening(A, 500, &to)).unwrap();
    assert!(
        slots.iter().all(|s| s.index != reused.index),
        "a slot that sockets rest on was reused"
    );
    k.apply(&again.close(slots[2].index));
    assert!(
        slots.iter().all(|s| k.0.slots[&s.index].successor == reused.index),
        "a chain that ended goes on under the workload's other grant, which judges each socket"
    );
    k.apply(&again.close(reused.index));
    assert!(
        slots.iter().all(|s| k.0.slots[&s.index].successor == 0),
        "a chain that ended re-tags nobody"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Open { workload: u32, to: Vec<(u8, u8, u16, u16)>, until: u64, replaces: Option<usize> },
    Close(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let to = prop::collection::vec((0u8..6, 0u8..4, 0u16..6, 0u16..20), 1..4);
    prop_oneof![
        4 => (16u32..18, to, 150u64..160, prop::option::of(0usize..8))
            .prop_map(|(workload, to, until, replaces)| Step::Open { workload, to, until, replaces }),
        2 => (0usize..8).prop_map(Step::Close),
        1 => Just(Step::Restart),
    ]
}

/// A small world, so that prefixes and ports overlap all the time.
fn world(kind: u8, low: u8, from: u16, len: u16) -> Destination {
    let host = match kind {
        0 | 1 => format!("10.0.0.{low}"),
        2 => "10.0.0.0/30".into(),
        3 => "10.0.0.0/31".into(),
        4 => format!("fd00::{low}"),
        _ => "fd00::/126".into(),
    };
    tcp(&host, &[(100 + from, 100 + from + len)])
}

type Grants = BTreeMap<u32, (WorkloadId, u64, Vec<Destination>, SlotRef)>;

fn compare(k: &Kernel, grants: &Grants) {
    for workload in [A, B] {
        for address in [
            "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::", "fd00::3",
            "fd00::4",
        ]
        .map(ip)
        {
            for port in 99..127 {
                let wanted = grants.values().any(|(w, _, to, _)| {
                    *w == workload
                        && to.iter().any(|d| d.matches(address, port, grantd_grant::Protocol::Tcp))
                });
                assert_eq!(
                    k.allows(workload, (address, port, Protocol::TCP)),
                    wanted,
                    "{workload:?} {address}:{port}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_opened_replaced_ended_and_restarted_the_kernel_allows_exactly_the_open_grants(
        steps in prop::collection::vec(step(), 1..25)
    ) {
        let (mut c, mut k, mut grants) = (Compiler::default(), Kernel::default(), Grants::new());
        for step in steps {
            match step {
                Step::Open { workload, to, until, replaces } => {
                    let to: Vec<_> = to.into_iter().map(|(a, b, p, n)| world(a, b, p, n)).collect();
                    let old = replaces.and_then(|i| grants.keys().nth(i).copied());
                    let before = k.clone();
                    match c.open(&opening(WorkloadId(workload), until, &to)) {
                        Ok((slot, ops)) => {
                            k.apply(&ops);
                            if let Some(old) = old {
                                k.apply(&c.supersede(old, slot.index));
                            }
                            old.map(|o| grants.remove(&o));
                            grants.insert(slot.index, (WorkloadId(workload), until, to, slot));
                        }
                        Err(_) => k = before,
                    }
                }
                Step::Close(i) => if let Some(slot) = grants.keys().nth(i).copied() {
                    k.apply(&c.close(slot));
                    grants.remove(&slot);
                },
                Step::Restart => {
                    c = Compiler::default();
                    c.remember_slots(&k.0);
                    for (w, until, to, slot) in grants.values() {
                        c.restore(&opening(*w, *until, to), *slot).unwrap();
                    }
                    c.adopt_superseded(&k.0);
                    let ops = c.reconcile(&k.0).unwrap();
                    k.apply(&ops);
                }
            }
            compare(&k, &grants);
        }
        let slots: Vec<u32> = grants.keys().copied().collect();
        for slot in slots { k.apply(&c.close(slot)); }
        prop_assert!(k.0.exact.is_empty() && k.0.ranges.is_empty() && k.0.port_sets.is_empty());
        prop_assert!(k.0.slots.values().all(|s| s.deadline_boot_ns == 0 && s.successor == 0));
    }
}

#[test]
fn no_grant_lives_on_by_what_puts_off_the_canarys_deadline() {
    let mut c = Compiler::default();
    let to = [tcp("127.0.0.1", &[(80, 80)])];
    let (grant, _) = c.open(&opening(A, 200, &to)).unwrap();
    let (own, _) = c.open(&opening(WorkloadId::CANARY, 200, &to)).unwrap();
    let later = Deadlines { boot_ns: 900, tai_ns: 900 };
    assert_eq!(c.prolong_canary(grant.index, later), []);
    let value = running(own.generation, later);
    assert_eq!(c.prolong_canary(own.index, later), [Op::PutSlot { slot: own.index, value }]);
}
