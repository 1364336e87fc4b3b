//! What the listener needs from the rest of the daemon.

use std::future::Future;
use std::pin::Pin;

use grantd_grant::Refusal;
use serde::Serialize;
use serde_json::Value;

use super::{Peer, Problem, PushBody};

/// A boxed future, so that the trait can be used as an object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Decides on what was pushed.
///
/// Each call runs in a task of its own: a peer that hangs up does not cancel it, so that every
/// decision is finished and audited.
pub trait Admission: Send + Sync + 'static {
    /// Whether this peer may speak to the listener at all (check 1 of the order of checks).
    ///
    /// Asked once per request, before anything else of the request is looked at but its method and path.
    /// The one who refuses also audits.
    ///
    /// # Errors
    /// The refusal that the peer is answered with.
    fn check_peer(&self, peer: &Peer, asked: Asked) -> Result<(), Refusal>;

    /// A push that the listener itself turned away: too large, too slow, of another type, or one too
    /// many. Told so that it is audited like every other refusal.
    fn turned_away(&self, peer: &Peer, push: PushKind, problem: &Problem);

    /// `POST /v1/grants`. Resolves only after the kernel was read back.
    fn admit_grant<'a>(&'a self, peer: &'a Peer, body: PushBody) -> Answer<'a, GrantOutcome>;

    /// `POST /v1/revocations`. Resolves only after the revocation is in force in the kernel.
    fn admit_revocation<'a>(
        &'a self,
        peer: &'a Peer,
        body: PushBody,
    ) -> Answer<'a, RevocationOutcome>;

    /// `GET /v1/grants/{id}`, as read back from the kernel. `id` is whatever the peer wrote, at
    /// most 256 bytes.
    fn show_grant<'a>(&'a self, peer: &'a Peer, id: &'a str) -> Answer<'a, ShowOutcome>;

    /// `GET /v1/host`.
    fn host<'a>(&'a self, peer: &'a Peer) -> Answer<'a, HostView>;
}

/// Longest grant id that is looked up; anything longer is not found.
pub(super) const MAX_ID_BYTES: usize = 256;

/// What a request is about, by its method and path alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It pushes something.
    Push(PushKind),
    /// Anything else: a question, or nothing that exists.
    Other,
}

/// What was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushKind {
    /// A grant.
    Grant,
    /// A revocation.
    Revocation,
}

/// A grant is in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Acknowledgement {
    /// The grant's id (`jti`).
    pub id: String,
    /// When it ends: wall-clock milliseconds since the Unix epoch. The kernel may end it earlier
    /// (clock set forward, revocation), never later.
    pub deadline_unix_ms: u64,
    /// Which protections this kernel gives, as `grantctl status --json` shows them.
    pub coverage: Value,
}

/// The answer to a pushed grant.
#[derive(Debug)]
pub enum GrantOutcome {
    /// Written, programmed and read back: `201`.
    Applied(Acknowledgement),
    /// The same grant was in force already: `200`, nothing changed, nothing prolonged.
    AlreadyInForce(Acknowledgement),
    /// Nothing was programmed: the refusal's own status.
    Refused(Refusal),
}

/// The answer to a pushed revocation.
#[derive(Debug)]
pub enum RevocationOutcome {
    /// In force in the kernel; `ended` live grants were ended by it: `200`.
    InForce {
        /// How many live grants this revocation ended.
        ended: u64,
    },
    /// Nothing was revoked: the refusal's own status.
    Refused(Refusal),
}

/// The answer to a question about one grant.
#[derive(Debug)]
pub enum ShowOutcome {
    /// The grant as read back from the kernel: `200`.
    Found(Value),
    /// No such live grant on this host: `404`.
    NotFound,
    /// It cannot be told now: the refusal's own status.
    Refused(Refusal),
}

/// What a control plane may know of this host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostView {
    /// The host's identity, a SPIFFE URI: what grants name as `aud`.
    pub host_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Version of the daemon.
    pub version: String,
    /// Names of the configured workloads.
    pub workloads: Vec<String>,
    /// Which protections this kernel gives, as `grantctl status --json` shows them.
    pub coverage: Value,
}
