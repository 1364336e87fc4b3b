//! The stages of a grant, from a verified signature to a permission.

use crate::destination::Destination;
use crate::ids::{
    ActorId, ActorProfile, ApprovalId, BootId, ClientId, GrantId, InvocationId, Issuer, KeyId,
    Subject, TxnId, UnixTime, WorkloadName,
};
use crate::keys::OktaKeys;
use crate::policy::{Bearer, HostPolicy, Request};
use crate::reason::{About, Reason, Refusal};
use crate::secret::Secret;
use crate::token::{TokenFault, VerifiedToken};
use crate::verified::VerifiedGrant;

/// `act`: on whose side the subject is represented (RFC 8693, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `act.sub`.
    pub sub: ActorId,
    /// `act.sub_profile`.
    pub profile: ActorProfile,
}

/// `approval`: the human decision that the control plane relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who approved.
    pub by: Subject,
    /// When.
    pub at: UnixTime,
    /// The control plane's record of it.
    pub id: ApprovalId,
}

/// What every stage after the signature knows of a grant: what revocations select by.
pub trait GrantFacts {
    /// `jti`.
    fn id(&self) -> &GrantId;
    /// `txn`.
    fn txn(&self) -> &TxnId;
    /// `sub`.
    fn sub(&self) -> &Subject;
    /// `cid`.
    fn cid(&self) -> Option<&ClientId>;
    /// `act.sub`.
    fn act(&self) -> Option<&ActorId>;
    /// `workload`.
    fn workload(&self) -> &WorkloadName;
    /// `iat`.
    fn issued_at(&self) -> UnixTime;
}

/// The claims of a grant, typed. Exists only after the signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantClaims {
    pub(crate) id: GrantId,
    pub(crate) txn: TxnId,
    pub(crate) issued_at: UnixTime,
    pub(crate) not_before: UnixTime,
    pub(crate) expires: UnixTime,
    pub(crate) sub: Subject,
    pub(crate) cid: Option<ClientId>,
    pub(crate) act: Option<Actor>,
    pub(crate) okta_issuer: Issuer,
    pub(crate) token_hash: [u8; 32],
    pub(crate) workload: WorkloadName,
    pub(crate) boot_id: Option<BootId>,
    pub(crate) invocation_id: Option<InvocationId>,
    pub(crate) replaces: Option<GrantId>,
    pub(crate) approval: Option<Approval>,
    pub(crate) destinations: Vec<Destination>,
}

/// What is kept of the signature: which key made it, over which bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) kid: KeyId,
    pub(crate) jws_sha256: [u8; 32],
}

macro_rules! grant_facts {
    ($stage:ty) => {
        impl GrantFacts for $stage {
            fn id(&self) -> &GrantId {
                &self.claims.id
            }
            fn txn(&self) -> &TxnId {
                &self.claims.txn
            }
            fn sub(&self) -> &Subject {
                &self.claims.sub
            }
            fn cid(&self) -> Option<&ClientId> {
                self.claims.cid.as_ref()
            }
            fn act(&self) -> Option<&ActorId> {
                self.claims.act.as_ref().map(|act| &act.sub)
            }
            fn workload(&self) -> &WorkloadName {
                &self.claims.workload
            }
            fn issued_at(&self) -> UnixTime {
                self.claims.issued_at
            }
        }
    };
}
grant_facts!(SignedGrant);
grant_facts!(FreshGrant);
grant_facts!(crate::verified::VerifiedGrant);

/// A grant that passed checks 2 to 9: signed by a pinned key, for this host, within its time.
/// It opens nothing yet.
#[derive(Debug)]
pub struct SignedGrant {
    pub(crate) claims: GrantClaims,
    pub(crate) seal: Seal,
    pub(crate) token: Secret,
}

/// What the ledger remembers about a `jti`, its subject and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayAnswer {
    /// Not seen, not revoked, not below the floor.
    New,
    /// Seen with the same hash: answered again, without effect.
    Same,
    /// Seen with another hash.
    OtherHash,
    /// Revoked by its `jti`.
    Revoked,
    /// `iat` is below the host's revocation floor.
    BelowFloor,
    /// A revocation of its subject, client, actor, transaction or workload covers its `iat`.
    SubjectRevoked,
}

/// How check 10 ends other than with a fresh grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The very same grant again: `200`, no effect, no prolongation.
    AlreadyAccepted(GrantId),
    /// Refused.
    Refused(Refusal),
}

impl SignedGrant {
    /// SHA-256 of the compact JWS: what the ledger compares.
    pub fn jws_sha256(&self) -> &[u8; 32] {
        &self.seal.jws_sha256
    }

    /// `exp`.
    pub fn expires(&self) -> UnixTime {
        self.claims.expires
    }

    /// Check 10, with what the ledger answered.
    ///
    /// # Errors
    /// [`ReplayOutcome::AlreadyAccepted`] for an exact repetition; a refusal with
    /// [`Reason::JtiReused`], [`Reason::GrantRevoked`], [`Reason::BelowFloor`] or
    /// [`Reason::SubjectRevoked`] otherwise.
    pub fn check_replay(self, answer: ReplayAnswer) -> Result<FreshGrant, ReplayOutcome> {
        let (reason, detail) = match answer {
            ReplayAnswer::New => {
                return Ok(FreshGrant { claims: self.claims, seal: self.seal, token: self.token });
            }
            ReplayAnswer::Same => return Err(ReplayOutcome::AlreadyAccepted(self.claims.id)),
            ReplayAnswer::OtherHash => {
                (Reason::JtiReused, "this jti was seen with other content; jti must be unique")
            }
            ReplayAnswer::Revoked => (Reason::GrantRevoked, "this grant was revoked"),
            ReplayAnswer::BelowFloor => {
                (Reason::BelowFloor, "issued before this host's revocation floor; issue a new one")
            }
            ReplayAnswer::SubjectRevoked => {
                (Reason::SubjectRevoked, "issued before a revocation that covers it")
            }
        };
        Err(ReplayOutcome::Refused(self.refuse(reason, detail)))
    }

    /// A refusal that says what this grant claims.
    pub fn refuse(&self, reason: Reason, detail: impl Into<String>) -> Refusal {
        refusal(&self.claims, &self.seal, reason, detail)
    }
}

/// A grant that also passed check 10. Still opens nothing.
#[derive(Debug)]
pub struct FreshGrant {
    claims: GrantClaims,
    seal: Seal,
    token: Secret,
}

/// Why a fresh grant was not bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Refused for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The token names a key that the set lacks. The caller may fetch the set once and try again; if it
    /// does not, the refusal is [`Reason::TokenKeyUnknown`] ([`FreshGrant::refuse_unknown_key`]).
    #[error("the token's key {0} is not in the issuer's key set")]
    UnknownKey(KeyId),
}

impl FreshGrant {
    /// Checks 11 to 15: the token is the one named, valid and the same identity; the grant does not
    /// outlive it; the ceiling covers all of the grant.
    ///
    /// # Errors
    /// [`BindError`]; see [`Reason`] for the codes of checks 11 to 15, and
    /// [`Reason::WorkloadUnknown`], without which check 15 cannot be made.
    pub fn bind(
        &self,
        keys: &OktaKeys,
        policy: &HostPolicy,
        now: UnixTime,
    ) -> Result<VerifiedGrant, BindError> {
        let claims = &self.claims;
        // Time may have passed since check 9: the caller may have waited for the issuer's keys.
        if claims.expires <= now {
            let detail = format!("exp {} is not after now, {now}", claims.expires);
            return Err(self.refuse(Reason::Expired, detail).into());
        }
        if crate::jose::sha256(self.token.expose().as_bytes()) != claims.token_hash {
            return Err(self
                .refuse(Reason::TokenHashMismatch, "okta.ath is not the hash of subject_token")
                .into());
        }
        if claims.okta_issuer != policy.okta().issuer {
            let detail = "okta.iss is not the issuer of this host";
            return Err(self.refuse(Reason::TokenIssuerMismatch, detail).into());
        }
        let token = match crate::token::verify(self.token.expose(), keys, policy.okta(), now) {
            Ok(token) => token,
            Err(TokenFault::UnknownKey(kid)) => return Err(BindError::UnknownKey(kid)),
            Err(TokenFault::Refused(reason, detail)) => {
                return Err(self.refuse(reason, detail).into());
            }
        };
        self.check_identity(&token)?;
        if claims.expires > token.expires {
            let detail = format!("exp {} is after the token's {}", claims.expires, token.expires);
            return Err(self.refuse(Reason::OutlivesToken, detail).into());
        }
        let request = Request {
            workload: &claims.workload,
            destinations: &claims.destinations,
            ttl: claims.expires.since(claims.issued_at).unwrap_or_default(),
            issued_at: claims.issued_at,
            approval: claims.approval.as_ref(),
        };
        let bearer = Bearer {
            identity: &token.identity,
            login: &token.sub,
            client: token.client.as_ref(),
            actor: token.actor.as_ref(),
            scopes: &token.scopes,
            groups: &token.groups,
        };
        policy
            .check_ceiling(&request, &bearer, now)
            .map_err(|(reason, detail)| self.refuse(reason, detail))?;
        Ok(VerifiedGrant { claims: claims.clone(), seal: self.seal.clone(), token_kid: token.kid })
    }

    /// A refusal that says what this grant claims.
    pub fn refuse(&self, reason: Reason, detail: impl Into<String>) -> Refusal {
        refusal(&self.claims, &self.seal, reason, detail)
    }

    /// The refusal for [`BindError::UnknownKey`] once fetching did not help.
    pub fn refuse_unknown_key(&self, kid: &KeyId) -> Refusal {
        self.refuse(
            Reason::TokenKeyUnknown,
            format!("the issuer publishes no usable key {kid}; check okta.issuer and its JWKS"),
        )
    }

    /// Check 13.
    fn check_identity(&self, token: &VerifiedToken) -> Result<(), Refusal> {
        let claims = &self.claims;
        if claims.sub != token.identity {
            let detail = "sub is not the token's uid (its sub where it has no uid)";
            return Err(self.refuse(Reason::SubjectMismatch, detail));
        }
        if claims.cid != token.client {
            return Err(self.refuse(Reason::ClientMismatch, "cid is not the token's cid"));
        }
        if claims.act.as_ref().map(|act| &act.sub) != token.actor.as_ref() {
            return Err(self.refuse(Reason::ActorMismatch, "act.sub is not the token's act.sub"));
        }
        Ok(())
    }
}

pub(crate) fn refusal(
    claims: &GrantClaims,
    seal: &Seal,
    reason: Reason,
    detail: impl Into<String>,
) -> Refusal {
    Refusal::new(reason, detail).about(claims.about(seal.kid.clone()))
}

impl GrantClaims {
    pub(crate) fn about(&self, kid: KeyId) -> About {
        About {
            jti: Some(self.id.clone()),
            txn: Some(self.txn.clone()),
            sub: Some(self.sub.clone()),
            cid: self.cid.clone(),
            act: self.act.as_ref().map(|act| act.sub.clone()),
            workload: Some(self.workload.clone()),
            kid: Some(kid),
            exp: Some(self.expires),
            destinations: self.destinations.clone(),
        }
    }
}
