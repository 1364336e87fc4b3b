//! What can be asked of the enforcer, and its answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use grantd_audit::event::Peer;
use grantd_grant::{
    ControlPlaneKeys, GrantId, KeyId, Reason, Refusal, ReplayAnswer, Selector, VerifiedGrant,
    VerifiedRevocation, WorkloadName,
};
use tokio::sync::{mpsc, oneshot};

use super::{CanaryGround, CanaryView, Enforcer, Settings};
use crate::canary::Outcome;
use crate::clock::Now;
use crate::coverage::Threat;
use crate::ctl::{Enrolled, GrantPage, GrantView, WorkloadStatus};
use crate::kernel::HookCoverage;
use crate::ledger::ReplayQuery;

type Reply<T> = oneshot::Sender<T>;

/// A grant that is in force and was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its id.
    pub id: String,
    /// When it ends, Unix milliseconds.
    pub deadline_unix_ms: u64,
    /// Whether it was in force before.
    pub already: bool,
}

/// What a revocation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Ids of the grants that ended.
    pub ended: Vec<String>,
}

/// The state of enforcement.
#[derive(Clone, Debug, Default)]
pub struct EnforcerStatus {
    /// Why enforcement is not whole; empty when it is.
    pub trouble: Vec<String>,
    /// New grants are refused.
    pub frozen: bool,
    /// When enforcement began or was adopted, Unix milliseconds.
    pub since_unix_ms: u64,
    /// Where the pins are.
    pub pins: std::path::PathBuf,
    /// The workloads.
    pub workloads: Vec<WorkloadStatus>,
    /// Live grants.
    pub live_grants: u64,
    /// The next deadline, Unix milliseconds.
    pub next_deadline_unix_ms: Option<u64>,
    /// The hooks.
    pub coverage: Vec<HookCoverage>,
    /// Every known way out, and how far it is closed.
    pub threats: Vec<Threat>,
    /// The canary.
    pub canary: CanaryView,
    /// The kernel's counters, indexes as in `grantd_common::event::counter`.
    pub counters: Vec<u64>,
}

/// A grant to be put in force.
pub(super) struct ApplyRequest {
    pub(super) grant: Box<VerifiedGrant>,
    pub(super) peer: Peer,
    pub(super) received: Now,
    pub(super) epoch: u64,
    pub(super) reply: Reply<Result<Applied, Refusal>>,
}

pub(super) enum Command {
    Replay {
        query: ReplayQuery,
        reply: Reply<ReplayAnswer>,
    },
    Apply(ApplyRequest),
    InForce {
        id: GrantId,
        reply: Reply<Option<Applied>>,
    },
    Revoke {
        revocation: Box<VerifiedRevocation>,
        peer: Peer,
        received: Now,
        reply: Reply<Result<Revoked, Refusal>>,
    },
    RevokeLocally {
        selector: Selector,
        peer: Peer,
        reply: Reply<Result<Revoked, Refusal>>,
    },
    OktaKeyWithdrawn {
        kid: KeyId,
        reply: Reply<()>,
    },
    Reconfigure {
        settings: Box<Settings>,
        keys: Arc<ControlPlaneKeys>,
        removed: BTreeSet<KeyId>,
        reply: Reply<Result<u64, Refusal>>,
    },
    Stop {
        reply: Reply<()>,
    },
    SetFrozen {
        frozen: bool,
        reply: Reply<Result<(), Refusal>>,
    },
    Enrol {
        workload: WorkloadName,
        reply: Reply<Result<Enrolled, Refusal>>,
    },
    Status {
        reply: Reply<EnforcerStatus>,
    },
    Coverage {
        reply: Reply<EnforcerStatus>,
    },
    Grants {
        workload: Option<String>,
        after: Option<String>,
        limit: usize,
        reply: Reply<GrantPage>,
    },
    Grant {
        id: GrantId,
        reply: Reply<Result<Option<GrantView>, Refusal>>,
    },
    BeginCanary {
        granted: SocketAddr,
        reply: Reply<Option<Result<CanaryGround, String>>>,
    },
    EndCanary {
        outcome: Outcome,
        reply: Reply<()>,
    },
    LiveCount {
        reply: Reply<u64>,
    },
}

impl Enforcer {
    pub(super) fn serve(&mut self, command: Command) {
        match command {
            Command::Replay { query, reply } => answer(reply, self.ledger.replay(&query)),
            Command::Apply(request) => self.apply_batch(vec![request]),
            Command::InForce { id, reply } => answer(reply, self.in_force(&id)),
            Command::Revoke { revocation, peer, received, reply } => {
                answer(reply, self.revoke(&revocation, &peer, received));
            }
            Command::RevokeLocally { selector, peer, reply } => {
                answer(reply, self.revoke_locally(selector, &peer));
            }
            Command::OktaKeyWithdrawn { kid, reply } => {
                self.okta_key_withdrawn(&kid);
                answer(reply, ());
            }
            Command::Reconfigure { settings, keys, removed, reply } => {
                answer(reply, self.reconfigure(*settings, &keys, &removed));
            }
            Command::Stop { reply } => {
                self.stopping = true;
                answer(reply, ());
            }
            Command::SetFrozen { frozen, reply } => answer(reply, self.set_frozen(frozen)),
            Command::Enrol { workload, reply } => answer(reply, self.enrol(&workload)),
            Command::Status { reply } => answer(reply, self.status()),
            Command::Coverage { reply } => answer(reply, self.coverage_only()),
            Command::Grants { workload, after, limit, reply } => {
                answer(reply, self.grants(workload.as_deref(), after.as_deref(), limit));
            }
            Command::Grant { id, reply } => answer(reply, self.grant(&id)),
            Command::BeginCanary { granted, reply } => answer(reply, self.begin_canary(granted)),
            Command::EndCanary { outcome, reply } => {
                self.end_canary(outcome);
                answer(reply, ());
            }
            Command::LiveCount { reply } => answer(reply, self.ledger.count() as u64),
        }
    }
}

/// A caller that is gone wants no answer; what it asked for is done all the same.
pub(super) fn answer<T>(reply: Reply<T>, value: T) {
    let _ = reply.send(value);
}

/// Sends commands to the enforcer and waits for its answers.
#[derive(Clone, Debug)]
pub struct EnforcerHandle {
    commands: mpsc::Sender<Command>,
    epoch: Arc<AtomicU64>,
}

impl EnforcerHandle {
    pub(super) const fn new(commands: mpsc::Sender<Command>, epoch: Arc<AtomicU64>) -> Self {
        Self { commands, epoch }
    }

    /// Moves whenever policy or keys were narrowed. Read it before the policy and keys that a grant is
    /// checked with: a grant that was checked with older ones is not applied.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Refusal::new(Reason::Stopping, "the daemon is stopping");
        self.commands.send(command(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Check 10: what the ledger remembers.
    ///
    /// # Errors
    /// The daemon is stopping; so for all methods.
    pub async fn replay(&self, query: ReplayQuery) -> Result<ReplayAnswer, Refusal> {
        self.ask(|reply| Command::Replay { query, reply }).await
    }

    /// Checks 16 and 17: writes the grant to ledger and kernel, and reads it back. `epoch` is what
    /// [`Self::epoch`] was before the grant was checked.
    ///
    /// # Errors
    /// The refusal; then nothing of the grant is left anywhere.
    pub async fn apply(
        &self,
        grant: VerifiedGrant,
        peer: Peer,
        received: Now,
        epoch: u64,
    ) -> Result<Applied, Refusal> {
        let grant = Box::new(grant);
        self.ask(|reply| Command::Apply(ApplyRequest { grant, peer, received, epoch, reply }))
            .await?
    }

    /// A grant that is live, if it is.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn in_force(&self, id: GrantId) -> Result<Option<Applied>, Refusal> {
        self.ask(|reply| Command::InForce { id, reply }).await
    }

    /// Revokes; in force in the kernel when this returns.
    ///
    /// # Errors
    /// The refusal.
    pub async fn revoke(
        &self,
        revocation: VerifiedRevocation,
        peer: Peer,
        received: Now,
    ) -> Result<Revoked, Refusal> {
        self.ask(|reply| Command::Revoke {
            revocation: Box::new(revocation),
            peer,
            received,
            reply,
        })
        .await?
    }

    /// Revokes on the word of this host's root.
    ///
    /// # Errors
    /// The refusal.
    pub async fn revoke_locally(&self, selector: Selector, peer: Peer) -> Result<Revoked, Refusal> {
        self.ask(|reply| Command::RevokeLocally { selector, peer, reply }).await?
    }

    /// Ends every grant whose token was signed with this key.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn okta_key_withdrawn(&self, kid: KeyId) -> Result<(), Refusal> {
        self.ask(|reply| Command::OktaKeyWithdrawn { kid, reply }).await
    }

    /// Goes by new settings and keys: grants that they do not cover end, and none that was checked with
    /// older ones is applied any more. `removed` are keys that were replaced under their old name.
    /// Returns how many ended.
    ///
    /// # Errors
    /// The refusal; then nothing was changed.
    pub async fn reconfigure(
        &self,
        settings: Settings,
        keys: Arc<ControlPlaneKeys>,
        removed: BTreeSet<KeyId>,
    ) -> Result<u64, Refusal> {
        let settings = Box::new(settings);
        self.ask(|reply| Command::Reconfigure { settings, keys, removed, reply }).await?
    }

    /// Lets the enforcer finish what it does and end. The kernel goes on enforcing.
    pub async fn stop(&self) {
        // One that has ended already is what is wanted.
        let _ = self.ask(|reply| Command::Stop { reply }).await;
    }

    /// Refuses new grants, or takes them again; survives a restart.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn set_frozen(&self, frozen: bool) -> Result<(), Refusal> {
        self.ask(|reply| Command::SetFrozen { frozen, reply }).await?
    }

    /// Makes sure that a workload's cgroup exists and that the kernel knows it.
    ///
    /// # Errors
    /// No such workload, or its cgroup cannot be made.
    pub async fn enrol(&self, workload: WorkloadName) -> Result<Enrolled, Refusal> {
        self.ask(|reply| Command::Enrol { workload, reply }).await?
    }

    /// The state of enforcement.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn status(&self) -> Result<EnforcerStatus, Refusal> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// Only trouble and coverage, as of the last look (at most half a second old): for every answer to
    /// a push.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn coverage(&self) -> Result<EnforcerStatus, Refusal> {
        self.ask(|reply| Command::Coverage { reply }).await
    }

    /// A page of live grants, read back from the kernel.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn grants(
        &self,
        workload: Option<String>,
        after: Option<String>,
        limit: usize,
    ) -> Result<GrantPage, Refusal> {
        self.ask(|reply| Command::Grants { workload, after, limit, reply }).await
    }

    /// One grant that the ledger remembers.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn grant(&self, id: GrantId) -> Result<Option<GrantView>, Refusal> {
        self.ask(|reply| Command::Grant { id, reply }).await?
    }

    /// Prepares a round of the canary, whose granted attempt goes to `granted`; nothing where there is no
    /// slice to be in.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn begin_canary(
        &self,
        granted: SocketAddr,
    ) -> Result<Option<Result<CanaryGround, String>>, Refusal> {
        self.ask(|reply| Command::BeginCanary { granted, reply }).await
    }

    /// Ends it, with what it showed.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn end_canary(&self, outcome: Outcome) -> Result<(), Refusal> {
        self.ask(|reply| Command::EndCanary { outcome, reply }).await
    }

    /// How many grants are live.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn live_count(&self) -> Result<u64, Refusal> {
        self.ask(|reply| Command::LiveCount { reply }).await
    }
}
