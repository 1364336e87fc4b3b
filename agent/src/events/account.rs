//! Which events of one ring are accounted for, CPU by CPU.

use std::collections::BTreeMap;

/// First and last sequence number of what is missing.
pub(super) type Gap = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Account {
    /// The next sequence number that is expected of each CPU.
    next: BTreeMap<u32, u64>,
    /// What the kernel's map has noted of it.
    noted: BTreeMap<u32, u64>,
    /// What was missing at the end when it was last looked at.
    missing: BTreeMap<u32, u64>,
}

impl Account {
    /// Goes on from what an earlier daemon had noted.
    pub(super) fn new(seen: Vec<u64>) -> Self {
        let next: BTreeMap<u32, u64> = (0..).zip(seen).collect();
        Self { noted: next.clone(), next, missing: BTreeMap::new() }
    }

    /// An event came through; what is missing before it is lost.
    pub(super) fn took(&mut self, cpu: u32, sequence: u64) -> Option<Gap> {
        let next = self.next.entry(cpu).or_insert(0);
        let gap = (sequence > *next).then(|| (*next, sequence - 1));
        *next = (*next).max(sequence + 1);
        gap
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

    pub(super) fn moved(&self) -> bool {
        self.next != self.noted
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

    #[test]
    fn every_missing_event_is_counted_once_in_the_middle_and_at_the_end() {
        let mut a = Account::new(vec![5, 0]);
        assert_eq!(a.took(0, 5), None);
        assert_eq!(a.took(0, 9), Some((6, 8)), "three were lost on the way");
        assert_eq!(a.took(1, 0), None);
        assert_eq!(a.tail(&[12, 1]), vec![], "it may just be being written");
        assert_eq!(a.tail(&[12, 1]), vec![(0, (10, 11))]);
        assert_eq!(a.tail(&[12, 1]), vec![]);
        assert_eq!(a.took(0, 12), None);
    }

    #[test]
    fn what_a_killed_daemon_took_and_never_wrote_is_reported_by_the_next() {
        let mut a = Account::new(vec![100]);
        assert_eq!(a.took(0, 140), Some((100, 139)));
        assert!(a.moved());
        let seen = a.snapshot();
        a.noted(&seen);
        assert!(!a.moved());
    }
}
