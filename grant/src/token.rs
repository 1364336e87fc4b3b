//! The Okta access token: check 12.

use std::collections::BTreeSet;

use crate::ids::{ActorId, ClientId, Group, KeyId, Scope, Subject, UnixTime};
use crate::jose::Compact;
use crate::json::{Fault, FaultKind, Fields, Json};
use crate::keys::{OktaKeys, RSA_ALGORITHM};
use crate::limits::{MAX_SKEW, MAX_TOKEN_BYTES};
use crate::policy::OktaPolicy;
use crate::reason::Reason;

/// `typ` of an access token, where it has one (RFC 7519, section 5.1; RFC 9068, section 2.1).
const ACCESS_TOKEN_TYPS: [&str; 2] = ["JWT", "at+jwt"];
/// Claims that only other kinds of token have: ID tokens (OpenID Connect Core 1.0, sections 2, 3.1.3.6
/// and 3.3.2.11), logout tokens and security events (RFC 8417, section 2.2).
const FOREIGN_CLAIMS: [&str; 6] = ["nonce", "at_hash", "c_hash", "s_hash", "events", "toe"];
/// Most scopes, and most groups, in one token.
const MAX_NAMES: usize = 1024;

/// What a valid token says.
#[derive(Debug)]
pub(crate) struct VerifiedToken {
    pub(crate) kid: KeyId,
    pub(crate) identity: Subject,
    pub(crate) sub: String,
    pub(crate) client: Option<ClientId>,
    pub(crate) actor: Option<ActorId>,
    pub(crate) scopes: BTreeSet<Scope>,
    pub(crate) groups: BTreeSet<Group>,
    pub(crate) expires: UnixTime,
}

/// Why a token is not valid. Details quote nothing of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TokenFault {
    UnknownKey(KeyId),
    Refused(Reason, String),
}

/// Verifies an access token against the issuer's keys: size, form, header, key, signature, claims,
/// issuer, audience, time, scopes; the first failure ends it.
///
/// There is no leeway on `exp`; `iat` and `nbf` may be 30 s ahead, because the issuer's clock may be.
/// An old `iat` is accepted: `exp` bounds a token's life.
pub(crate) fn verify(
    token: &str,
    keys: &OktaKeys,
    policy: &OktaPolicy,
    now: UnixTime,
) -> Result<VerifiedToken, TokenFault> {
    if token.len() > MAX_TOKEN_BYTES {
        return refuse(Reason::TokenTooLarge, "the token is larger than 16 KiB");
    }
    let compact = Compact::parse(token).or_else(|what| {
        refuse(Reason::TokenMalformed, &format!("the token is malformed: {what}"))
    })?;
    let kid = check_header(&compact.header)?;
    let key = keys.get(&kid).ok_or_else(|| TokenFault::UnknownKey(kid.clone()))?;
    if !compact.is_signed_by(key, RSA_ALGORITHM) {
        return refuse(
            Reason::TokenSignatureInvalid,
            "the token's signature is not that of its key",
        );
    }
    let claims = Claims::parse(&compact.payload)?;
    claims.check(policy, now)?;
    Ok(VerifiedToken {
        kid,
        identity: claims.identity,
        sub: claims.sub,
        client: claims.client,
        actor: claims.actor,
        scopes: claims.scopes,
        groups: claims.groups,
        expires: claims.expires,
    })
}

fn refuse<T>(reason: Reason, detail: &str) -> Result<T, TokenFault> {
    Err(TokenFault::Refused(reason, detail.to_owned()))
}

/// The header is exactly `kid`, `alg` = RS256 and perhaps `typ`. Gives the `kid`.
fn check_header(header: &[u8]) -> Result<KeyId, TokenFault> {
    let malformed = |fault: Fault| {
        TokenFault::Refused(Reason::TokenHeaderMalformed, format!("the token's header: {fault}"))
    };
    let mut fields = Json::parse_object(header).map_err(malformed)?;
    let typ = fields.optional("typ", Json::text).map_err(malformed)?;
    let alg = fields.required("alg", Json::text).map_err(malformed)?;
    let kid = fields.required("kid", Json::id).map_err(malformed)?;
    if fields.finish().is_err() {
        return refuse(
            Reason::TokenHeaderForbidden,
            "the token's header has more than kid, alg and typ",
        );
    }
    if typ.is_some_and(|typ| !ACCESS_TOKEN_TYPS.contains(&typ.as_str())) {
        return refuse(Reason::TokenTypWrong, "the token's typ is not that of an access token");
    }
    if *alg != "RS256" {
        return refuse(Reason::TokenAlgWrong, "the token's alg is not RS256");
    }
    Ok(kid)
}

/// The claims that we read. Others are permitted, because servers add their own; duplicates are not.
struct Claims {
    issuer: String,
    audiences: Vec<String>,
    sub: String,
    identity: Subject,
    issued_at: UnixTime,
    not_before: Option<UnixTime>,
    expires: UnixTime,
    client: Option<ClientId>,
    actor: Option<ActorId>,
    scopes: BTreeSet<Scope>,
    groups: BTreeSet<Group>,
}

impl Claims {
    fn parse(payload: &[u8]) -> Result<Self, TokenFault> {
        let malformed = |fault: Fault| {
            let reason = match fault.kind {
                FaultKind::Missing => Reason::TokenClaimMissing,
                FaultKind::Syntax
                | FaultKind::Unknown
                | FaultKind::Expected(_)
                | FaultKind::Destination(_) => Reason::TokenClaimsMalformed,
            };
            TokenFault::Refused(reason, format!("the token's claims: {fault}"))
        };
        let fields = Json::parse_object(payload).map_err(malformed)?;
        if FOREIGN_CLAIMS.iter().any(|claim| fields.has(claim)) {
            return refuse(
                Reason::TokenKindWrong,
                "an ID token, logout token or security event; push the access token",
            );
        }
        Self::read(fields).map_err(malformed)
    }

    fn read(mut fields: Fields) -> Result<Self, Fault> {
        let sub = fields.required("sub", name)?;
        let uid: Option<Subject> = fields.optional("uid", Json::id)?;
        let identity = match uid {
            Some(uid) => uid,
            None => Subject::new(sub.clone())?,
        };
        fields.required("jti", name)?;
        fields.optional("auth_time", Json::time)?;
        let claims = Self {
            issuer: fields.required("iss", Json::plain_text)?,
            audiences: fields.required("aud", audiences)?,
            sub,
            identity,
            issued_at: fields.required("iat", Json::time)?,
            not_before: fields.optional("nbf", Json::time)?,
            expires: fields.required("exp", Json::time)?,
            client: fields.optional("cid", Json::id)?,
            actor: fields.optional("act", actor)?,
            scopes: scopes(&mut fields)?,
            groups: fields.optional("groups", |v| names(v, Json::id))?.unwrap_or_default(),
        };
        if claims.expires <= claims.issued_at {
            return Err(Fault::expected("exp after iat"));
        }
        Ok(claims)
    }

    fn check(&self, policy: &OktaPolicy, now: UnixTime) -> Result<(), TokenFault> {
        if self.issuer != policy.issuer.as_str() {
            return refuse(Reason::TokenIssuerMismatch, "the token's iss is not okta.issuer");
        }
        // A token for several audiences could have reached us by way of any of them.
        if self.audiences != [policy.audience.as_str()] {
            return refuse(
                Reason::TokenAudienceMismatch,
                "the token's aud is not okta.audience, and nothing else",
            );
        }
        if self.expires <= now {
            return refuse(Reason::TokenExpired, "the token has expired");
        }
        let latest = now.plus(MAX_SKEW);
        if self.not_before.is_some_and(|nbf| nbf > latest) {
            return refuse(
                Reason::TokenNotYetValid,
                "the token's nbf is ahead of this host's clock",
            );
        }
        if self.issued_at > latest {
            let detail = "the token's iat is ahead of this host's clock";
            return refuse(Reason::TokenIssuedInFuture, detail);
        }
        if let Some(scope) = policy.required_scopes.difference(&self.scopes).next() {
            let detail = format!("the token lacks the scope {scope} (okta.required_scopes)");
            return Err(TokenFault::Refused(Reason::TokenScopeMissing, detail));
        }
        Ok(())
    }
}

/// Scopes as Okta writes them (`scp`, an array) or as RFC 9068 does (`scope`, separated by spaces).
fn scopes(fields: &mut Fields) -> Result<BTreeSet<Scope>, Fault> {
    let array = fields.optional("scp", |value| names(value, Json::id))?;
    let spaced = fields.optional("scope", |value| {
        let text = value.text()?;
        let scopes = text.split(' ').map(Scope::new).collect::<Result<BTreeSet<_>, _>>();
        scopes.map_err(|_| Fault::expected("scopes separated by single spaces"))
    })?;
    match (array, spaced) {
        (Some(_), Some(_)) => Err(Fault::expected("scp or scope, not both")),
        (Some(scopes), None) | (None, Some(scopes)) => Ok(scopes),
        (None, None) => Ok(BTreeSet::new()),
    }
}

fn audiences(value: Json) -> Result<Vec<String>, Fault> {
    if let Json::List(_) = value {
        return value.list_or_empty(MAX_NAMES, Json::plain_text);
    }
    Ok(vec![value.plain_text()?])
}

fn actor(value: Json) -> Result<ActorId, Fault> {
    value.object()?.required("sub", Json::id)
}

/// A list, perhaps empty, as a set.
fn names<T: Ord>(
    value: Json,
    read: impl FnMut(Json) -> Result<T, Fault>,
) -> Result<BTreeSet<T>, Fault> {
    Ok(value.list_or_empty(MAX_NAMES, read)?.into_iter().collect())
}

/// A text that people may have chosen: a login, an issuer's own token id.
fn name(value: Json) -> Result<String, Fault> {
    let text = value.plain_text()?;
    if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
        return Err(Fault::expected("1 to 1024 bytes without control characters"));
    }
    Ok(text)
}

#[cfg(feature = "fuzzing")]
/// For the fuzz targets: header and claims without a signature.
pub(crate) fn fuzz(header: &[u8], payload: &[u8]) {
    let _ = check_header(header);
    if let Ok(claims) = Claims::parse(payload) {
        assert!(claims.expires > claims.issued_at, "a token without a life was accepted");
    }
}
