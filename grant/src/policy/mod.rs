//! Everything a host decides with. Built by the host's configuration, checked as a whole.

mod ceiling;
mod deny;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::ceiling::{ApprovalRule, CeilingEntry};
pub(crate) use self::ceiling::{Bearer, Request};
pub use self::deny::Deny;
pub use self::validate::InvalidPolicy;
use crate::ids::{
    ActorId, Audience, ClientId, HostId, Issuer, PeerUri, Scope, Subject, WorkloadName,
};
use crate::reason::{Reason, Refusal};

/// Longest life of a grant where the workload's configuration says nothing: 15 minutes.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(15 * 60);
/// Longest life of a grant that any configuration may allow: 60 minutes.
pub const HARD_MAX_TTL: Duration = Duration::from_secs(60 * 60);
/// Scope that an Okta token must carry where the configuration says nothing.
pub const DEFAULT_REQUIRED_SCOPE: &str = "host.connect";

/// The control plane that may push to this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlanePolicy {
    /// `iss` of its grants and revocations.
    pub issuer: Issuer,
    /// URI SANs of the certificates with which it pushes. At least one.
    pub pushers: BTreeSet<PeerUri>,
}

/// The authorization server whose access tokens count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OktaPolicy {
    /// `iss` of its tokens, compared as the full string.
    pub issuer: Issuer,
    /// `aud` of its tokens: our own. `api://default` is refused, because every app can get it.
    pub audience: Audience,
    /// Scopes that every token must carry, all of them. At least one.
    pub required_scopes: BTreeSet<Scope>,
}

/// Whom a workload's grants may be for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectPattern {
    /// `{ cid = … }`: tokens issued to this client.
    Client(ClientId),
    /// `{ uid = … }`: tokens whose identity (`uid` where present, else `sub`) is this.
    User(Subject),
    /// `{ act = … }`: tokens whose current actor (`act.sub`) is this.
    Actor(ActorId),
}

/// How fast grants may come. Enforced by the host's enforcer, which alone counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantRate {
    /// Grants per period.
    pub grants: u32,
    /// The period.
    pub per: Duration,
}

/// One workload of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPolicy {
    /// Its name.
    pub name: WorkloadName,
    /// Whom its grants may be for; one match is enough. At least one.
    pub subjects: Vec<SubjectPattern>,
    /// Longest life of a grant, at most [`HARD_MAX_TTL`].
    pub max_ttl: Duration,
    /// Most grants in force at once. Enforced by the host's enforcer.
    pub max_live_grants: u32,
    /// How fast grants may come. Enforced by the host's enforcer.
    pub grant_rate: GrantRate,
}

/// The parts of a [`HostPolicy`], typed one by one but not yet checked against each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPolicyParts {
    /// This host: `aud` of its grants and the URI SAN of its certificate.
    pub host_id: HostId,
    /// Who may push and sign.
    pub control_plane: ControlPlanePolicy,
    /// Whose tokens count.
    pub okta: OktaPolicy,
    /// The workloads. May be empty: then every grant is refused.
    pub workloads: Vec<WorkloadPolicy>,
    /// The ceiling. May be empty: then every grant is refused.
    pub ceiling: Vec<CeilingEntry>,
    /// What is never granted, beside the metadata services, which are always denied.
    pub denies: Vec<Deny>,
}

/// What one host allows at most. Immutable; a reload makes a new one.
#[derive(Debug, Clone)]
pub struct HostPolicy {
    host_id: HostId,
    control_plane: ControlPlanePolicy,
    okta: OktaPolicy,
    workloads: BTreeMap<WorkloadName, WorkloadPolicy>,
    ceiling: Vec<CeilingEntry>,
    denies: Vec<Deny>,
}

/// URI SANs of a peer's verified certificate, in the order of the certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerUris(Vec<String>);

impl PeerUris {
    /// The URIs, as the certificate has them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// All URI SANs of the certificate, none left out: the count is part of the check.
    pub fn new(uris: impl IntoIterator<Item = String>) -> Self {
        Self(uris.into_iter().collect())
    }
}

/// A peer that passed check 1: the only way to verify a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pusher {
    uri: PeerUri,
}

impl Pusher {
    /// The URI SAN by which it was recognised.
    pub fn uri(&self) -> &PeerUri {
        &self.uri
    }
}

impl HostPolicy {
    /// Checks the parts against each other.
    ///
    /// # Errors
    /// Every fault at once, each with its key, value and what would be right.
    pub fn new(parts: HostPolicyParts) -> Result<Self, Vec<InvalidPolicy>> {
        let faults = validate::faults(&parts);
        if !faults.is_empty() {
            return Err(faults);
        }
        let HostPolicyParts { host_id, control_plane, okta, workloads, ceiling, denies } = parts;
        let denies = Deny::always().into_iter().chain(denies).flat_map(Deny::with_embeddings);
        Ok(Self {
            host_id,
            control_plane,
            okta,
            workloads: workloads.into_iter().map(|w| (w.name.clone(), w)).collect(),
            ceiling,
            denies: denies.collect(),
        })
    }

    /// Check 1: the peer's certificate has exactly one URI SAN (SPIFFE X.509-SVID, section 2) and it is
    /// an allowed pusher.
    ///
    /// # Errors
    /// [`Reason::PeerNotAllowed`].
    pub fn check_pusher(&self, peer: &PeerUris) -> Result<Pusher, Refusal> {
        let refuse = |detail: &str| Refusal::new(Reason::PeerNotAllowed, detail);
        let uri = match peer.0.as_slice() {
            [] => return Err(refuse("the certificate has no URI SAN; it must have exactly one")),
            [uri] => uri,
            _ => return Err(refuse("the certificate has several URI SANs; it must have one")),
        };
        self.control_plane
            .pushers
            .iter()
            .find(|allowed| allowed.as_str() == uri)
            .map(|allowed| Pusher { uri: allowed.clone() })
            .ok_or_else(|| refuse("the certificate's URI SAN is not in control_plane.peers"))
    }

    /// This host.
    pub fn host_id(&self) -> &HostId {
        &self.host_id
    }

    /// Who may push and sign.
    pub fn control_plane(&self) -> &ControlPlanePolicy {
        &self.control_plane
    }

    /// Whose tokens count.
    pub fn okta(&self) -> &OktaPolicy {
        &self.okta
    }

    /// The workload of that name.
    pub fn workload(&self, name: &WorkloadName) -> Option<&WorkloadPolicy> {
        self.workloads.get(name)
    }

    /// All workloads, by name.
    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadPolicy> {
        self.workloads.values()
    }

    /// The ceiling's entries in the order of the configuration.
    pub fn ceiling(&self) -> &[CeilingEntry] {
        &self.ceiling
    }

    /// All absolute denies, the built-in ones and spellings of the same address included.
    pub fn denies(&self) -> &[Deny] {
        &self.denies
    }

    /// Longest life of a grant for this workload; the hard cap if it is not known (check 16 refuses it).
    pub(crate) fn max_ttl(&self, workload: &WorkloadName) -> Duration {
        self.workload(workload).map_or(HARD_MAX_TTL, |w| w.max_ttl)
    }
}
