//! Random sequences of everything that can happen, against a model of a few lines.

use std::collections::BTreeMap;

use grantd_grant::{ReplayAnswer, Selector};
use proptest::prelude::*;

use super::{super::*, support::*};

#[derive(Debug, Clone)]
enum Step {
    Accept { id: u8, of: u8, hash: u8, ttl: u64 },
    Mark { id: u8, replaces: Option<u8> },
    End { id: u8 },
    Abandon { id: u8 },
    Revoke { of: u8, by_id: Option<u8>, back: u64 },
    Pass { seconds: u64 },
    Prune,
    Reopen,
    Reboot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (id, of) = (0..6_u8, 0..3_u8);
    let step = prop_oneof![
        6 => (id.clone(), of.clone(), 0..2_u8, 30..200_u64)
            .prop_map(|(id, of, hash, ttl)| Step::Accept { id, of, hash, ttl }),
        2 => (id.clone(), proptest::option::of(id.clone()))
            .prop_map(|(id, replaces)| Step::Mark { id, replaces }),
        2 => id.clone().prop_map(|id| Step::End { id }),
        1 => id.clone().prop_map(|id| Step::Abandon { id }),
        2 => (of, proptest::option::of(id), 0..40_u64)
            .prop_map(|(of, by_id, back)| Step::Revoke { of, by_id, back }),
        3 => (1..400_u64).prop_map(|seconds| Step::Pass { seconds }),
        2 => Just(Step::Prune),
        2 => Just(Step::Reopen),
        1 => Just(Step::Reboot),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What the ledger should know.
#[derive(Default)]
struct Model {
    grants: BTreeMap<u8, Entry>,
    /// Id to the second until which that is remembered.
    revoked_ids: BTreeMap<u8, u64>,
    /// Group to the newest `issued_before`.
    revoked_groups: BTreeMap<u8, u64>,
}

struct Entry {
    of: u8,
    hash: u8,
    issued: u64,
    expires: u64,
    state: Phase,
}

#[derive(PartialEq, Clone, Copy, Debug)]
enum Phase {
    Accepted,
    InForce,
    Over,
}

impl Model {
    fn replay(&self, id: u8, of: u8, hash: u8, issued: u64) -> ReplayAnswer {
        match self.grants.get(&id) {
            Some(known) if known.hash != hash => ReplayAnswer::OtherHash,
            Some(known) if known.state != Phase::Over => ReplayAnswer::Same,
            Some(_) => ReplayAnswer::Revoked,
            None if self.revoked_ids.contains_key(&id) => ReplayAnswer::Revoked,
            None if self.revoked_groups.get(&of).is_some_and(|until| issued <= *until) => {
                ReplayAnswer::SubjectRevoked
            }
            None => ReplayAnswer::New,
        }
    }

    fn end(&mut self, id: u8) {
        if let Some(entry) = self.grants.get_mut(&id) {
            entry.state = Phase::Over;
        }
    }

    fn live(&self) -> Vec<(String, Phase)> {
        let live = self.grants.iter().filter(|(_, entry)| entry.state != Phase::Over);
        live.map(|(id, entry)| (name(*id), entry.state)).collect()
    }
}

fn name(id: u8) -> String {
    format!("g{id}")
}

fn group(of: u8) -> char {
    char::from(b'a' + of)
}

struct Run {
    home: Home,
    model: Model,
    now: u64,
    seq: u64,
    boots: u8,
}

impl Run {
    fn take(&mut self, step: Step) {
        match step {
            Step::Accept { id, of, hash, ttl } => self.accept(id, of, hash, ttl),
            Step::Mark { id: n, replaces } => {
                let replaced = replaces.filter(|old| *old != n);
                let old = replaced.map(|old| id(&name(old)));
                self.home.mark_in_force(&id(&name(n)), old.as_ref(), at(self.now)).unwrap();
                replaced.into_iter().for_each(|old| self.model.end(old));
                if let Some(entry) = self.model.grants.get_mut(&n)
                    && entry.state == Phase::Accepted
                {
                    entry.state = Phase::InForce;
                }
            }
            Step::End { id: n } => {
                self.home.end(&id(&name(n)), EndCause::Expired, at(self.now)).unwrap();
                self.model.end(n);
            }
            Step::Abandon { id: n } => {
                self.home.abandon(&id(&name(n))).unwrap();
                let accepted = |entry: &Entry| entry.state == Phase::Accepted;
                if self.model.grants.get(&n).is_some_and(accepted) {
                    self.model.grants.remove(&n);
                }
            }
            Step::Revoke { of, by_id, back } => self.revoke(of, by_id, self.now - back),
            Step::Pass { seconds } => self.now += seconds,
            Step::Prune => self.prune(),
            Step::Reopen => {
                // As a daemon that is stopped in order does; a mark that waits is lost in a crash.
                self.home.settle().unwrap();
                let boot = boot(self.boots);
                let opened = self.home.open(&host(), &boot, at(self.now));
                assert!(matches!(opened, Opened::Restored { .. }), "{opened:?}");
            }
            Step::Reboot => {
                self.home.settle().unwrap();
                self.boots += 1;
                let opened = self.home.open(&host(), &boot(self.boots), at(self.now));
                assert!(matches!(opened, Opened::NewBoot { .. }), "{opened:?}");
                self.model.grants.values_mut().for_each(|entry| entry.state = Phase::Over);
            }
        }
    }

    fn accept(&mut self, id: u8, of: u8, hash: u8, ttl: u64) {
        let spec = grant(&name(id)).of(group(of)).hash(hash).issued(self.now).ttl(ttl).make();
        let expected = self.model.replay(id, of, hash, self.now);
        assert_eq!(self.home.replay(&spec), expected, "g{id} of {of} at {}", self.now);
        match self.home.accept(spec) {
            Ok(()) => {
                assert_eq!(expected, ReplayAnswer::New);
                let expires = self.now + ttl;
                let state = Phase::Accepted;
                self.model.grants.insert(id, Entry { of, hash, issued: self.now, expires, state });
            }
            Err(AcceptError::Replay(answer)) => assert_eq!(answer, expected),
            Err(other) => panic!("{other}"),
        }
    }

    fn revoke(&mut self, of: u8, by_id: Option<u8>, issued_before: u64) {
        self.seq += 1;
        let selector = match by_id {
            Some(n) => Selector::Jti(id(&name(n))),
            None => Selector::Sub(format!("sub-{}", group(of)).parse().unwrap()),
        };
        let jti = format!("r{}", self.seq);
        let revocation = revocation(&jti, self.seq, &[selector], issued_before);
        self.home.revoke(&revocation, at(self.now)).unwrap();
        match by_id {
            Some(id) => {
                let until = self.model.revoked_ids.entry(id).or_default();
                // The longest life, the greatest age at acceptance, and the greatest skew.
                *until = (*until).max(self.now + 3600 + 300 + 30);
                self.model.end(id);
            }
            None => {
                let until = self.model.revoked_groups.entry(of).or_default();
                *until = (*until).max(issued_before);
                let hit = |entry: &&mut Entry| entry.of == of && entry.issued <= issued_before;
                self.model.grants.values_mut().filter(hit).for_each(|e| e.state = Phase::Over);
            }
        }
    }

    /// Everything that pruning forgets must stay refused: by the floor, if by nothing else.
    fn prune(&mut self) {
        self.home.prune(at(self.now)).unwrap();
        let now = self.now;
        self.model.revoked_ids.retain(|_, until| *until >= now);
        let gone: Vec<u8> = self
            .model
            .grants
            .iter()
            .filter(|(_, e)| e.state == Phase::Over && e.expires + 300 < self.now)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let entry = self.model.grants.remove(&id).unwrap();
            let again = grant(&name(id)).of(group(entry.of)).hash(entry.hash).issued(entry.issued);
            let answer = self.home.replay(&again.make());
            assert_ne!(answer, ReplayAnswer::New, "g{id} could be replayed after pruning");
        }
    }

    fn compare(&self) {
        let phase = |state: State| match state {
            State::Accepted => Phase::Accepted,
            State::InForce => Phase::InForce,
            State::Ended { .. } => Phase::Over,
        };
        let live = self.home.live().map(|g| (g.id().to_string(), phase(g.state)));
        assert_eq!(live.collect::<Vec<_>>(), self.model.live());
        let deadlines = self.model.grants.values().filter(|e| e.state != Phase::Over);
        let next = deadlines.map(|e| e.expires * 1_000_000_000).min();
        assert_eq!(self.home.next_deadline_boot_ns(), next);
        assert_eq!(self.home.remembered(), self.model.grants.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_ledger_agrees_with_the_model(steps in steps()) {
        let run = Run { home: Home::fresh(), model: Model::default(), now: NOW, seq: 0, boots: 1 };
        let mut run = run;
        for step in steps {
            run.take(step);
            run.compare();
        }
    }
}
