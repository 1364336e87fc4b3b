//! Accepted grants → the rules that the kernel maps should hold, and the changes that lead there.
//!
//! [`Compiler`] is a model of the policy maps. Each change of the set of grants moves the model and
//! returns the operations that make the kernel follow. It is pure: no I/O, no clock.

mod exact;
mod host_rules;
mod ranges;
mod reconcile;
mod slots;

use std::collections::{BTreeMap, HashMap};

use grantd_common::{Endpoint, GrantSlot, Protocol, WorkloadEntry, WorkloadId};
use grantd_grant::{Destination, HostPattern};

use crate::kernel::Op;
use exact::ExactRules;
pub use host_rules::{HostRules, LetIn};
use ranges::RangeRules;
pub use slots::SlotRef;
use slots::Slots;

/// An address with up to so many single ports becomes rules of its own; with more, a port range.
const EXACT_PORTS_PER_ENDPOINT: u32 = 16;

/// Why a grant cannot be put into the kernel. It is refused whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A destination is a name.
    #[error("it grants a name, and this version enforces addresses and CIDRs only")]
    NameUnsupported,
    /// Every slot is taken.
    #[error("every grant slot of this host is taken")]
    NoSlot,
    /// More rules than the exact map holds.
    #[error("the map of addresses is full")]
    ExactFull,
    /// More prefixes than the range map holds.
    #[error("the map of prefixes is full")]
    RangesFull,
    /// Overlapping prefixes need more port ranges than one prefix can hold.
    #[error("together with other live grants a prefix would need more than 16 port ranges")]
    TooManyPortRanges,
}

/// The two deadlines of a grant, as the kernel compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// `CLOCK_TAI`, nanoseconds.
    pub tai_ns: u64,
}

/// What one grant opens for one workload.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// Whose.
    pub workload: WorkloadId,
    /// Until when.
    pub deadlines: Deadlines,
    /// Where to.
    pub destinations: &'a [Destination],
}

/// The model of the policy maps.
#[derive(Debug, Default)]
pub struct Compiler {
    slots: Slots,
    exact: ExactRules,
    ranges: RangeRules,
    /// Live slots: whose they are, and their deadlines.
    live: HashMap<u32, (WorkloadId, Deadlines)>,
    /// Known cgroups of workloads, by cgroup id.
    cgroups: BTreeMap<u64, WorkloadId>,
    /// Slots that were replaced, each with its successor, by the live slot at the end of their chain;
    /// freed together.
    superseded: HashMap<u32, Vec<(u32, u32)>>,
    host: HostRules,
}

impl Compiler {
    /// Opens a grant in a slot of its own.
    ///
    /// # Errors
    /// [`CompileError`]; the model is unchanged.
    pub fn open(&mut self, opening: &Opening<'_>) -> Result<(SlotRef, Vec<Op>), CompileError> {
        let slot = self.slots.take().ok_or(CompileError::NoSlot)?;
        let mut ops = vec![
            Op::PutSlot { slot: slot.index, value: ended(slot.generation, 0) },
            Op::PutSlot { slot: slot.index, value: running(slot.generation, opening.deadlines) },
        ];
        if let Err(error) = self.add_rules(slot, opening, &mut ops) {
            self.slots.give_back(slot.index);
            return Err(error);
        }
        Ok((slot, ops))
    }

    /// Ends a grant in favour of a newer one that is open already: what both cover is not refused for
    /// a moment, and sockets of the old one go on under the new.
    pub fn supersede(&mut self, old: u32, new: u32) -> Vec<Op> {
        if old == new || !self.live.contains_key(&new) {
            return Vec::new();
        }
        self.end(old, Some(new))
    }

    /// Takes up a grant that already has its slot: at a restart.
    ///
    /// # Errors
    /// [`CompileError`]; the model is unchanged.
    pub fn restore(&mut self, opening: &Opening<'_>, slot: SlotRef) -> Result<(), CompileError> {
        if !self.slots.claim(slot) {
            return Err(CompileError::NoSlot);
        }
        self.add_rules(slot, opening, &mut Vec::new())
            .inspect_err(|_| self.slots.give_back(slot.index))
    }

    fn add_rules(
        &mut self,
        slot: SlotRef,
        opening: &Opening<'_>,
        ops: &mut Vec<Op>,
    ) -> Result<(), CompileError> {
        let had_ranges = self.ranges.workload_has_any(opening.workload);
        let mut rules = Vec::new();
        self.live.insert(slot.index, (opening.workload, opening.deadlines));
        let result = opening
            .destinations
            .iter()
            .try_for_each(|d| self.add_destination(slot, opening, d, &mut rules));
        if let Err(error) = result {
            self.live.remove(&slot.index);
            self.exact.remove(slot.index);
            self.ranges.remove(slot.index);
            return Err(error);
        }
        if !had_ranges && self.ranges.workload_has_any(opening.workload) {
            // Before the first prefix stands: a program that does not ask would miss it.
            ops.extend(self.workload_ops(opening.workload));
        }
        ops.extend(rules);
        Ok(())
    }

    fn add_destination(
        &mut self,
        slot: SlotRef,
        opening: &Opening<'_>,
        destination: &Destination,
        ops: &mut Vec<Op>,
    ) -> Result<(), CompileError> {
        let protocol = match destination.protocol() {
            grantd_grant::Protocol::Tcp => Protocol::TCP,
            grantd_grant::Protocol::Udp => Protocol::UDP,
        };
        let (address, bits) = match destination.host() {
            HostPattern::Address(address) => (*address, if address.is_ipv4() { 32 } else { 128 }),
            HostPattern::Cidr(cidr) => (cidr.network(), u32::from(cidr.prefix_len())),
            HostPattern::Name(_) | HostPattern::Wildcard(_) => {
                return Err(CompileError::NameUnsupported);
            }
        };
        let bits = if address.is_ipv4() { bits + 96 } else { bits };
        let ports: u32 =
            destination.ports().iter().map(|r| u32::from(r.to()) - u32::from(r.from()) + 1).sum();
        if bits == 128 && ports <= EXACT_PORTS_PER_ENDPOINT {
            for port in destination.ports().iter().flat_map(|r| r.from()..=r.to()) {
                let to = grantd_common::Endpoint::new(
                    address.into(),
                    grantd_common::Port::new(port),
                    protocol,
                );
                ops.extend(self.exact.add(
                    grantd_common::ExactKey::new(opening.workload, &to),
                    slot,
                    opening.deadlines.boot_ns,
                )?);
            }
            return Ok(());
        }
        let prefix = crate::kernel::Prefix::new(opening.workload, protocol, address.into(), bits);
        let ports: Vec<(u16, u16)> =
            destination.ports().iter().map(|r| (r.from(), r.to())).collect();
        ops.extend(self.ranges.add(prefix, &ports, slot)?);
        Ok(())
    }

    /// Ends a grant: what another live grant still covers is re-pointed first, then the slot ends,
    /// then its rules go. Where the workload holds another live grant, that one is the heir: sockets
    /// whose destination it or a third one covers go on, as new connections to there do.
    pub fn close(&mut self, slot: u32) -> Vec<Op> {
        let heir =
            self.live.get(&slot).and_then(|(workload, _)| self.longest_live(*workload, slot));
        self.end(slot, heir)
    }

    /// Of a workload's other live slots the one that lives longest, so that what rests on it moves least
    /// often.
    fn longest_live(&self, workload: WorkloadId, but: u32) -> Option<u32> {
        let others = self.live.iter().filter(|(slot, (w, _))| *w == workload && **slot != but);
        others
            .max_by_key(|(slot, (_, deadlines))| (deadlines.boot_ns, **slot))
            .map(|(slot, _)| *slot)
    }

    /// Whether a live grant of the workload covers an endpoint now.
    #[must_use]
    pub fn covers(&self, workload: WorkloadId, to: &Endpoint, now: &grantd_common::Now) -> bool {
        let lives = |slot: u32| {
            self.live.get(&slot).is_some_and(|(_, deadlines)| {
                now.boot_ns < deadlines.boot_ns && now.tai_ns < deadlines.tai_ns
            })
        };
        let key = grantd_common::ExactKey::new(workload, to);
        self.exact.slots_at(&key).any(lives) || self.ranges.slots_at(workload, to).any(lives)
    }

    /// Whether ended grants are kept for sockets that may still rest on them.
    #[must_use]
    pub fn keeps_ended(&self) -> bool {
        !self.superseded.is_empty()
    }

    /// Frees the slots of ended grants on which no socket rests any more.
    pub fn release(&mut self, rests: impl Fn(SlotRef) -> bool) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut chains = std::mem::take(&mut self.superseded);
        for chain in chains.values_mut() {
            let (kept, free): (Vec<_>, Vec<_>) = chain.drain(..).partition(|(index, _)| {
                let generation = self.slots.generation(*index);
                generation.is_some_and(|generation| rests(SlotRef { index: *index, generation }))
            });
            *chain = kept;
            for (slot, _) in free {
                ops.extend(self.free_ended(slot));
            }
        }
        chains.retain(|_, chain| !chain.is_empty());
        self.superseded = chains;
        ops
    }

    fn end(&mut self, slot: u32, successor: Option<u32>) -> Vec<Op> {
        let Some((workload, _)) = self.live.remove(&slot) else { return Vec::new() };
        let Some(generation) = self.slots.generation(slot) else { return Vec::new() };
        let (repointed, deleted) = self.exact.remove(slot);
        let had_ranges = self.ranges.workload_has_any(workload);
        let (narrowed, dropped) = self.ranges.remove(slot);
        let mut ops = repointed;
        ops.extend(narrowed);
        ops.push(Op::PutSlot { slot, value: ended(generation, successor.unwrap_or(0)) });
        ops.extend(deleted);
        ops.extend(dropped);
        if had_ranges && !self.ranges.workload_has_any(workload) {
            ops.extend(self.workload_ops(workload));
        }
        match successor {
            // Sockets may rest on it until their next packet: it is kept until its heir ends.
            Some(new) => {
                let chain = self.superseded.remove(&slot).unwrap_or_default();
                for (old, _) in &chain {
                    if let Some(generation) = self.slots.generation(*old) {
                        ops.push(Op::PutSlot { slot: *old, value: ended(generation, new) });
                    }
                }
                let all = chain.into_iter().map(|(old, _)| old).chain([slot]);
                self.superseded.entry(new).or_default().extend(all.map(|old| (old, new)));
            }
            None => ops.extend(self.free(slot)),
        }
        ops
    }

    /// Frees a slot and those that it superseded, whose sockets must find no successor any more.
    fn free(&mut self, slot: u32) -> Vec<Op> {
        let mut ops = Vec::new();
        for (old, _) in self.superseded.remove(&slot).unwrap_or_default() {
            ops.extend(self.free_ended(old));
        }
        self.slots.give_back(slot);
        ops
    }

    fn free_ended(&mut self, slot: u32) -> Option<Op> {
        let generation = self.slots.generation(slot);
        self.slots.give_back(slot);
        generation.map(|generation| Op::PutSlot { slot, value: ended(generation, 0) })
    }

    /// Shortens a live grant, when the wall clock was stepped forward.
    pub fn shorten(&mut self, slot: u32, deadlines: Deadlines) -> Vec<Op> {
        let Some(generation) = self.slots.generation(slot) else { return Vec::new() };
        match self.live.get_mut(&slot) {
            Some((_, old)) if deadlines.boot_ns < old.boot_ns => {
                *old = deadlines;
                vec![Op::PutSlot { slot, value: running(generation, deadlines) }]
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Puts off the deadline of the canary's slot, which alone may live on: a grant ends when it was said to.
    pub fn prolong_canary(&mut self, slot: u32, deadlines: Deadlines) -> Vec<Op> {
        let Some(generation) = self.slots.generation(slot) else { return Vec::new() };
        match self.live.get_mut(&slot) {
            Some((WorkloadId::CANARY, old)) => {
                *old = deadlines;
                vec![Op::PutSlot { slot, value: running(generation, deadlines) }]
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Makes a workload's cgroup known, and forgets those that it had before. Returns what changes.
    pub fn set_cgroup(&mut self, workload: WorkloadId, cgroup: Option<u64>) -> Vec<Op> {
        let stale: Vec<u64> = self
            .cgroups
            .iter()
            .filter(|(id, w)| **w == workload && Some(**id) != cgroup)
            .map(|(id, _)| *id)
            .collect();
        let mut ops = Vec::new();
        for id in stale {
            self.cgroups.remove(&id);
            ops.push(Op::DeleteWorkload { cgroup: id });
        }
        if let Some(id) = cgroup.filter(|id| self.cgroups.insert(*id, workload) != Some(workload)) {
            ops.push(Op::PutWorkload { cgroup: id, entry: self.entry(workload) });
        }
        ops
    }

    /// The workloads that have a known cgroup.
    pub fn workloads(&self) -> impl Iterator<Item = WorkloadId> + '_ {
        self.cgroups.values().copied()
    }

    /// The cgroup by which a workload is known now.
    #[must_use]
    pub fn cgroup(&self, workload: WorkloadId) -> Option<u64> {
        self.cgroups.iter().find(|(_, w)| **w == workload).map(|(id, _)| *id)
    }

    fn entry(&self, workload: WorkloadId) -> WorkloadEntry {
        let flags = if self.ranges.workload_has_any(workload) { WorkloadEntry::RANGES } else { 0 };
        WorkloadEntry { workload, flags }
    }

    fn workload_ops(&self, workload: WorkloadId) -> Vec<Op> {
        let entry = self.entry(workload);
        let of_workload = self.cgroups.iter().filter(|(_, w)| **w == workload);
        of_workload.map(|(id, _)| Op::PutWorkload { cgroup: *id, entry }).collect()
    }

    /// How many grants are open.
    #[must_use]
    pub fn live_grants(&self) -> usize {
        self.live.len()
    }

    /// How many rules a slot has, exact and prefixes together.
    #[must_use]
    pub fn rules_of(&self, slot: u32) -> usize {
        self.exact.count(slot) + self.ranges.count(slot)
    }
}

const fn running(generation: u32, deadlines: Deadlines) -> GrantSlot {
    GrantSlot {
        deadline_boot_ns: deadlines.boot_ns,
        deadline_tai_ns: deadlines.tai_ns,
        generation,
        successor: 0,
    }
}

const fn ended(generation: u32, successor: u32) -> GrantSlot {
    GrantSlot { deadline_boot_ns: 0, deadline_tai_ns: 0, generation, successor }
}

#[cfg(test)]
mod tests;
