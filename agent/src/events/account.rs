//! Which events of one ring are accounted for, CPU by CPU.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// First and last sequence number of what is missing.
pub(super) type Gap = (u64, u64);

/// Rounds that a number may be missing before it counts as lost, half a second or so: a program that was
/// interrupted between numbering its event and writing it lets later ones through first, and on a busy
/// machine its task may have to wait for its turn.
const PATIENCE: u32 = 100;

#[derive(Debug, Default)]
pub(super) struct Account {
    /// The next sequence number that is expected of each CPU.
    next: BTreeMap<u32, u64>,
    /// What the kernel's map has noted of it.
    noted: BTreeMap<u32, u64>,
    /// What was missing at the end when it was last looked at: (number after the last, rounds since).
    missing: BTreeMap<u32, (u64, u32)>,
    /// Numbers that later ones have overtaken: (CPU, first) → (last, rounds since).
    overtaken: BTreeMap<(u32, u64), (u64, u32)>,
    /// The newest events in a row that leave no record.
    aside: BTreeMap<u32, Range<u64>>,
    /// Whose run the kernel's map does not have yet.
    aside_moved: BTreeSet<u32>,
}

impl Account {
    /// Goes on from what an earlier daemon had noted, CPU by CPU: the next number, and the newest run of
    /// events that leave no record.
    pub(super) fn new(seen: Vec<(u64, Range<u64>)>) -> Self {
        let mut account = Self::default();
        for (cpu, (next, aside)) in (0..).zip(seen) {
            account.noted.insert(cpu, next);
            account.next.insert(cpu, next);
            if !aside.is_empty() && aside.end > next {
                if aside.start > next {
                    account.overtaken.insert((cpu, next), (aside.start - 1, 0));
                }
                account.next.insert(cpu, aside.end);
            }
            account.aside.insert(cpu, aside);
        }
        account
    }

    /// An event that came through leaves no record. What a killed daemon took and put aside would
    /// otherwise look like a loss to the next.
    pub(super) fn put_aside(&mut self, cpu: u32, sequence: u64) {
        let run = self.aside.entry(cpu).or_insert(sequence..sequence);
        if run.end == sequence {
            run.end += 1;
        } else {
            *run = sequence..sequence + 1;
        }
        self.aside_moved.insert(cpu);
    }

    /// The runs that changed since this was last asked.
    pub(super) fn newly_aside(&mut self) -> Vec<(u32, Range<u64>)> {
        let moved = std::mem::take(&mut self.aside_moved);
        moved.into_iter().filter_map(|cpu| Some((cpu, self.aside.get(&cpu)?.clone()))).collect()
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

    /// The ring is empty: what each CPU has produced beyond what came through is lost, if it goes on
    /// missing. (A program numbers an event just before it writes it.)
    pub(super) fn tail(&mut self, produced: &[u64]) -> Vec<(u32, Gap)> {
        let mut lost = Vec::new();
        for (cpu, produced) in (0..).zip(produced.iter().copied()) {
            let next = self.next.entry(cpu).or_insert(0);
            if produced <= *next {
                self.missing.remove(&cpu);
                continue;
            }
            let (upto, rounds) = self.missing.entry(cpu).or_insert((produced, 0));
            if *rounds < PATIENCE {
                *rounds += 1;
                continue;
            }
            // What was numbered since has its own time to come.
            let upto = *upto;
            self.missing.remove(&cpu);
            if upto > *next {
                lost.push((cpu, (*next, upto - 1)));
                *next = upto;
            }
        }
        lost
    }

    /// Whether there is something to note, and nothing that may still come.
    pub(super) fn moved(&self) -> bool {
        self.next != self.noted && self.overtaken.is_empty()
    }

    /// Whether something that is missing may still come.
    pub(super) fn waits(&self) -> bool {
        !(self.overtaken.is_empty() && self.missing.is_empty())
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

    /// More than patience lasts.
    const ROUNDS: usize = PATIENCE as usize + 1;

    fn tail_in(rounds: usize, a: &mut Account, produced: &[u64]) -> Vec<(u32, Gap)> {
        (0..rounds).flat_map(|_| a.tail(produced)).collect()
    }

    fn lost_in(rounds: usize, a: &mut Account) -> Vec<(u32, Gap)> {
        (0..rounds).flat_map(|_| a.lost()).collect()
    }

    #[test]
    fn every_missing_event_is_counted_once_in_the_middle_and_at_the_end() {
        let mut a = Account::new(vec![(5, 0..0), (0, 0..0)]);
        a.took(0, 5);
        a.took(0, 9);
        a.took(1, 0);
        assert_eq!(lost_in(ROUNDS, &mut a), [(0, (6, 8))], "three were lost on the way");
        assert_eq!(tail_in(ROUNDS - 2, &mut a, &[12, 1]), [], "it may just be being written");
        assert_eq!(tail_in(3, &mut a, &[13, 1]), [(0, (10, 11))]);
        assert!(a.waits(), "the newest may still come");
        a.took(0, 12);
        assert_eq!(tail_in(ROUNDS, &mut a, &[13, 1]), []);
        assert_eq!(lost_in(ROUNDS, &mut a), []);
        assert!(!a.waits());
    }

    #[test]
    fn an_event_that_later_ones_overtook_is_not_counted_as_lost() {
        let mut a = Account::new(vec![(0, 0..0)]);
        for sequence in [0, 4, 2, 5] {
            a.took(0, sequence);
        }
        assert!(a.waits() && !a.moved(), "what may still come is not noted as done");
        assert_eq!(lost_in(1, &mut a), []);
        a.took(0, 1);
        assert_eq!(lost_in(ROUNDS, &mut a), [(0, (3, 3))]);
    }

    #[test]
    fn what_a_killed_daemon_took_and_never_wrote_is_reported_by_the_next() {
        let mut a = Account::new(vec![(100, 3..5)]);
        a.took(0, 140);
        assert_eq!(lost_in(ROUNDS, &mut a), [(0, (100, 139))]);
        assert!(a.moved());
        let seen = a.snapshot();
        a.noted(&seen);
        assert!(!a.moved());
    }

    #[test]
    fn what_a_killed_daemon_put_aside_is_not_reported_as_lost_by_the_next() {
        let mut a = Account::new(vec![(0, 0..0), (7, 0..0)]);
        a.took(1, 7);
        for sequence in [1, 3, 4] {
            a.put_aside(0, sequence);
        }
        assert_eq!(a.newly_aside(), [(0, 3..5)], "the newest run");
        assert_eq!(a.newly_aside(), []);
        let mut next = Account::new(vec![(3, 3..5), (8, 0..0)]);
        assert!(next.moved(), "noted as done with the next flush");
        next.took(0, 5);
        assert_eq!(lost_in(ROUNDS, &mut next), [], "all of it is accounted for");
        next.put_aside(0, 5);
        assert_eq!(
            next.newly_aside(),
            [(0, 3..6)],
            "one row, also when this daemon is killed at once"
        );
        let mut next = Account::new(vec![(1, 3..5)]);
        assert_eq!(
            lost_in(ROUNDS, &mut next),
            [(0, (1, 2))],
            "what came before it and is not on disk is lost"
        );
    }
}
