//! A grant that may be put in force.

use std::fmt;

use crate::destination::Destination;
use crate::grant::{Actor, Approval, GrantClaims, Seal, refusal};
use crate::ids::{
    BootId, ClientId, GrantId, InvocationId, Issuer, KeyId, Subject, TxnId, UnixTime, WorkloadName,
};
use crate::reason::{Reason, Refusal};

/// A grant that passed checks 1 to 15. No other way makes one, but for [`VerifiedGrant::restore`],
/// with which the ledger reads back what it wrote. Holds neither the token nor a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedGrant {
    pub(crate) claims: GrantClaims,
    pub(crate) seal: Seal,
    pub(crate) token_kid: KeyId,
}

impl VerifiedGrant {
    /// `jti`.
    pub fn id(&self) -> &GrantId {
        &self.claims.id
    }
    /// `txn`.
    pub fn txn(&self) -> &TxnId {
        &self.claims.txn
    }
    /// `workload`.
    pub fn workload(&self) -> &WorkloadName {
        &self.claims.workload
    }
    /// `sub`.
    pub fn sub(&self) -> &Subject {
        &self.claims.sub
    }
    /// `cid`.
    pub fn cid(&self) -> Option<&ClientId> {
        self.claims.cid.as_ref()
    }
    /// `act`.
    pub fn act(&self) -> Option<&Actor> {
        self.claims.act.as_ref()
    }
    /// `iat`.
    pub fn issued_at(&self) -> UnixTime {
        self.claims.issued_at
    }
    /// `nbf`.
    pub fn not_before(&self) -> UnixTime {
        self.claims.not_before
    }
    /// `exp`: the grant is in force before this instant, not at it.
    pub fn expires(&self) -> UnixTime {
        self.claims.expires
    }
    /// `okta.iss`.
    pub fn okta_issuer(&self) -> &Issuer {
        &self.claims.okta_issuer
    }
    /// `kid` of the key that signed the Okta token: when it is withdrawn, the grant ends.
    pub fn okta_kid(&self) -> &KeyId {
        &self.token_kid
    }
    /// `okta.ath`: SHA-256 of the Okta token.
    pub fn okta_ath(&self) -> &[u8; 32] {
        &self.claims.token_hash
    }
    /// `kid` of the control-plane key that signed the grant: when it is removed, the grant ends.
    pub fn control_plane_kid(&self) -> &KeyId {
        &self.seal.kid
    }
    /// SHA-256 of the compact JWS.
    pub fn jws_sha256(&self) -> &[u8; 32] {
        &self.seal.jws_sha256
    }
    /// `replaces`: the grant that this one renews.
    pub fn replaces(&self) -> Option<&GrantId> {
        self.claims.replaces.as_ref()
    }
    /// `boot_id`: for check 16.
    pub fn boot_id(&self) -> Option<&BootId> {
        self.claims.boot_id.as_ref()
    }
    /// `invocation_id`: for check 16.
    pub fn invocation_id(&self) -> Option<&InvocationId> {
        self.claims.invocation_id.as_ref()
    }
    /// `approval`.
    pub fn approval(&self) -> Option<&Approval> {
        self.claims.approval.as_ref()
    }
    /// What it opens: at least one destination, all of them grantable.
    pub fn destinations(&self) -> &[Destination] {
        &self.claims.destinations
    }

    /// A refusal that says what this grant claims: for checks 16 and 17, and states of the host.
    pub fn refuse(&self, reason: Reason, detail: impl Into<String>) -> Refusal {
        refusal(&self.claims, &self.seal, reason, detail)
    }
}

impl fmt::Debug for VerifiedGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedGrant")
            .field("id", &self.claims.id)
            .field("workload", &self.claims.workload)
            .field("sub", &self.claims.sub)
            .field("expires", &self.claims.expires)
            .field("destinations", &self.claims.destinations)
            .finish_non_exhaustive()
    }
}
