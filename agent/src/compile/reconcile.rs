//! Making the kernel hold exactly what the model says, after a restart.

use std::collections::BTreeSet;

use grantd_common::{WorkloadEntry, WorkloadId};

use super::{CompileError, Compiler, SlotRef, ended, running};
use crate::kernel::{Contents, Op};

impl Compiler {
    /// Lets the next use of every slot count on from the generation that the kernel remembers.
    pub fn remember_slots(&mut self, contents: &Contents) {
        for (slot, value) in &contents.slots {
            self.slots.remember(*slot, value.generation);
        }
    }

    /// Takes up slots that the kernel holds as replaced by a live one: connections under them that were
    /// silent since go on under the new grant.
    pub fn adopt_superseded(&mut self, contents: &Contents) {
        for (slot, found) in &contents.slots {
            let replaced = found.deadline_boot_ns == 0 && found.successor != 0;
            let Some(live) = self.heir(found.successor, contents).filter(|_| replaced) else {
                continue;
            };
            let at = SlotRef { index: *slot, generation: found.generation };
            if self.slots.claim(at) {
                self.superseded.entry(live).or_default().push((*slot, live));
            }
        }
    }

    /// Takes up a grant that is over since the last daemon, at a restart: what another live grant of the
    /// workload covers goes on, as in [`Self::close`].
    pub fn adopt_ended(&mut self, slot: SlotRef, workload: WorkloadId) {
        let Some(heir) = self.longest_live(workload, slot.index) else { return };
        if self.slots.claim(slot) {
            self.superseded.entry(heir).or_default().push((slot.index, heir));
        }
    }

    /// The live slot at the end of a chain of replacements. A chain is never longer than the slots.
    fn heir(&self, first: u32, contents: &Contents) -> Option<u32> {
        let taken_up: std::collections::HashMap<u32, u32> =
            self.superseded.values().flatten().copied().collect();
        let mut slot = first;
        for _ in 0..contents.slots.len() {
            if self.live.contains_key(&slot) {
                return Some(slot);
            }
            if let Some(heir) = taken_up.get(&slot) {
                return Some(*heir);
            }
            slot = contents.slots.get(&slot).map(|s| s.successor).filter(|s| *s != 0)?;
        }
        None
    }

    /// What has to change for the kernel to hold the model and nothing else. What both hold is not
    /// touched, so that connections under live grants notice nothing.
    ///
    /// # Errors
    /// [`CompileError::RangesFull`] when there are no port sets left to write to.
    pub fn reconcile(&mut self, contents: &Contents) -> Result<Vec<Op>, CompileError> {
        let mut ops = self.fixed_differences(contents);
        let in_use: BTreeSet<u32> = contents
            .port_sets
            .keys()
            .copied()
            .chain(contents.ranges.values().map(|r| r.port_set))
            .filter(|i| *i != 0)
            .collect();
        let kept: BTreeSet<_> = self.ranges.prefixes().copied().collect();
        let gone = contents.ranges.keys().filter(|p| !kept.contains(p));
        ops.extend(gone.map(|prefix| Op::DeleteRange { prefix: *prefix }));
        ops.extend(self.ranges.rewrite(&in_use)?);
        Ok(ops)
    }

    /// What the kernel holds otherwise than the model, while the daemon runs: the changes that would put it
    /// back. Nothing where nobody else wrote.
    #[must_use]
    pub fn differences(&self, contents: &Contents) -> Vec<Op> {
        let mut ops = self.fixed_differences(contents);
        ops.extend(self.ranges.differences(contents));
        ops
    }

    fn fixed_differences(&self, contents: &Contents) -> Vec<Op> {
        let mut ops = Vec::new();
        self.reconcile_slots(contents, &mut ops);
        self.reconcile_cgroups(contents, &mut ops);
        self.reconcile_host_rules(contents, &mut ops);
        let wanted: std::collections::HashMap<_, _> = self.exact.rules().collect();
        for (key, rule) in &wanted {
            if contents.exact.get(key) != Some(rule) {
                ops.push(Op::PutExact { key: *key, rule: *rule });
            }
        }
        let extra = contents.exact.keys().filter(|k| !wanted.contains_key(k));
        ops.extend(extra.map(|key| Op::DeleteExact { key: *key }));
        ops
    }

    fn reconcile_slots(&self, contents: &Contents, ops: &mut Vec<Op>) {
        let heirs: std::collections::HashMap<u32, u32> =
            self.superseded.values().flatten().copied().collect();
        for (slot, found) in &contents.slots {
            let successor = heirs.get(slot).copied().unwrap_or(0);
            let wanted = ended(found.generation, successor);
            if !self.live.contains_key(slot) && *found != wanted {
                ops.push(Op::PutSlot { slot: *slot, value: wanted });
            }
        }
        for (slot, (_, deadlines)) in &self.live {
            let Some(generation) = self.slots.generation(*slot) else { continue };
            let value = running(generation, *deadlines);
            if contents.slots.get(slot) != Some(&value) {
                ops.push(Op::PutSlot { slot: *slot, value });
            }
        }
    }

    fn reconcile_cgroups(&self, contents: &Contents, ops: &mut Vec<Op>) {
        for (cgroup, entry) in &contents.workloads {
            let slice = entry.flags & WorkloadEntry::SLICE != 0;
            if !slice && !self.cgroups.contains_key(cgroup) {
                ops.push(Op::DeleteWorkload { cgroup: *cgroup });
            }
        }
        for (cgroup, workload) in &self.cgroups {
            let entry = self.entry(*workload);
            if contents.workloads.get(cgroup) != Some(&entry) {
                ops.push(Op::PutWorkload { cgroup: *cgroup, entry });
            }
        }
    }
}
