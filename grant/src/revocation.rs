//! Revocations: single ones that are pushed, and the signed list.
//!
//! They need no Okta proof, because revoking is the safe direction.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::grant::{GrantFacts, Seal};
use crate::ids::{ActorId, ClientId, GrantId, KeyId, Subject, TxnId, UnixTime, WorkloadName};
use crate::json::{Fault, Fields, Json};
use crate::keys::ControlPlaneKeys;
use crate::limits::{
    MAX_REVOCATION_LIST_BYTES, MAX_REVOCATION_LIST_ENTRIES, MAX_SELECTORS, MAX_SKEW,
    REVOCATION_LIST_STALE,
};
use crate::policy::{HostPolicy, Pusher};
use crate::push::{authenticate, check_envelope, malformed, push_body};
use crate::reason::{About, Reason, Refusal};
use crate::secret::Secret;
use crate::wire::{Envelope, claims_reason};

/// `typ` of a pushed revocation.
pub(crate) const REVOCATION_TYP: &str = "hostrevoke+jwt";
/// `typ` of the signed revocation list.
pub(crate) const LIST_TYP: &str = "hostrevokelist+jwt";

/// Which grants a revocation means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// One grant.
    Jti(GrantId),
    /// All of a subject.
    Sub(Subject),
    /// All of a client.
    Cid(ClientId),
    /// All of an actor.
    Act(ActorId),
    /// All of a control plane's request.
    Txn(TxnId),
    /// All of a workload.
    Workload(WorkloadName),
    /// All of this host.
    All,
}

impl Selector {
    /// Whether it means this grant, whenever that was issued.
    pub fn matches(&self, grant: &impl GrantFacts) -> bool {
        match self {
            Self::Jti(jti) => grant.id() == jti,
            Self::Sub(sub) => grant.sub() == sub,
            Self::Cid(cid) => grant.cid() == Some(cid),
            Self::Act(act) => grant.act() == Some(act),
            Self::Txn(txn) => grant.txn() == txn,
            Self::Workload(workload) => grant.workload() == workload,
            Self::All => true,
        }
    }

    /// Whether it revokes this grant: one that it means, issued at or before `issued_before`. A grant
    /// named by its `jti` is revoked whenever it was issued.
    pub fn revokes(&self, grant: &impl GrantFacts, issued_before: UnixTime) -> bool {
        let in_time = matches!(self, Self::Jti(_)) || grant.issued_at() <= issued_before;
        in_time && self.matches(grant)
    }

    fn parse(value: Json) -> Result<Self, Fault> {
        let mut fields = value.object()?;
        let found = [
            fields.optional("jti", |v| v.id().map(Self::Jti))?,
            fields.optional("sub", |v| v.id().map(Self::Sub))?,
            fields.optional("cid", |v| v.id().map(Self::Cid))?,
            fields.optional("act", |v| v.id().map(Self::Act))?,
            fields.optional("txn", |v| v.id().map(Self::Txn))?,
            fields.optional("workload", |v| v.id().map(Self::Workload))?,
            fields.optional("all", |value| {
                let Json::Bool(true) = value else { return Err(Fault::expected("true")) };
                Ok(Self::All)
            })?,
        ];
        fields.finish()?;
        let mut found = found.into_iter().flatten();
        match (found.next(), found.next()) {
            (Some(selector), None) => Ok(selector),
            _ => Err(Fault::expected("exactly one of jti, sub, cid, act, txn, workload, all")),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jti(id) => write!(f, "jti={id}"),
            Self::Sub(id) => write!(f, "sub={id}"),
            Self::Cid(id) => write!(f, "cid={id}"),
            Self::Act(id) => write!(f, "act={id}"),
            Self::Txn(id) => write!(f, "txn={id}"),
            Self::Workload(name) => write!(f, "workload={name}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// The body of a pushed revocation, `{"revocation": "<compact JWS>"}`. Nothing in it is to be believed.
#[derive(Debug)]
pub struct RevocationPush {
    jws: Secret,
}

/// A revocation that the control plane signed for this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRevocation {
    id: GrantId,
    sequence: u64,
    issued_at: UnixTime,
    issued_before: UnixTime,
    selectors: Vec<Selector>,
    seal: Seal,
}

impl RevocationPush {
    /// Reads the body, at most 64 KiB.
    ///
    /// # Errors
    /// [`Reason::PushTooLarge`], [`Reason::PushMalformed`].
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = push_body(body)?;
        let jws = fields.required("revocation", Json::text).map_err(malformed)?;
        fields.finish().map_err(malformed)?;
        Ok(Self { jws: Secret::new(jws) })
    }

    /// Verifies form, header, `typ`, key, signature, claims, `iss`, `aud`, `ver`, and time: `iat` at
    /// most 30 s ahead, `exp` after now. Whether `seq` is newer is the ledger's to say.
    ///
    /// # Errors
    /// The first check that fails, with the codes of grants.
    pub fn verify(
        self,
        _pusher: &Pusher,
        keys: &ControlPlaneKeys,
        policy: &HostPolicy,
        now: UnixTime,
    ) -> Result<VerifiedRevocation, Refusal> {
        let (payload, seal) = authenticate(self.jws.expose(), REVOCATION_TYP, keys, now)?;
        let (envelope, life, revocation) =
            read_revocation(&payload, seal.clone()).map_err(bad_claims)?;
        let refuse = |(reason, detail): (Reason, String)| {
            let jti = Some(revocation.id.clone());
            let kid = Some(seal.kid.clone());
            Refusal::new(reason, detail).about(About { jti, kid, ..About::default() })
        };
        check_envelope(&envelope, policy).map_err(refuse)?;
        life.check(now).map_err(refuse)?;
        Ok(revocation)
    }
}

impl VerifiedRevocation {
    /// `jti`.
    pub fn jti(&self) -> &GrantId {
        &self.id
    }

    /// `seq`: larger than that of every earlier revocation of the same issuer.
    pub fn seq(&self) -> u64 {
        self.sequence
    }

    /// `iat`.
    pub fn issued_at(&self) -> UnixTime {
        self.issued_at
    }

    /// Grants issued at or before this instant are meant; later ones are not, so that an old revocation
    /// that is replayed does not end a new grant.
    pub fn issued_before(&self) -> UnixTime {
        self.issued_before
    }

    /// Which grants it means; at least one selector, one match is enough.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// `kid` of the key that signed it.
    pub fn kid(&self) -> &KeyId {
        &self.seal.kid
    }

    /// SHA-256 of the compact JWS.
    pub fn jws_sha256(&self) -> &[u8; 32] {
        &self.seal.jws_sha256
    }

    /// Whether it revokes this grant.
    pub fn revokes(&self, grant: &impl GrantFacts) -> bool {
        self.selectors.iter().any(|selector| selector.revokes(grant, self.issued_before))
    }
}

/// A compact JWS with `typ: hostrevokelist+jwt` and claims
/// `{ver,iss,aud,iat,exp,seq,revoked:[{"revoke":{selector},"issued_before":…}]}`; `revoked` may be
/// empty. Nothing in it is to be believed yet.
#[derive(Debug)]
pub struct RevocationList {
    jws: Secret,
}

/// A revocation list that the control plane signed for this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRevocationList {
    sequence: u64,
    issued_at: UnixTime,
    expires: UnixTime,
    entries: Vec<(Selector, UnixTime)>,
    seal: Seal,
}

impl RevocationList {
    /// Takes the compact JWS, at most 1 MiB of text.
    ///
    /// # Errors
    /// [`Reason::PushTooLarge`], [`Reason::JwsMalformed`].
    pub fn parse(document: &[u8]) -> Result<Self, Refusal> {
        if document.len() > MAX_REVOCATION_LIST_BYTES {
            return Err(Refusal::new(Reason::PushTooLarge, "the list is larger than 1 MiB"));
        }
        let text = std::str::from_utf8(document)
            .map_err(|_| Refusal::new(Reason::JwsMalformed, "the list is not text"))?;
        Ok(Self { jws: Secret::new(text.to_owned().into()) })
    }

    /// Verifies it like a pushed revocation.
    ///
    /// # Errors
    /// The first check that fails, with the codes of grants; [`Reason::RevocationNotNewer`] if `seq` is
    /// below `last_seq` (the same list again is fine).
    pub fn verify(
        self,
        keys: &ControlPlaneKeys,
        policy: &HostPolicy,
        last_seq: Option<u64>,
        now: UnixTime,
    ) -> Result<VerifiedRevocationList, Refusal> {
        let (payload, seal) = authenticate(self.jws.expose(), LIST_TYP, keys, now)?;
        let (envelope, life, list) = read_list(&payload, seal).map_err(bad_claims)?;
        let refuse = |(reason, detail): (Reason, String)| Refusal::new(reason, detail);
        check_envelope(&envelope, policy).map_err(refuse)?;
        life.check(now).map_err(refuse)?;
        if last_seq.is_some_and(|last| list.sequence < last) {
            let detail = "seq is below that of the list in use: an older list, or a roll-back";
            return Err(Refusal::new(Reason::RevocationNotNewer, detail));
        }
        Ok(list)
    }
}

impl VerifiedRevocationList {
    /// `seq`.
    pub fn seq(&self) -> u64 {
        self.sequence
    }

    /// `iat`.
    pub fn issued_at(&self) -> UnixTime {
        self.issued_at
    }

    /// `kid` of the key that signed it.
    pub fn kid(&self) -> &KeyId {
        &self.seal.kid
    }

    /// The selectors, each with its `issued_before`.
    pub fn entries(&self) -> &[(Selector, UnixTime)] {
        &self.entries
    }

    /// Whether it revokes this grant.
    pub fn revokes(&self, grant: &impl GrantFacts) -> bool {
        self.entries.iter().any(|(selector, before)| selector.revokes(grant, *before))
    }

    /// Whether it is too old to accept new grants on: 2 minutes after `iat`, or at `exp`.
    pub fn is_stale(&self, now: UnixTime) -> bool {
        now >= self.issued_at.plus(REVOCATION_LIST_STALE) || now >= self.expires
    }
}

struct Life {
    issued_at: UnixTime,
    expires: UnixTime,
}

impl Life {
    fn take(fields: &mut Fields) -> Result<Self, Fault> {
        Ok(Self {
            issued_at: fields.required("iat", Json::time)?,
            expires: fields.required("exp", Json::time)?,
        })
    }

    fn check(&self, now: UnixTime) -> Result<(), (Reason, String)> {
        let Self { issued_at, expires } = self;
        if *issued_at > now.plus(MAX_SKEW) {
            return Err((
                Reason::IssuedInFuture,
                format!("iat {issued_at} is ahead of now, {now}"),
            ));
        }
        if *expires <= now {
            return Err((Reason::Expired, format!("exp {expires} is not after now, {now}")));
        }
        if expires.since(*issued_at).is_none_or(|life| life == Duration::ZERO) {
            return Err((Reason::TtlInvalid, "exp is not after iat".to_owned()));
        }
        Ok(())
    }
}

fn bad_claims(fault: Fault) -> Refusal {
    Refusal::new(claims_reason(&fault), format!("claims: {fault}"))
}

fn read_revocation(
    payload: &[u8],
    seal: Seal,
) -> Result<(Envelope, Life, VerifiedRevocation), Fault> {
    let mut fields = Json::parse_object(payload)?;
    let envelope = Envelope::take(&mut fields)?;
    let life = Life::take(&mut fields)?;
    let revocation = VerifiedRevocation {
        id: fields.required("jti", Json::id)?,
        sequence: fields.required("seq", Json::unsigned)?,
        issued_at: life.issued_at,
        issued_before: fields.required("issued_before", Json::time)?,
        selectors: fields.required("revoke", |v| v.list(MAX_SELECTORS, Selector::parse))?,
        seal,
    };
    fields.finish()?;
    Ok((envelope, life, revocation))
}

fn read_list(
    payload: &[u8],
    seal: Seal,
) -> Result<(Envelope, Life, VerifiedRevocationList), Fault> {
    let mut fields = Json::parse_object(payload)?;
    let envelope = Envelope::take(&mut fields)?;
    let life = Life::take(&mut fields)?;
    let entry = |value: Json| {
        let mut fields = value.object()?;
        let selector = fields.required("revoke", Selector::parse)?;
        let issued_before = fields.required("issued_before", Json::time)?;
        fields.finish()?;
        Ok((selector, issued_before))
    };
    let list = VerifiedRevocationList {
        sequence: fields.required("seq", Json::unsigned)?,
        issued_at: life.issued_at,
        expires: life.expires,
        entries: fields
            .required("revoked", |value| value.list_or_empty(MAX_REVOCATION_LIST_ENTRIES, entry))?,
        seal,
    };
    fields.finish()?;
    Ok((envelope, life, list))
}

#[cfg(feature = "fuzzing")]
/// For the fuzz targets: claims of a revocation and of a list, without a signature.
pub(crate) fn fuzz(payload: &[u8]) {
    let Ok(kid) = KeyId::new("fuzz") else { return };
    let seal = Seal { kid, jws_sha256: [0; 32] };
    if let Ok((_, _, revocation)) = read_revocation(payload, seal.clone()) {
        assert!(!revocation.selectors.is_empty(), "a revocation of nothing was accepted");
    }
    let _ = read_list(payload, seal);
}
