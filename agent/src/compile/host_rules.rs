//! What the host's own config, and no grant, gives workloads: callers that are let in, and how many sockets
//! each may hold.

use std::collections::{BTreeMap, BTreeSet};

use grantd_common::{Address, Endpoint, InboundKey, Port, Protocol, WorkloadId};

use super::Compiler;
use crate::kernel::{Callers, Contents, Op};

/// Callers from one prefix, at one port of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetIn {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The workload's own port.
    pub port: Port,
    /// Where callers come from.
    pub from: Address,
    /// Bits of `from` that count, of 128; an IPv4 prefix is 96 longer.
    pub bits: u32,
}

/// The host's rules for all workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    callers: BTreeSet<Callers>,
    limits: BTreeMap<WorkloadId, u64>,
}

impl HostRules {
    /// Lets callers reach a workload.
    pub fn let_in(&mut self, workload: WorkloadId, rule: LetIn) {
        let LetIn { protocol, port, from, bits } = rule;
        let key = InboundKey::new(workload, port, &Endpoint::new(from, port, protocol));
        self.callers.insert(Callers { key, bits });
    }

    /// Says how many sockets a workload may hold.
    pub fn limit(&mut self, workload: WorkloadId, sockets: u64) {
        self.limits.insert(workload, sockets);
    }
}

impl Compiler {
    /// Goes by new rules of the host. Returns what changes: what is no longer let in first.
    pub fn set_host_rules(&mut self, rules: HostRules) -> Vec<Op> {
        let before = std::mem::replace(&mut self.host, rules);
        changes(&before.callers, &before.limits, &self.host)
    }

    pub(super) fn reconcile_host_rules(&self, contents: &Contents, ops: &mut Vec<Op>) {
        ops.extend(changes(&contents.inbound, &contents.limits, &self.host));
    }
}

fn changes(
    callers: &BTreeSet<Callers>,
    limits: &BTreeMap<WorkloadId, u64>,
    wanted: &HostRules,
) -> Vec<Op> {
    let gone = callers.difference(&wanted.callers);
    let new = wanted.callers.difference(callers);
    let limited = wanted.limits.iter().filter(|(w, n)| limits.get(w) != Some(n));
    gone.map(|callers| Op::DeleteInbound { callers: *callers })
        .chain(new.map(|callers| Op::PutInbound { callers: *callers }))
        .chain(limited.map(|(w, n)| Op::PutLimit { workload: *w, sockets: *n }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKLOAD: WorkloadId = WorkloadId(16);

    fn rules(ports: &[u16], limit: u64) -> HostRules {
        let mut rules = HostRules::default();
        for port in ports {
            let (protocol, port) = (Protocol::TCP, Port::new(*port));
            let from = Address::from_v4([10, 0, 0, 0]);
            rules.let_in(WORKLOAD, LetIn { protocol, port, from, bits: 96 + 8 });
        }
        rules.limit(WORKLOAD, limit);
        rules
    }

    #[test]
    fn a_listener_that_leaves_the_config_is_closed_first_and_what_stays_is_not_touched() {
        let mut compiler = Compiler::default();
        assert_eq!(compiler.set_host_rules(rules(&[80, 443], 100)).len(), 3);
        let ops = compiler.set_host_rules(rules(&[443, 8080], 100));
        assert!(matches!(
            ops.as_slice(),
            [Op::DeleteInbound { callers: gone }, Op::PutInbound { callers: new }]
                if gone.key.port == Port::new(80) && new.key.port == Port::new(8080)
        ));
        assert_eq!(compiler.set_host_rules(rules(&[443, 8080], 100)), []);
    }

    #[test]
    fn a_caller_that_the_kernel_still_lets_in_after_a_restart_is_let_in_no_longer() {
        let mut compiler = Compiler::default();
        compiler.set_host_rules(rules(&[443], 100));
        let mut contents = Contents::default();
        contents.inbound.extend(rules(&[80], 1).callers);
        let mut ops = Vec::new();
        compiler.reconcile_host_rules(&contents, &mut ops);
        assert!(matches!(
            ops.as_slice(),
            [Op::DeleteInbound { .. }, Op::PutInbound { .. }, Op::PutLimit { sockets: 100, .. }]
        ));
    }
}
