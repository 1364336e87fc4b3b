//! Rules for one address and port. Several grants may give the same; the kernel holds the one that
//! lasts longest.

use std::collections::HashMap;

use grantd_common::{ExactKey, ExactRule, capacity};

use super::{CompileError, SlotRef};
use crate::kernel::Op;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    slot: SlotRef,
    deadline_boot_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct ExactRules {
    by_key: HashMap<ExactKey, Vec<Owner>>,
    by_slot: HashMap<u32, Vec<ExactKey>>,
}

impl ExactRules {
    pub(super) fn add(
        &mut self,
        key: ExactKey,
        slot: SlotRef,
        deadline_boot_ns: u64,
    ) -> Result<Option<Op>, CompileError> {
        if !self.by_key.contains_key(&key) && self.by_key.len() >= capacity::EXACT as usize {
            return Err(CompileError::ExactFull);
        }
        let owners = self.by_key.entry(key).or_default();
        if owners.iter().any(|o| o.slot.index == slot.index) {
            return Ok(None);
        }
        let before = longest(owners);
        owners.push(Owner { slot, deadline_boot_ns });
        let after = longest(owners);
        self.by_slot.entry(slot.index).or_default().push(key);
        Ok((before != after).then(|| after.map(|o| put(key, o))).flatten())
    }

    /// Takes a slot's rules away: first what is re-pointed to other grants, then what is deleted.
    pub(super) fn remove(&mut self, slot: u32) -> (Vec<Op>, Vec<Op>) {
        let (mut repointed, mut deleted) = (Vec::new(), Vec::new());
        for key in self.by_slot.remove(&slot).unwrap_or_default() {
            let Some(owners) = self.by_key.get_mut(&key) else { continue };
            let before = longest(owners);
            owners.retain(|o| o.slot.index != slot);
            match longest(owners) {
                None => {
                    self.by_key.remove(&key);
                    deleted.push(Op::DeleteExact { key });
                }
                Some(after) if Some(after) != before => repointed.push(put(key, after)),
                Some(_) => {}
            }
        }
        (repointed, deleted)
    }

    /// What the kernel should hold.
    pub(super) fn rules(&self) -> impl Iterator<Item = (ExactKey, ExactRule)> + '_ {
        self.by_key.iter().filter_map(|(key, owners)| longest(owners).map(|o| (*key, rule(o))))
    }

    /// The slots that give this very address and port.
    pub(super) fn slots_at(&self, key: &ExactKey) -> impl Iterator<Item = u32> + '_ {
        self.by_key.get(key).into_iter().flatten().map(|o| o.slot.index)
    }

    pub(super) fn count(&self, slot: u32) -> usize {
        self.by_slot.get(&slot).map_or(0, Vec::len)
    }
}

fn longest(owners: &[Owner]) -> Option<Owner> {
    owners.iter().copied().max_by_key(|o| (o.deadline_boot_ns, o.slot.index))
}

fn put(key: ExactKey, owner: Owner) -> Op {
    Op::PutExact { key, rule: rule(owner) }
}

fn rule(owner: Owner) -> ExactRule {
    ExactRule {
        slot: owner.slot.index,
        generation: owner.slot.generation,
        not_after_boot_ns: u64::MAX,
        name: 0,
        padding: 0,
    }
}
