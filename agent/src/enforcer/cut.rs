//! Ends the live connections of grants that are over, in every network namespace of their workload.
//!
//! The kernel programs stop the packets by themselves; this tells both ends, and takes away what the
//! sockets still hold, so that nothing of it leaves when access is granted again.

mod fate;
mod namespaces;
mod record;

use std::collections::{BTreeSet, HashMap, HashSet};

use grantd_audit::event::FindingKind;
use grantd_common::{Endpoint, GrantRef, Protocol, SocketState, WorkloadId, capacity};

use super::Enforcer;
use crate::kernel::{self, Diag, DiagSocket, Namespace, Which};
use crate::ledger::LedgerGrant;
use crate::text::chain;
use fate::{Fate, fate};
pub(super) use namespaces::Namespaces;

/// Sockets that are ended before anything else gets its turn; the rest follows at the next look.
const MOST_AT_ONCE: usize = 100_000;
/// How often the same namespace is looked at again for sockets that others stood in front of.
const ROUNDS: usize = 4;

/// What is left to be done.
#[derive(Debug, Default)]
pub(super) struct CutState {
    pub(super) namespaces: Namespaces,
    /// A cut that was not finished is tried again at the next look.
    again: bool,
    /// The trouble that was reported, so that it is once.
    told: bool,
}

/// What one cut came to.
#[derive(Debug, Default)]
struct Outcome {
    ended: usize,
    /// Left for the next look.
    left: usize,
    failed: usize,
    problem: Option<String>,
}

impl Enforcer {
    /// Ends every connection whose grant is over and that no other covers, in this host's namespace and
    /// in those of the workloads. What cannot be ended now is tried again; its packets are stopped.
    ///
    /// # Errors
    /// What stands in the way.
    pub(super) fn cut(&mut self, of: &BTreeSet<WorkloadId>) -> Result<(), String> {
        self.find_namespaces(of);
        let outcome = self.cut_known(of);
        self.cutting.again = outcome.left > 0 || outcome.problem.is_some();
        if outcome.ended > 0 || outcome.left > 0 {
            tracing::debug!(ended = outcome.ended, left = outcome.left, "connections were cut");
        }
        let Some(problem) = outcome.problem else {
            self.cutting.told = false;
            return Ok(());
        };
        let detail = format!(
            "connections of ended grants could not be cut ({} failed): {problem}. Their packets are \
             stopped all the same; it is tried again",
            outcome.failed
        );
        if !self.cutting.told {
            tracing::error!("{detail}");
            self.audit_finding(FindingKind::NotEnforcing, detail.clone());
            self.cutting.told = true;
        }
        Err(detail)
    }

    /// The cut for grants that end together.
    pub(super) fn cut_grants(&mut self, grants: &[LedgerGrant]) -> Result<(), String> {
        let of = grants.iter().filter_map(|g| self.workloads.get(g.grant.workload()));
        let of: BTreeSet<WorkloadId> = of.map(|w| w.id).collect();
        self.cut(&of)
    }

    /// What a cut left behind, and namespaces that have nothing of a workload any more.
    pub(super) fn look_at_sockets(&mut self, thoroughly: bool) {
        let all: BTreeSet<WorkloadId> = self.workloads.values().map(|w| w.id).collect();
        if self.cutting.again {
            // It is told where it is found out.
            let _ = self.cut(&all);
        }
        if thoroughly {
            self.find_namespaces(&all);
            self.release_unused(&all);
        }
    }

    fn cut_known(&mut self, of: &BTreeSet<WorkloadId>) -> Outcome {
        let mut outcome = Outcome::default();
        let diag = match self.kernel.diag() {
            Ok(diag) => diag,
            Err(error) => {
                outcome.problem = Some(chain(&error));
                return outcome;
            }
        };
        let namespaces = std::mem::take(&mut self.cutting.namespaces);
        if let Some(problem) = namespaces.problem() {
            outcome.problem = Some(problem.to_owned());
        }
        for namespace in namespaces.of(of) {
            if let Err(error) = self.cut_in(&diag, namespace, &mut outcome) {
                outcome.problem.get_or_insert(chain(&error));
            }
        }
        self.cutting.namespaces = namespaces;
        outcome
    }

    fn cut_in(
        &self,
        diag: &Diag,
        namespace: &Namespace,
        outcome: &mut Outcome,
    ) -> Result<(), kernel::Error> {
        for _ in 0..ROUNDS {
            let mut dead = self.dead_sockets(diag, namespace)?;
            let most = MOST_AT_ONCE.saturating_sub(outcome.ended);
            outcome.left += dead.len().saturating_sub(most);
            dead.truncate(most);
            if dead.is_empty() {
                return Ok(());
            }
            let done = diag.destroy(namespace, dead.iter().map(|(socket, _)| socket))?;
            for (socket, fate) in done.ended.iter().filter_map(|index| dead.get(*index)) {
                self.audit_cut(socket, *fate);
            }
            outcome.ended += done.ended.len();
            outcome.failed += done.failed.len();
            if let Some(error) = done.error {
                outcome.problem.get_or_insert(format!("the kernel ended none: {error}"));
                return Ok(());
            }
            if done.missed.is_empty() {
                return Ok(());
            }
            // Closed meanwhile, or hidden behind a datagram socket of the same addresses, which is gone
            // now.
        }
        outcome.left += 1;
        Ok(())
    }

    /// The sockets that have to go, each with the reason.
    fn dead_sockets(
        &self,
        diag: &Diag,
        namespace: &Namespace,
    ) -> Result<Vec<(DiagSocket, Fate)>, kernel::Error> {
        let mut tagged = Vec::new();
        diag.sockets(namespace, Which::Connected, |socket| {
            if socket.state.is_some_and(|s| rests_on(&s).is_some()) {
                tagged.push(socket);
            }
        })?;
        let clock = self.clock.now();
        let now = grantd_common::Now { boot_ns: clock.boot_ns, tai_ns: clock.tai_ns };
        let mut slots = HashMap::new();
        let mut dead = Vec::new();
        for socket in tagged {
            let Some(state) = &socket.state else { continue };
            let slot = match slots.get(&state.grant.slot()) {
                Some(slot) => *slot,
                None => {
                    let slot = self.kernel.slot(state.grant.slot())?;
                    slots.insert(state.grant.slot(), slot);
                    slot
                }
            };
            let covered = |to: &Endpoint| self.compiler.covers(state.workload, to, &now);
            match fate(state, &peer(&socket), &slot, &now, covered) {
                Fate::Keep => {}
                over @ Fate::Cut(_) => dead.push((socket, over)),
            }
        }
        Ok(dead)
    }

    /// Forgets namespaces in which nothing of a workload is left, and frees slots of ended grants on which
    /// no socket rests. Only a whole look tells that.
    fn release_unused(&mut self, of: &BTreeSet<WorkloadId>) {
        let Ok(diag) = self.kernel.diag() else { return };
        let mut namespaces = std::mem::take(&mut self.cutting.namespaces);
        let mut in_use: HashSet<GrantRef> = HashSet::new();
        let mut whole = namespaces.problem().is_none();
        if self.compiler.keeps_ended() || namespaces.has_empty() {
            whole &= namespaces.retain(of, |namespace| {
                let mut tagged = false;
                let listed = diag.sockets(namespace, Which::All, |socket| {
                    tagged |= socket.state.is_some();
                    in_use.extend(socket.state.iter().filter_map(rests_on));
                });
                listed.map(|()| tagged)
            });
            if whole {
                let rests = |slot: crate::compile::SlotRef| {
                    in_use.contains(&GrantRef::new(slot.index, slot.generation))
                };
                let ops = self.compiler.release(rests);
                if let Err(error) = self.kernel.apply_all(&ops) {
                    self.note_trouble(format!("an ended grant's slot: {}", chain(&error)));
                }
            }
        }
        self.cutting.namespaces = namespaces;
    }
}

/// The grant that a socket rests on; none for one that rests on none or on the host's config.
fn rests_on(state: &SocketState) -> Option<GrantRef> {
    (1..capacity::GRANTS).contains(&state.grant.slot()).then_some(state.grant)
}

fn peer(socket: &DiagSocket) -> Endpoint {
    let protocol = Protocol(socket.protocol.0);
    let port = grantd_common::Port::new(socket.remote.port());
    Endpoint::new(socket.remote.ip().into(), port, protocol)
}
