//! The ceiling: the host owner's own outer bound on what any grant may open (check 15).

use std::collections::BTreeSet;
use std::time::Duration;

use super::{HostPolicy, SubjectPattern};
use crate::destination::Destination;
use crate::grant::Approval;
use crate::ids::{ActorId, ClientId, Group, Scope, Subject, UnixTime, WorkloadName};
use crate::reason::Reason;

/// Whether an entry demands a human's approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApprovalRule {
    /// Not demanded.
    #[default]
    Optional,
    /// The grant must name an approval by someone other than its subject, client and actor.
    Required,
}

/// One entry of the ceiling. A destination passes if it lies inside one of `allow`, whole, and the
/// grant and its token satisfy everything else of the same entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CeilingEntry {
    /// Scopes that the token must carry, all of them.
    pub scopes: BTreeSet<Scope>,
    /// Groups that the token must carry, all of them. Scopes and groups are not both empty.
    pub groups: BTreeSet<Group>,
    /// Workloads that it is for. At least one.
    pub workloads: BTreeSet<WorkloadName>,
    /// What it allows. At least one.
    pub allow: Vec<Destination>,
    /// Longest life of a grant that uses it; `None` leaves the workload's cap.
    pub max_ttl: Option<Duration>,
    /// Whether it demands an approval.
    pub approval: ApprovalRule,
}

/// What a verified Okta token says about its bearer.
#[derive(Debug)]
pub(crate) struct Bearer<'a> {
    pub(crate) identity: &'a Subject,
    pub(crate) login: &'a str,
    pub(crate) client: Option<&'a ClientId>,
    pub(crate) actor: Option<&'a ActorId>,
    pub(crate) scopes: &'a BTreeSet<Scope>,
    pub(crate) groups: &'a BTreeSet<Group>,
}

/// What a grant asks for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) workload: &'a WorkloadName,
    pub(crate) destinations: &'a [Destination],
    pub(crate) ttl: Duration,
    pub(crate) issued_at: UnixTime,
    pub(crate) approval: Option<&'a Approval>,
}

/// The first excess over the ceiling.
pub(crate) type Excess = (Reason, String);

impl HostPolicy {
    /// Check 15. Denies come first, then the workload's subjects, then the ceiling, destination by
    /// destination. Any excess refuses the whole grant; nothing is trimmed.
    pub(crate) fn check_ceiling(
        &self,
        request: &Request<'_>,
        bearer: &Bearer<'_>,
        now: UnixTime,
    ) -> Result<(), Excess> {
        for destination in request.destinations {
            if let Some(deny) = self.denies.iter().find(|deny| deny.overlaps(destination)) {
                return Err((
                    Reason::DestinationDenied,
                    format!("{destination} covers {deny}, which this host denies absolutely"),
                ));
            }
        }
        let workload = self.workload(request.workload).ok_or_else(|| {
            (Reason::WorkloadUnknown, format!("no workload {} on this host", request.workload))
        })?;
        if !workload.subjects.iter().any(|pattern| pattern.matches(bearer)) {
            return Err((
                Reason::SubjectNotAllowed,
                format!("{} is not among the subjects of {}", bearer.identity, request.workload),
            ));
        }
        request
            .destinations
            .iter()
            .try_for_each(|destination| self.check_destination(destination, request, bearer, now))
    }

    /// Narrows the entries one condition at a time, so that the reason names the first condition that
    /// no remaining entry meets.
    fn check_destination(
        &self,
        destination: &Destination,
        request: &Request<'_>,
        bearer: &Bearer<'_>,
        now: UnixTime,
    ) -> Result<(), Excess> {
        let mut entries: Vec<&CeilingEntry> = self.ceiling.iter().collect();
        let mut narrow = |reason, what: &str, keep: &dyn Fn(&CeilingEntry) -> bool| {
            entries.retain(|entry| keep(entry));
            if entries.is_empty() {
                Err((reason, format!("{destination}: {what}")))
            } else {
                Ok(())
            }
        };
        narrow(Reason::DestinationOverCeiling, "no ceiling entry covers it", &|e| {
            e.allow.iter().any(|allowed| allowed.covers(destination))
        })?;
        narrow(Reason::WorkloadOverCeiling, "not for this workload", &|e| {
            e.workloads.contains(request.workload)
        })?;
        narrow(Reason::ScopeOverCeiling, "the token lacks its scopes or groups", &|e| {
            e.scopes.is_subset(bearer.scopes) && e.groups.is_subset(bearer.groups)
        })?;
        narrow(Reason::TtlOverCeiling, "the grant lives longer than it allows", &|e| {
            e.max_ttl.is_none_or(|max| request.ttl <= max)
        })?;
        // Every remaining entry fails for the same cause, because the approval is the grant's.
        match request.check_approval(bearer, now) {
            Ok(()) => Ok(()),
            Err((reason, what)) => narrow(reason, what, &|e| e.approval == ApprovalRule::Optional),
        }
    }
}

impl SubjectPattern {
    fn matches(&self, bearer: &Bearer<'_>) -> bool {
        match self {
            Self::Client(client) => bearer.client == Some(client),
            Self::User(user) => bearer.identity == user,
            Self::Actor(actor) => bearer.actor == Some(actor),
        }
    }
}

impl Request<'_> {
    fn check_approval(
        &self,
        bearer: &Bearer<'_>,
        now: UnixTime,
    ) -> Result<(), (Reason, &'static str)> {
        let Some(approval) = self.approval else {
            return Err((Reason::ApprovalMissing, "it demands an approval"));
        };
        let by = approval.by.as_str();
        let own = [
            Some(bearer.identity.as_str()),
            Some(bearer.login),
            bearer.client.map(ClientId::as_str),
            bearer.actor.map(ActorId::as_str),
        ];
        // Ids differ in more than case, logins do not: a match in any case counts as the same person.
        if own.into_iter().flatten().any(|own| own.eq_ignore_ascii_case(by)) {
            return Err((Reason::ApprovalBySubject, "it demands an approval by someone else"));
        }
        let latest = self.issued_at.min(now).plus(crate::limits::MAX_SKEW);
        if approval.at > latest {
            return Err((Reason::ApprovalTimeInvalid, "the approval is later than the grant"));
        }
        Ok(())
    }
}
