//! A pushed grant: checks 2 to 9.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::grant::{GrantClaims, Seal, SignedGrant};
use crate::ids::UnixTime;
use crate::jose::{Compact, sha256};
use crate::json::{Fault, Json};
use crate::keys::ControlPlaneKeys;
use crate::limits::{MAX_GRANT_AGE, MAX_PUSH_BYTES, MAX_SKEW};
use crate::policy::{HostPolicy, Pusher};
use crate::reason::{Reason, Refusal};
use crate::secret::Secret;
use crate::wire::{Envelope, Header};

/// `typ` of a grant (RFC 8725, section 3.11: explicit typing).
pub(crate) const GRANT_TYP: &str = "hostgrant+jwt";
/// Version of grant and revocation claims that this host speaks.
pub(crate) const VERSION: u64 = 1;

/// The body of a push: a grant and the Okta token beside it. Nothing in it is to be believed yet.
#[derive(Debug)]
pub struct Push {
    // Hidden like the token: a pusher could mistake one for the other.
    grant: Secret,
    token: Secret,
}

impl Push {
    /// Reads `{"grant": …, "subject_token": …}`, at most 64 KiB (check 2).
    ///
    /// The caller bounds what it reads from the network by itself, and wipes its own copy of the body.
    ///
    /// # Errors
    /// [`Reason::PushTooLarge`], [`Reason::PushMalformed`].
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = push_body(body)?;
        let mut read = || -> Result<(Zeroizing<String>, Zeroizing<String>), Fault> {
            Ok((
                fields.required("grant", Json::text)?,
                fields.required("subject_token", Json::text)?,
            ))
        };
        let (grant, token) = read().map_err(malformed)?;
        fields.finish().map_err(malformed)?;
        Ok(Self { grant: Secret::new(grant), token: Secret::new(token) })
    }

    /// Checks 2 to 9.
    ///
    /// # Errors
    /// The first check that fails; see [`Reason`] for the codes of checks 2 to 9.
    pub fn verify(
        self,
        _pusher: &Pusher,
        keys: &ControlPlaneKeys,
        policy: &HostPolicy,
        now: UnixTime,
    ) -> Result<SignedGrant, Refusal> {
        let (payload, seal) = authenticate(self.grant.expose(), GRANT_TYP, keys, now)?;
        let (envelope, claims) = crate::wire::grant_claims(&payload)?;
        let refuse = |(reason, detail): (Reason, String)| {
            Refusal::new(reason, detail).about(claims.about(seal.kid.clone()))
        };
        check_envelope(&envelope, policy).map_err(refuse)?;
        check_time(&claims, policy.max_ttl(&claims.workload), now).map_err(refuse)?;
        Ok(SignedGrant { claims, seal, token: self.token })
    }
}

/// The object of a push body.
pub(crate) fn push_body(body: &[u8]) -> Result<crate::json::Fields, Refusal> {
    if body.len() > MAX_PUSH_BYTES {
        let detail =
            format!("the body has {} bytes, at most {MAX_PUSH_BYTES} are read", body.len());
        return Err(Refusal::new(Reason::PushTooLarge, detail));
    }
    Json::parse_object(body).map_err(malformed)
}

pub(crate) fn malformed(fault: Fault) -> Refusal {
    Refusal::new(Reason::PushMalformed, format!("body: {fault}"))
}

/// Checks 2 to 6 for any message of the control plane: form, header, `typ`, key, signature.
pub(crate) fn authenticate(
    jws: &str,
    typ: &str,
    keys: &ControlPlaneKeys,
    now: UnixTime,
) -> Result<(Zeroizing<Vec<u8>>, Seal), Refusal> {
    let compact = Compact::parse(jws).map_err(|what| Refusal::new(Reason::JwsMalformed, what))?;
    let header = Header::parse(&compact.header)?;
    if header.typ != typ {
        return Err(Refusal::new(Reason::TypWrong, format!("typ is not {typ}")));
    }
    let key = keys.usable(&header.kid, &header.alg, now)?;
    if !compact.is_signed_by(key.verifier(), key.algorithm()) {
        let detail = format!("the signature is not that of key {}", header.kid);
        return Err(Refusal::new(Reason::SignatureInvalid, detail));
    }
    Ok((compact.payload, Seal { kid: header.kid, jws_sha256: sha256(jws.as_bytes()) }))
}

/// Check 8.
pub(crate) fn check_envelope(
    envelope: &Envelope,
    policy: &HostPolicy,
) -> Result<(), (Reason, String)> {
    if envelope.issuer != policy.control_plane().issuer.as_str() {
        return Err((Reason::IssuerMismatch, "iss is not control_plane.issuer".to_owned()));
    }
    if envelope.audience != policy.host_id().as_str() {
        return Err((Reason::AudienceMismatch, "aud is not this host's id".to_owned()));
    }
    if envelope.version != VERSION {
        return Err((Reason::VersionUnsupported, format!("ver is not {VERSION}")));
    }
    Ok(())
}

/// Check 9. No leeway on `exp`.
fn check_time(
    claims: &GrantClaims,
    max_ttl: Duration,
    now: UnixTime,
) -> Result<(), (Reason, String)> {
    let GrantClaims { issued_at, not_before, expires, .. } = claims;
    let latest = now.plus(MAX_SKEW);
    if *issued_at > latest {
        return Err((Reason::IssuedInFuture, format!("iat {issued_at} is ahead of now, {now}")));
    }
    if *not_before > latest {
        return Err((Reason::NotYetValid, format!("nbf {not_before} is ahead of now, {now}")));
    }
    if now.since(*issued_at).is_some_and(|age| age > MAX_GRANT_AGE) {
        let detail = format!("iat {issued_at} is more than 5 minutes before now, {now}");
        return Err((Reason::IssuedTooLongAgo, detail));
    }
    if *expires <= now {
        return Err((Reason::Expired, format!("exp {expires} is not after now, {now}")));
    }
    match expires.since(*issued_at) {
        None | Some(Duration::ZERO) => {
            Err((Reason::TtlInvalid, format!("exp {expires} is not after iat {issued_at}")))
        }
        Some(ttl) if ttl > max_ttl => Err((
            Reason::TtlTooLong,
            format!("lives {} s, at most {} s are allowed", ttl.as_secs(), max_ttl.as_secs()),
        )),
        Some(_) => Ok(()),
    }
}
