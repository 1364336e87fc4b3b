//! Which events of one ring are accounted for, CPU by CPU.

use std::collections::BTreeMap;

/// First and last sequence number of what is missing.
pub(super) type Gap = (u64, u64);

/// Rounds that a number may be missing before it counts as lost: a program that was interrupted between
/// numbering its event and writing it lets later ones through first.
const PATIENCE: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Account {
    /// The next sequence number that is expected of each CPU.
    next: BTreeMap<u32, u64>,
    /// What the kernel's map has noted of it.
    noted: BTreeMap<u32, u64>,
    /// What was missing at the end when it was last looked at.
    missing: BTreeMap<u32, u64>,
    /// Numbers that later ones have overtaken: (CPU, first) → (last, rounds since).
    overtaken: BTreeMap<(u32, u64), (u64, u32)>,
}

impl Account {
    /// Goes on from what an earlier daemon had noted.
    pub(super) fn new(seen: Vec<u64>) -> Self {
        let next: BTreeMap<u32, u64> = (0..).zip(seen).collect();
        Self { noted: next.clone(), next, ..Self::default() }
    }

    /// An event came through.
    pub(super) fn took(&mut self, cpu: u32, sequence: u64) {
        let next = self.next.entry(cpu).or_insert(0);
        if sequence > *next {
            self.overtaken.insert((cpu, *next), (sequence - 1, 0));
        } else if sequence < *next {
            self.came_late(cpu, sequence);
            return;
        }
        *next = sequence + 1;
    }

    /// It was thought missing, and is not.
    fn came_late(&mut self, cpu: u32, sequence: u64) {
        let before = self.overtaken.range(..=(cpu, sequence)).next_back();
        let Some((&(of, first), &(last, rounds))) = before else { return };
        if of != cpu || last < sequence {
            return;
        }
        self.overtaken.remove(&(cpu, first));
        if first < sequence {
            self.overtaken.insert((cpu, first), (sequence - 1, rounds));
        }
        if sequence < last {
            self.overtaken.insert((cpu, sequence + 1), (last, rounds));
        }
    }

    /// A round has ended: what is still missing from rounds before is lost.
    pub(super) fn lost(&mut self) -> Vec<(u32, Gap)> {
        let mut lost = Vec::new();
        self.overtaken.retain(|(cpu, first), (last, rounds)| {
            *rounds += 1;
            let waits = *rounds <= PATIENCE;
            if !waits {
                lost.push((*cpu, (*first, *last)));
            }
            waits
        });
        lost
    }

    /// The ring is empty: what each CPU has produced beyond what came through is lost, if it is still
    /// missing the second time. (A program numbers an event just before it writes it.)
    pub(super) fn tail(&mut self, produced: &[u64]) -> Vec<(u32, Gap)> {
        let mut lost = Vec::new();
        for (cpu, produced) in (0..).zip(produced.iter().copied()) {
            let next = self.next.entry(cpu).or_insert(0);
            if produced <= *next {
                self.missing.remove(&cpu);
            } else if self.missing.insert(cpu, produced) == Some(produced) {
                lost.push((cpu, (*next, produced - 1)));
                *next = produced;
                self.missing.remove(&cpu);
            }
        }
        lost
    }

    /// Whether there is something to note, and nothing that may still come.
    pub(super) fn moved(&self) -> bool {
        self.next != self.noted && self.overtaken.is_empty()
    }

    /// Whether something may still come that later events have overtaken.
    pub(super) fn waits(&self) -> bool {
        !self.overtaken.is_empty()
    }

    pub(super) fn snapshot(&self) -> BTreeMap<u32, u64> {
        self.next
            .iter()
            .filter(|(cpu, n)| self.noted.get(cpu) != Some(n))
            .map(|(c, n)| (*c, *n))
            .collect()
    }

    pub(super) fn noted(&mut self, seen: &BTreeMap<u32, u64>) {
        self.noted.extend(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost_in(rounds: usize, a: &mut Account) -> Vec<(u32, Gap)> {
        (0..rounds).flat_map(|_| a.lost()).collect()
    }

    #[test]
    fn every_missing_event_is_counted_once_in_the_middle_and_at_the_end() {
        let mut a = Account::new(vec![5, 0]);
        a.took(0, 5);
        a.took(0, 9);
        a.took(1, 0);
        assert_eq!(lost_in(5, &mut a), [(0, (6, 8))], "three were lost on the way");
        assert_eq!(a.tail(&[12, 1]), vec![], "it may just be being written");
        assert_eq!(a.tail(&[12, 1]), vec![(0, (10, 11))]);
        assert_eq!(a.tail(&[12, 1]), vec![]);
        a.took(0, 12);
        assert_eq!(lost_in(5, &mut a), []);
    }

    #[test]
    fn an_event_that_later_ones_overtook_is_not_counted_as_lost() {
        let mut a = Account::new(vec![0]);
        for sequence in [0, 4, 2, 5] {
            a.took(0, sequence);
        }
        assert!(a.waits() && !a.moved(), "what may still come is not noted as done");
        assert_eq!(lost_in(1, &mut a), []);
        a.took(0, 1);
        assert_eq!(lost_in(5, &mut a), [(0, (3, 3))]);
    }

    #[test]
    fn what_a_killed_daemon_took_and_never_wrote_is_reported_by_the_next() {
        let mut a = Account::new(vec![100]);
        a.took(0, 140);
        assert_eq!(lost_in(5, &mut a), [(0, (100, 139))]);
        assert!(a.moved());
        let seen = a.snapshot();
        a.noted(&seen);
        assert!(!a.moved());
    }
}
