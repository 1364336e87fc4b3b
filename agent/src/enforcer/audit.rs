//! The enforcer's audit events.

use std::path::Path;
use std::sync::Arc;

use grantd_audit::Event;
use grantd_audit::event::{
    Approval, Cgroup, EndCause as AuditCause, Finding, FindingKind, Grant, GrantEnded,
    GrantInForce, Peer, Subject, Workload as AuditWorkload,
};
use grantd_grant::{VerifiedGrant, WorkloadName};

use super::Enforcer;
use crate::clock::Now;
use crate::ledger::{EndCause, LedgerGrant, Placement};

impl Enforcer {
    pub(super) fn audit_in_force(
        &self,
        live: &LedgerGrant,
        peer: Option<Peer>,
        apply_us: Option<u64>,
        now: Now,
    ) {
        let grant = &live.grant;
        let event = GrantInForce {
            grant: self.audit_grant(grant, Some(&live.placement)),
            workload: self.audit_workload(grant.workload()),
            destinations: grant.destinations().iter().map(ToString::to_string).collect(),
            issued_s: grant.issued_at().as_secs(),
            jws_sha256: hex(grant.jws_sha256()),
            replaces: grant.replaces().map(ToString::to_string).unwrap_or_default(),
            approval: grant.approval().map(|a| Approval {
                by: a.by.to_string(),
                at_s: a.at.as_secs(),
                id: a.id.to_string(),
            }),
            peer,
            apply_us,
        };
        self.recorder.record(Event::GrantInForce(event), now.unix_ms());
    }

    pub(super) fn audit_ended(
        &self,
        ended: &LedgerGrant,
        cause: EndCause,
        by: &EndedBy<'_>,
        now: Now,
    ) {
        let grant = &ended.grant;
        let mut event = GrantEnded::new(
            self.audit_grant(grant, Some(&ended.placement)),
            self.audit_workload(grant.workload()),
            audit_cause(cause),
        );
        event.destinations = grant.destinations().iter().map(ToString::to_string).collect();
        event.peer = by.peer.cloned();
        event.revocation = by.revocation.unwrap_or_default().to_owned();
        event.replaced_by = by.replaced_by.unwrap_or_default().to_owned();
        event.detail = by.detail.unwrap_or_default().to_owned();
        self.recorder.record(Event::GrantEnded(event), now.unix_ms());
    }

    pub(super) fn audit_finding(&self, kind: FindingKind, detail: String) {
        let finding = Finding::new(kind, detail);
        self.recorder.record(Event::Finding(finding), self.clock.now().unix_ms());
    }

    pub(super) fn audit_workload_finding(
        &self,
        kind: FindingKind,
        name: &WorkloadName,
        detail: String,
    ) {
        let mut finding = Finding::new(kind, detail);
        finding.workload = Some(self.audit_workload(name));
        self.recorder.record(Event::Finding(finding), self.clock.now().unix_ms());
    }

    pub(super) fn audit_grant(
        &self,
        grant: &VerifiedGrant,
        placement: Option<&Placement>,
    ) -> Grant {
        let issuer = self.settings.policy.control_plane().issuer.to_string();
        audit_grant(grant, placement, issuer)
    }

    pub(super) fn audit_workload(&self, name: &WorkloadName) -> AuditWorkload {
        match self.workloads.get(name) {
            Some(w) => audit_workload(
                name,
                &w.path,
                w.cgroup.unwrap_or_default(),
                &self.settings.cgroup_mount,
            ),
            None => AuditWorkload { name: name.to_string(), ..AuditWorkload::default() },
        }
    }
}

/// What led to the end of a grant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EndedBy<'a> {
    pub(super) peer: Option<&'a Peer>,
    pub(super) revocation: Option<&'a str>,
    pub(super) replaced_by: Option<&'a str>,
    pub(super) detail: Option<&'a str>,
}

pub(super) fn audit_grant(
    grant: &VerifiedGrant,
    placement: Option<&Placement>,
    issuer: String,
) -> Grant {
    Grant {
        id: grant.id().to_string(),
        txn: grant.txn().to_string(),
        subject: Subject {
            uid: grant.sub().to_string(),
            client_id: grant.cid().map(ToString::to_string).unwrap_or_default(),
            actor: grant.act().map(|a| a.sub.to_string()).unwrap_or_default(),
        },
        issuer,
        control_plane_kid: grant.control_plane_kid().to_string(),
        okta_issuer: grant.okta_issuer().to_string(),
        okta_kid: grant.okta_kid().to_string(),
        ath: crate::text::base64url(grant.okta_ath()),
        expires_s: Some(grant.expires().as_secs()),
        slot: placement.map(|p| p.slot),
        generation: placement.map(|p| p.generation),
    }
}

pub(super) fn audit_workload(
    name: &WorkloadName,
    path: &Path,
    id: u64,
    mount: &Path,
) -> AuditWorkload {
    let below = path.strip_prefix(mount).unwrap_or(path);
    AuditWorkload {
        name: name.to_string(),
        cgroup: Cgroup { id, path: format!("/{}", below.display()) },
        invocation_id: crate::kernel::invocation_id(path).unwrap_or_default(),
    }
}

impl Enforcer {
    /// Lets events of this grant's slot be named.
    pub(super) fn list_grant(&self, live: &LedgerGrant) {
        let at = grantd_common::GrantRef::new(live.placement.slot, live.placement.generation);
        let grant = self.audit_grant(&live.grant, Some(&live.placement));
        self.directory.put_grant(at, Arc::new(grant));
    }
}

const fn audit_cause(cause: EndCause) -> AuditCause {
    match cause {
        EndCause::Expired => AuditCause::Expired,
        EndCause::Revoked | EndCause::RevokedLocally => AuditCause::Revoked,
        EndCause::Replaced => AuditCause::Replaced,
        EndCause::KeyWithdrawn => AuditCause::KeyWithdrawn,
        EndCause::NotCovered => AuditCause::CeilingChanged,
        EndCause::Rebooted => AuditCause::Reboot,
        EndCause::WorkloadGone => AuditCause::WorkloadGone,
        EndCause::KernelFailed => AuditCause::KernelFailed,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    crate::text::hex(bytes)
}
