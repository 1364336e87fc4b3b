//! From bytes to the claims of a grant, and the header that control-plane messages share.

use crate::destination::{Destination, HostPattern, PortRange, Protocol};
use crate::grant::{Actor, Approval, GrantClaims};
use crate::ids::{Issuer, KeyId};
use crate::json::{Fault, FaultKind, Fields, Json};
use crate::limits::{MAX_ENDPOINTS, MAX_PORT_ITEMS};
use crate::reason::{Reason, Refusal};

/// Header parameters that change where keys come from or what a verifier must understand
/// (RFC 7515, section 4.1). Named, so that the refusal can say which kind of attack was tried.
const FORBIDDEN_HEADERS: [&str; 6] = ["crit", "jku", "jwk", "x5u", "x5c", "b64"];

/// A JOSE header of exactly `typ`, `alg` and `kid`. Not believed until the signature is.
pub(crate) struct Header {
    pub(crate) typ: String,
    pub(crate) alg: String,
    pub(crate) kid: KeyId,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed =
            |fault: Fault| Refusal::new(Reason::HeaderMalformed, format!("JOSE header: {fault}"));
        let mut fields = Json::parse_object(bytes).map_err(malformed)?;
        if let Some(name) = FORBIDDEN_HEADERS.iter().find(|name| fields.has(name)) {
            let detail = format!("JOSE header has {name}; it must be exactly typ, alg, kid");
            return Err(Refusal::new(Reason::HeaderForbidden, detail));
        }
        let header = Self {
            typ: fields.required("typ", Json::plain_text).map_err(malformed)?,
            alg: fields.required("alg", Json::plain_text).map_err(malformed)?,
            kid: fields.required("kid", Json::id).map_err(malformed)?,
        };
        fields.finish().map_err(|_| {
            Refusal::new(Reason::HeaderForbidden, "JOSE header is not exactly typ, alg, kid")
        })?;
        Ok(header)
    }
}

/// `iss`, `aud`, `ver`: parsed with the claims, compared after (check 8).
pub(crate) struct Envelope {
    pub(crate) version: u64,
    pub(crate) issuer: String,
    pub(crate) audience: String,
}

impl Envelope {
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, Fault> {
        Ok(Self {
            version: fields.required("ver", Json::unsigned)?,
            issuer: fields.required("iss", Json::plain_text)?,
            audience: fields.required("aud", Json::plain_text)?,
        })
    }
}

/// Check 7 for a grant.
pub(crate) fn grant_claims(payload: &[u8]) -> Result<(Envelope, GrantClaims), Refusal> {
    parse_grant(payload)
        .map_err(|fault| Refusal::new(claims_reason(&fault), format!("claims: {fault}")))
}

/// The reason for a fault in claims.
pub(crate) fn claims_reason(fault: &Fault) -> Reason {
    use crate::destination::InvalidDestination as Invalid;
    match &fault.kind {
        FaultKind::Destination(Invalid::Forbidden(_)) => Reason::DestinationForbidden,
        FaultKind::Destination(_) => Reason::DestinationInvalid,
        FaultKind::Syntax | FaultKind::Missing | FaultKind::Unknown | FaultKind::Expected(_) => {
            Reason::ClaimsMalformed
        }
    }
}

fn parse_grant(payload: &[u8]) -> Result<(Envelope, GrantClaims), Fault> {
    let mut fields = Json::parse_object(payload)?;
    let envelope = Envelope::take(&mut fields)?;
    let (okta_issuer, token_hash) = fields.required("okta", okta)?;
    let claims = GrantClaims {
        id: fields.required("jti", Json::id)?,
        txn: fields.required("txn", Json::id)?,
        issued_at: fields.required("iat", Json::time)?,
        not_before: fields.required("nbf", Json::time)?,
        expires: fields.required("exp", Json::time)?,
        sub: fields.required("sub", Json::id)?,
        cid: fields.optional("cid", Json::id)?,
        act: fields.optional("act", actor)?,
        okta_issuer,
        token_hash,
        workload: fields.required("workload", Json::id)?,
        boot_id: fields.optional("boot_id", Json::id)?,
        invocation_id: fields.optional("invocation_id", Json::id)?,
        replaces: fields.optional("replaces", Json::id)?,
        approval: fields.optional("approval", approval)?,
        destinations: fields.required("authorization_details", authorization_details)?,
    };
    fields.finish()?;
    if claims.replaces.as_ref() == Some(&claims.id) {
        return Err(Fault::expected("replaces to name another grant"));
    }
    Ok((envelope, claims))
}

fn okta(value: Json) -> Result<(Issuer, [u8; 32]), Fault> {
    let mut fields = value.object()?;
    let issuer = fields.required("iss", Json::id)?;
    let hash = fields.required("ath", |value| {
        let decoded = crate::jose::decode(&value.text()?).unwrap_or_default();
        <[u8; 32]>::try_from(decoded).map_err(|_| Fault::expected("base64url of a SHA-256"))
    })?;
    fields.finish()?;
    Ok((issuer, hash))
}

fn actor(value: Json) -> Result<Actor, Fault> {
    let mut fields = value.object()?;
    let actor = Actor {
        sub: fields.required("sub", Json::id)?,
        profile: fields.required("sub_profile", Json::id)?,
    };
    fields.finish()?;
    Ok(actor)
}

fn approval(value: Json) -> Result<Approval, Fault> {
    let mut fields = value.object()?;
    let approval = Approval {
        by: fields.required("by", Json::id)?,
        at: fields.required("at", Json::time)?,
        id: fields.required("id", Json::id)?,
    };
    fields.finish()?;
    Ok(approval)
}

/// RFC 9396, section 2: one type, `network_connect`; one action, `connect`.
fn authorization_details(value: Json) -> Result<Vec<Destination>, Fault> {
    let details = value.list(MAX_ENDPOINTS, |detail| {
        let mut fields = detail.object()?;
        fields.required("type", |value| exactly(value, "network_connect", "network_connect"))?;
        fields.required("actions", |value| {
            value.list(1, |action| exactly(action, "connect", "the action connect"))
        })?;
        let protocol = fields.required("protocol", |value| {
            Protocol::parse(&value.text()?).ok_or_else(|| Fault::expected("tcp or udp"))
        })?;
        let endpoints = fields.required("endpoints", |value| {
            value.list(MAX_ENDPOINTS, |endpoint| self::endpoint(endpoint, protocol))
        })?;
        fields.finish()?;
        Ok(endpoints)
    })?;
    let destinations: Vec<Destination> = details.into_iter().flatten().collect();
    if destinations.len() > MAX_ENDPOINTS {
        return Err(Fault::expected("at most 64 endpoints in all"));
    }
    Ok(destinations)
}

pub(crate) fn endpoint(value: Json, protocol: Protocol) -> Result<Destination, Fault> {
    let invalid = |error| Fault::new(FaultKind::Destination(error));
    let mut fields = value.object()?;
    let host =
        fields.optional("host", |value| HostPattern::from_host(&value.text()?).map_err(invalid))?;
    let cidr =
        fields.optional("cidr", |value| HostPattern::from_cidr(&value.text()?).map_err(invalid))?;
    let ports = fields.required("ports", |value| value.list(MAX_PORT_ITEMS, port_item))?;
    fields.finish()?;
    let host = match (host, cidr) {
        (Some(pattern), None) | (None, Some(pattern)) => pattern,
        (Some(_), Some(_)) | (None, None) => {
            return Err(Fault::expected("exactly one of host and cidr"));
        }
    };
    host.check_grantable().map_err(invalid)?;
    Destination::new(host, ports, protocol).map_err(invalid)
}

fn port_item(value: Json) -> Result<PortRange, Fault> {
    let (from, to) = if let Json::Object(_) = value {
        let mut fields = value.object()?;
        let range =
            (fields.required("from", Json::unsigned)?, fields.required("to", Json::unsigned)?);
        fields.finish()?;
        range
    } else {
        let port = value.unsigned()?;
        (port, port)
    };
    let invalid =
        || Fault::new(FaultKind::Destination(crate::destination::InvalidDestination::Ports));
    let from = u16::try_from(from).map_err(|_| invalid())?;
    let to = u16::try_from(to).map_err(|_| invalid())?;
    PortRange::new(from, to).map_err(|_| invalid())
}

fn exactly(value: Json, wanted: &str, name: &'static str) -> Result<(), Fault> {
    if *value.text()? == wanted { Ok(()) } else { Err(Fault::expected(name)) }
}
