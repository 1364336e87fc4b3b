//! Rules for prefixes and port ranges. The kernel finds only the longest prefix, so each prefix holds
//! the union of what it and the prefixes that cover it give.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use grantd_common::{
    Address, Endpoint, PortRange, PortSet, Protocol, RangeKey, RangeRule, WorkloadId, capacity,
};

use super::{CompileError, SlotRef};
use crate::kernel::{Contents, Op, Prefix};

#[derive(Clone, Debug, Default)]
struct Node {
    /// What grants gave for this very prefix.
    own: Vec<PortRange>,
    /// What the kernel holds for it.
    held: Vec<PortRange>,
    /// Its port set; 0 before it has one.
    port_set: u32,
}

#[derive(Debug)]
pub(super) struct RangeRules {
    nodes: BTreeMap<Prefix, Node>,
    by_slot: HashMap<u32, BTreeSet<Prefix>>,
    next_unused_set: u32,
    /// Sets to use again, the longest free first: a program that still holds a number is long gone.
    free_sets: VecDeque<u32>,
}

impl Default for RangeRules {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::new(),
            by_slot: HashMap::new(),
            next_unused_set: 1,
            free_sets: VecDeque::new(),
        }
    }
}

impl RangeRules {
    pub(super) fn add(
        &mut self,
        prefix: Prefix,
        ports: &[(u16, u16)],
        slot: SlotRef,
    ) -> Result<Vec<Op>, CompileError> {
        if !self.nodes.contains_key(&prefix) && self.nodes.len() >= capacity::RANGES as usize {
            return Err(CompileError::RangesFull);
        }
        let node = self.nodes.entry(prefix).or_default();
        let before = node.own.clone();
        for (from, to) in ports {
            let range =
                PortRange { from: *from, to: *to, slot: slot.index, generation: slot.generation };
            if !node.own.contains(&range) {
                node.own.push(range);
            }
        }
        match self.refresh(prefix) {
            Ok(ops) => {
                self.by_slot.entry(slot.index).or_default().insert(prefix);
                Ok(ops)
            }
            Err(error) => {
                if let Some(node) = self.nodes.get_mut(&prefix) {
                    node.own = before;
                    if node.own.is_empty() {
                        self.nodes.remove(&prefix);
                    }
                }
                Err(error)
            }
        }
    }

    /// Takes a slot's rules away: first the prefixes that others still use, then those that go.
    pub(super) fn remove(&mut self, slot: u32) -> (Vec<Op>, Vec<Op>) {
        let (mut narrowed, mut dropped) = (Vec::new(), Vec::new());
        for prefix in self.by_slot.remove(&slot).unwrap_or_default() {
            let Some(node) = self.nodes.get_mut(&prefix) else { continue };
            node.own.retain(|r| r.slot != slot);
            if node.own.is_empty() {
                let set = node.port_set;
                self.nodes.remove(&prefix);
                dropped.push(Op::DeleteRange { prefix });
                dropped.extend(self.retire_set(set));
            }
            // Fewer ranges than before: this cannot fail for their number, and a set that cannot be
            // had leaves the wider one, all of whose ranges of this slot are dead with the slot.
            narrowed.extend(self.refresh(prefix).unwrap_or_default());
        }
        (narrowed, dropped)
    }

    /// Brings a prefix, and all that it covers, up to date; checks everything before it changes any.
    fn refresh(&mut self, prefix: Prefix) -> Result<Vec<Op>, CompileError> {
        let mut wanted = Vec::new();
        for (at, node) in
            self.nodes.range(prefix..).take_while(|(p, _)| covers_or_follows(&prefix, p))
        {
            if !covers(&prefix, at) {
                continue;
            }
            let union = self.union(at);
            if union.len() > capacity::PORTS_PER_SET {
                return Err(CompileError::TooManyPortRanges);
            }
            if union != node.held || node.port_set == 0 {
                wanted.push((*at, union));
            }
        }
        let fresh = (capacity::PORTSETS - self.next_unused_set.min(capacity::PORTSETS)) as usize;
        if wanted.len() > self.free_sets.len() + fresh {
            return Err(CompileError::RangesFull);
        }
        let mut ops = Vec::new();
        for (at, union) in wanted {
            ops.extend(self.point(at, union));
        }
        Ok(ops)
    }

    /// Writes the union to a set that no program reads, points the prefix to it, retires the old one.
    fn point(&mut self, at: Prefix, union: Vec<PortRange>) -> Vec<Op> {
        let Some(index) = self.take_set() else { return Vec::new() };
        let set = port_set(&at, &union);
        let Some(node) = self.nodes.get_mut(&at) else { return Vec::new() };
        let old = std::mem::replace(&mut node.port_set, index);
        node.held = union;
        let mut ops = vec![
            Op::PutPortSet { index, set },
            Op::PutRange { prefix: at, rule: RangeRule { port_set: index } },
        ];
        ops.extend(self.retire_set(old));
        ops
    }

    /// Everything that this prefix and those that cover it give, each once.
    fn union(&self, at: &Prefix) -> Vec<PortRange> {
        let mut all: Vec<PortRange> = (0..=at.bits)
            .filter_map(|bits| self.nodes.get(&shortened(at, bits)))
            .flat_map(|n| n.own.iter().copied())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn take_set(&mut self) -> Option<u32> {
        if self.next_unused_set < capacity::PORTSETS {
            self.next_unused_set += 1;
            return Some(self.next_unused_set - 1);
        }
        self.free_sets.pop_front()
    }

    fn retire_set(&mut self, index: u32) -> Option<Op> {
        if index == 0 {
            return None;
        }
        self.free_sets.push_back(index);
        Some(Op::PutPortSet { index, set: PortSet::EMPTY })
    }

    pub(super) fn workload_has_any(&self, workload: WorkloadId) -> bool {
        let first =
            Prefix { key: RangeKey::new(workload, Protocol(0), Address::UNSPECIFIED), bits: 0 };
        self.nodes.range(first..).next().is_some_and(|(p, _)| p.key.workload == first.key.workload)
    }

    /// Writes every prefix anew to sets outside `in_use`, at a restart.
    pub(super) fn rewrite(&mut self, in_use: &BTreeSet<u32>) -> Result<Vec<Op>, CompileError> {
        self.free_sets = (1..capacity::PORTSETS).filter(|i| !in_use.contains(i)).collect();
        self.next_unused_set = capacity::PORTSETS;
        if self.nodes.len() > self.free_sets.len() {
            return Err(CompileError::RangesFull);
        }
        let prefixes: Vec<Prefix> = self.nodes.keys().copied().collect();
        let mut ops = Vec::new();
        for at in prefixes {
            let union = self.union(&at);
            if let Some(node) = self.nodes.get_mut(&at) {
                node.port_set = 0;
            }
            ops.extend(self.point(at, union));
        }
        for index in in_use {
            ops.extend(self.retire_set(*index));
        }
        Ok(ops)
    }

    /// What the kernel holds otherwise than the model: changes that put it back.
    pub(super) fn differences(&self, contents: &Contents) -> Vec<Op> {
        let extra = contents.ranges.keys().filter(|at| !self.nodes.contains_key(at));
        let mut ops: Vec<Op> = extra.map(|at| Op::DeleteRange { prefix: *at }).collect();
        for (at, node) in &self.nodes {
            let (index, set) = (node.port_set, port_set(at, &node.held));
            if contents.port_sets.get(&index) != Some(&set) {
                ops.push(Op::PutPortSet { index, set });
            }
            let rule = RangeRule { port_set: index };
            if contents.ranges.get(at) != Some(&rule) {
                ops.push(Op::PutRange { prefix: *at, rule });
            }
        }
        ops
    }

    /// The prefixes that the kernel should hold.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &Prefix> {
        self.nodes.keys()
    }

    /// The slots that give this address and port by a prefix.
    pub(super) fn slots_at(
        &self,
        workload: WorkloadId,
        to: &Endpoint,
    ) -> impl Iterator<Item = u32> + '_ {
        let key = RangeKey::new(workload, to.protocol, to.address);
        let port = to.port.get();
        (0..=128)
            .filter_map(move |bits| self.nodes.get(&shortened(&Prefix { key, bits: 128 }, bits)))
            .flat_map(|node| node.own.iter())
            .filter(move |range| (range.from..=range.to).contains(&port))
            .map(|range| range.slot)
    }

    pub(super) fn count(&self, slot: u32) -> usize {
        self.by_slot.get(&slot).map_or(0, BTreeSet::len)
    }
}

fn port_set(at: &Prefix, union: &[PortRange]) -> PortSet {
    let mut set = PortSet {
        workload: WorkloadId(u32::from_be_bytes(at.key.workload)),
        protocol: at.key.protocol,
        ..PortSet::EMPTY
    };
    for (to, from) in set.ranges.iter_mut().zip(union) {
        *to = *from;
    }
    set
}

/// The prefix of `bits` that covers `at`.
fn shortened(at: &Prefix, bits: u32) -> Prefix {
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    let address = u128::from_be_bytes(at.key.address.0) & mask;
    let key = RangeKey { address: Address(address.to_be_bytes()), ..at.key };
    Prefix { key, bits }
}

fn covers(outer: &Prefix, inner: &Prefix) -> bool {
    inner.bits >= outer.bits && shortened(inner, outer.bits) == *outer
}

/// In key order, what a prefix covers follows it without a gap, but for shorter prefixes at the same
/// address.
fn covers_or_follows(outer: &Prefix, other: &Prefix) -> bool {
    shortened(other, outer.bits).key == outer.key
}
