//! What the canary needs of the enforcer: its place, its reserved slot, and to be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use grantd_audit::event::FindingKind;
use grantd_common::event::{Ring, counter};
use grantd_common::{GrantRef, WorkloadId};
use grantd_grant::{Destination, HostPattern, PortRange, Protocol};

use super::Enforcer;
use crate::canary::{Outcome, Seen};
use crate::compile::{Deadlines, Opening, SlotRef};
use crate::kernel::{Op, Place};
use crate::text::chain;

/// The cgroup of the process that tries, below the slice.
const PLACE: &str = "grantd-canary";
/// How long its grant lives: no daemon, no canary.
const LIFE: Duration = Duration::from_secs(15);
/// Rounds that may be missing before that is an alarm, and what one may take.
const MISSING: u32 = 3;
const ROUND: Duration = Duration::from_secs(30);
/// Rounds in a row that may miss a record because the rings overflowed: about a minute.
const MOST_UNCLEAR: u64 = 12;
/// How often the guard is proven again, counted in rounds: that takes the enforcer's time.
const GUARD_EVERY: u64 = 12;

/// Where the canary tries, and under which grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryGround {
    /// The directory of its cgroup.
    pub cgroup: PathBuf,
    /// Its slot, as the records of the kernel name it.
    pub grant: GrantRef,
}

/// What is known of the canary for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CanaryView {
    /// Rounds that came out as they should, since the daemon started.
    pub passed: u64,
    /// Rounds that did not.
    pub failed: u64,
    /// Rounds that missed a record where the kernel's rings overflowed meanwhile.
    pub unclear: u64,
    /// How long ago the last one ended, milliseconds.
    pub age_ms: Option<u64>,
    /// What is wrong now.
    pub problem: Option<String>,
}

/// The canary, as the enforcer holds it.
#[derive(Debug, Default)]
pub(super) struct CanaryState {
    place: Option<Place>,
    slot: Option<SlotRef>,
    last: Option<(Outcome, u64)>,
    passed: u64,
    failed: u64,
    unclear: u64,
    unclear_in_row: u64,
    begun: u64,
    lost_before: Option<Lost>,
}

/// What each ring of the kernel had no room for, so far.
type Lost = [u64; Ring::ALL.len()];

impl Enforcer {
    /// Makes the canary's place and puts its grant in force; nothing where there is no slice to be in.
    pub(super) fn begin_canary(
        &mut self,
        granted: SocketAddr,
    ) -> Option<Result<CanaryGround, String>> {
        if self.slice_trouble.is_some() {
            return None;
        }
        self.canary.begun += 1;
        if self.canary.begun.is_multiple_of(GUARD_EVERY) {
            self.prove_guard_again();
        }
        self.canary.lost_before = self.lost_of_rings();
        Some(self.canary_ground(granted))
    }

    fn canary_ground(&mut self, granted: SocketAddr) -> Result<CanaryGround, String> {
        self.canary.place = None;
        let place = Place::make(&self.kernel.slice().path, PLACE).map_err(|e| chain(&e))?;
        let mut ops = self.compiler.set_cgroup(WorkloadId::CANARY, Some(place.id()));
        let (slot, opened) = self.canary_slot(granted)?;
        ops.extend(opened);
        let written = self.kernel.apply(&ops).and_then(|()| self.kernel.read_back(&ops));
        if let Err(error) = written {
            let what = chain(&error);
            self.note_trouble(format!("the canary's grant: {what}"));
            return Err(what);
        }
        let grant = GrantRef::new(slot.index, slot.generation);
        let ground = CanaryGround { cgroup: place.path().to_owned(), grant };
        self.canary.place = Some(place);
        Ok(ground)
    }

    /// Its slot is taken once, so that grants can never leave it none.
    fn canary_slot(&mut self, granted: SocketAddr) -> Result<(SlotRef, Vec<Op>), String> {
        let now = self.clock.now();
        let life = u64::try_from(LIFE.as_nanos()).unwrap_or(u64::MAX);
        let deadlines = Deadlines {
            boot_ns: now.boot_ns.saturating_add(life),
            tai_ns: now.tai_ns.saturating_add(life),
        };
        if let Some(slot) = self.canary.slot {
            return Ok((slot, self.compiler.prolong_canary(slot.index, deadlines)));
        }
        let port = PortRange::single(granted.port()).map_err(|e| e.to_string())?;
        let destination =
            Destination::new(HostPattern::Address(granted.ip()), [port], Protocol::Tcp)
                .map_err(|e| e.to_string())?;
        let destinations = [destination];
        let opening =
            Opening { workload: WorkloadId::CANARY, deadlines, destinations: &destinations };
        let (slot, ops) = self.compiler.open(&opening).map_err(|e| e.to_string())?;
        self.canary.slot = Some(slot);
        Ok((slot, ops))
    }

    /// Takes the canary's place away and notes what came of it. What is new is an alarm.
    pub(super) fn end_canary(&mut self, outcome: Outcome) {
        let ops = self.compiler.set_cgroup(WorkloadId::CANARY, None);
        if let Err(error) = self.kernel.apply_all(&ops) {
            self.note_trouble(format!("the canary's place: {}", chain(&error)));
        }
        self.canary.place = None;
        let now = self.clock.now().boot_ns;
        let mut excused = false;
        if let (Outcome::Unrecorded(seen), Some(_)) = (&outcome, &self.canary.last) {
            excused = self.is_excused(*seen);
        }
        match &mut self.canary.last {
            // What was known before still is, from now on: both attempts came out as they should.
            Some((_, at)) if excused => *at = now,
            _ => self.note_outcome(outcome, now),
        }
    }

    /// Whether a missing record says nothing of the canary's: its ring had no room for some, which is counted and
    /// told by itself. An agent that floods the ring must not look like a host that does not enforce, nor hide
    /// for good that one does not.
    fn is_excused(&mut self, seen: Seen) -> bool {
        let (Some(now), Some(before)) = (self.lost_of_rings(), self.canary.lost_before) else {
            return false;
        };
        let at = |lost: &Lost, ring: Ring| lost.get(ring as usize).copied().unwrap_or(0);
        let overflowed = |ring: Ring| at(&now, ring) > at(&before, ring);
        let excused = (seen.denial || overflowed(Ring::Denials))
            && (seen.connection || overflowed(Ring::Flows))
            && self.canary.unclear_in_row < MOST_UNCLEAR;
        if excused {
            self.canary.unclear += 1;
            self.canary.unclear_in_row += 1;
        }
        excused
    }

    /// Without the counters nothing is excused.
    fn lost_of_rings(&self) -> Option<Lost> {
        let counters = self.kernel.counters().ok()?;
        Some(Ring::ALL.map(|ring| {
            let lost = counters.get((counter::LOST + ring as u32) as usize);
            lost.copied().unwrap_or(0)
        }))
    }

    fn note_outcome(&mut self, outcome: Outcome, now_boot_ns: u64) {
        self.canary.unclear_in_row = 0;
        let before = self.canary.last.take().and_then(|(earlier, _)| earlier.problem());
        match outcome.problem() {
            Some(what) => {
                self.canary.failed += 1;
                if before.as_ref() != Some(&what) {
                    let detail = format!(
                        "the canary failed: {what}. Until a round passes, enforcement on this host is not proven"
                    );
                    tracing::error!("{detail}");
                    self.audit_finding(FindingKind::CanaryFailed, detail);
                }
            }
            None => {
                self.canary.passed += 1;
                if let Some(before) = before {
                    tracing::info!("the canary passes again; before, {before}");
                }
            }
        }
        self.canary.last = Some((outcome, now_boot_ns));
    }

    pub(super) fn canary_view(&self) -> CanaryView {
        let now = self.clock.now().boot_ns;
        let age = self.canary.last.as_ref().map(|(_, at)| now.saturating_sub(*at));
        CanaryView {
            passed: self.canary.passed,
            failed: self.canary.failed,
            unclear: self.canary.unclear,
            age_ms: age.map(|age| age / 1_000_000),
            problem: self.canary_problem(now),
        }
    }

    /// What the canary has against this host just now. Without a slice there is nothing to be tried.
    fn canary_problem(&self, now_boot_ns: u64) -> Option<String> {
        if self.slice_trouble.is_some() {
            return None;
        }
        let Some((outcome, at)) = &self.canary.last else {
            return Some("the canary has not come back yet".to_owned());
        };
        let silent = now_boot_ns.saturating_sub(*at);
        let most = self.settings.canary_period.saturating_mul(MISSING).saturating_add(ROUND);
        if u128::from(silent) > most.as_nanos() {
            return Some(format!("the canary last came back {} s ago", silent / 1_000_000_000));
        }
        outcome.problem().map(|what| format!("the canary failed: {what}"))
    }

    /// Why no grant is taken: what nothing grants went through.
    pub(super) fn canary_let_through(&self) -> Option<String> {
        match &self.canary.last {
            Some((Outcome::LetThrough(what), _)) => Some(format!("the canary failed: {what}")),
            Some((Outcome::Passed | Outcome::Unrecorded(_) | Outcome::Failed(_), _)) | None => None,
        }
    }

    /// Whether the last round is fresh and passed.
    pub(super) fn canary_passes(&self) -> bool {
        self.canary.last.is_some() && self.canary_problem(self.clock.now().boot_ns).is_none()
    }

    /// A hook of the guard that no longer refuses what it did is an alarm.
    fn prove_guard_again(&mut self) {
        let in_effect = |state: &crate::kernel::GuardState| -> Vec<String> {
            state.in_effect().map(str::to_owned).collect()
        };
        let before = in_effect(self.kernel.guard_state());
        let now = in_effect(self.kernel.prove_guard());
        let lost: Vec<&str> =
            before.iter().filter(|hook| !now.contains(hook)).map(String::as_str).collect();
        if !lost.is_empty() {
            let detail = format!(
                "the guard no longer takes effect: {}. `grantctl status` names the ways out that are open \
                 for it",
                lost.join(", ")
            );
            tracing::error!("{detail}");
            self.audit_finding(FindingKind::NotEnforcing, detail);
        }
    }
}
