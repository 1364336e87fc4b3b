//! Making the kernel hold exactly what the model says, after a restart.

use std::collections::BTreeSet;

use grantd_common::{GrantSlot, WorkloadEntry};

use super::{CompileError, Compiler, ended, running};
use crate::kernel::{Contents, Op};

impl Compiler {
    /// Lets the next use of every slot count on from the generation that the kernel remembers.
    pub fn remember_slots(&mut self, contents: &Contents) {
        for (slot, value) in &contents.slots {
            self.slots.remember(*slot, value.generation);
        }
    }

    /// What has to change for the kernel to hold the model and nothing else. What both hold is not
    /// touched, so that connections under live grants notice nothing.
    ///
    /// # Errors
    /// [`CompileError::RangesFull`] when there are no port sets left to write to.
    pub fn reconcile(&mut self, contents: &Contents) -> Result<Vec<Op>, CompileError> {
        let mut ops = Vec::new();
        self.reconcile_slots(contents, &mut ops);
        self.reconcile_cgroups(contents, &mut ops);
        let wanted: std::collections::HashMap<_, _> = self.exact.rules().collect();
        for (key, rule) in &wanted {
            if contents.exact.get(key) != Some(rule) {
                ops.push(Op::PutExact { key: *key, rule: *rule });
            }
        }
        let extra = contents.exact.keys().filter(|k| !wanted.contains_key(k));
        ops.extend(extra.map(|key| Op::DeleteExact { key: *key }));
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

    fn reconcile_slots(&self, contents: &Contents, ops: &mut Vec<Op>) {
        for (slot, found) in &contents.slots {
            let keep = self.live.contains_key(slot);
            let dead = GrantSlot { generation: found.generation, ..GrantSlot::EMPTY };
            if !keep && *found != dead {
                ops.push(Op::PutSlot { slot: *slot, value: ended(found.generation, 0) });
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
