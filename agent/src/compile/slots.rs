//! Which slot is whose, and the generations.

use std::collections::{BTreeSet, HashMap, VecDeque};

use grantd_common::capacity;

/// A slot in one of its uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotRef {
    /// Index into `GRANTS`.
    pub index: u32,
    /// Which use of it.
    pub generation: u32,
}

/// Free slots are reused oldest first, so that one that just ended rests the longest.
#[derive(Debug)]
pub(super) struct Slots {
    next_unused: u32,
    free: VecDeque<u32>,
    taken: BTreeSet<u32>,
    generations: HashMap<u32, u32>,
}

impl Default for Slots {
    fn default() -> Self {
        // Slot 0 is never valid: a zeroed rule or socket points to nothing.
        Self {
            next_unused: 1,
            free: VecDeque::new(),
            taken: BTreeSet::new(),
            generations: HashMap::new(),
        }
    }
}

impl Slots {
    /// A free slot in a new generation.
    pub(super) fn take(&mut self) -> Option<SlotRef> {
        let index = self.pick()?;
        let before = self.generations.get(&index).copied().unwrap_or(0);
        // A generation that would start over could revive a forgotten rule: that slot is retired.
        let generation = before.checked_add(1)?;
        self.generations.insert(index, generation);
        self.taken.insert(index);
        Some(SlotRef { index, generation })
    }

    fn pick(&mut self) -> Option<u32> {
        while self.next_unused < capacity::GRANTS {
            let index = self.next_unused;
            self.next_unused += 1;
            if !self.taken.contains(&index) {
                return Some(index);
            }
        }
        self.free.pop_front()
    }

    /// Takes one particular slot, at a restart.
    pub(super) fn claim(&mut self, slot: SlotRef) -> bool {
        if slot.index == 0 || slot.index >= capacity::GRANTS || !self.taken.insert(slot.index) {
            return false;
        }
        self.free.retain(|f| *f != slot.index);
        let known = self.generations.entry(slot.index).or_insert(slot.generation);
        *known = (*known).max(slot.generation);
        true
    }

    pub(super) fn give_back(&mut self, index: u32) {
        if self.taken.remove(&index) {
            self.free.push_back(index);
        }
    }

    /// The generation of a slot that is taken.
    pub(super) fn generation(&self, index: u32) -> Option<u32> {
        self.taken.contains(&index).then(|| self.generations.get(&index).copied()).flatten()
    }

    /// What the kernel remembers of a slot: its next use must count on from there.
    pub(super) fn remember(&mut self, index: u32, generation: u32) {
        let known = self.generations.entry(index).or_insert(generation);
        *known = (*known).max(generation);
    }
}
