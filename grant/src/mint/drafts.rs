//! Claims of grants and revocations, to be signed.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::token_hash;
use crate::destination::{Destination, HostPattern};
use crate::ids::{GrantId, HostId, Issuer, Subject, TxnId, UnixTime, WorkloadName};
use crate::push::{GRANT_TYP, VERSION};
use crate::revocation::{REVOCATION_TYP, Selector};

/// Something to be signed.
pub trait Draft {
    /// `typ` of its header.
    fn typ(&self) -> &str;
    /// Its claims as they will be written.
    fn claims(&self) -> Value;
}

/// Claims under way: a well-formed message, and whatever was changed afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantDraft {
    claims: Map<String, Value>,
}

impl GrantDraft {
    /// A grant from `issuer` for `host`, for the bearer of `token`, issued at `now` for `ttl`, with no
    /// destination yet. `sub` is whom the token names; set `cid` and `act` if the token has them.
    #[expect(clippy::too_many_arguments, reason = "the required claims, each of its own type")]
    pub fn new(
        issuer: &Issuer,
        host: &HostId,
        id: &GrantId,
        txn: &TxnId,
        sub: &Subject,
        workload: &WorkloadName,
        okta_issuer: &Issuer,
        token: &str,
        now: UnixTime,
        ttl: Duration,
    ) -> Self {
        let claims = json!({
            "ver": VERSION, "iss": issuer.as_str(), "aud": host.as_str(), "jti": id.as_str(),
            "txn": txn.as_str(), "iat": now.as_secs(), "nbf": now.as_secs(),
            "exp": now.plus(ttl).as_secs(), "sub": sub.as_str(), "workload": workload.as_str(),
            "okta": { "iss": okta_issuer.as_str(), "ath": token_hash(token) },
            "authorization_details": [],
        });
        Self { claims: into_map(claims) }
    }

    /// Adds a destination.
    #[must_use]
    pub fn allow(mut self, destination: &Destination) -> Self {
        let host = destination.host().to_string();
        let ports: Vec<Value> = destination
            .ports()
            .iter()
            .map(|range| match (range.from(), range.to()) {
                (from, to) if from == to => json!(from),
                (from, to) => json!({ "from": from, "to": to }),
            })
            .collect();
        let endpoint = match destination.host() {
            HostPattern::Cidr(_) => json!({ "cidr": host, "ports": ports }),
            HostPattern::Address(_) | HostPattern::Name(_) | HostPattern::Wildcard(_) => {
                json!({ "host": host, "ports": ports })
            }
        };
        let detail = json!({
            "type": "network_connect", "actions": ["connect"],
            "protocol": destination.protocol().as_str(), "endpoints": [endpoint],
        });
        if let Some(Value::Array(details)) = self.claims.get_mut("authorization_details") {
            details.push(detail);
        }
        self
    }

    /// Sets a claim to any value, also a wrong one.
    #[must_use]
    pub fn set(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(claim.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }
}

impl Draft for GrantDraft {
    fn typ(&self) -> &str {
        GRANT_TYP
    }

    fn claims(&self) -> Value {
        Value::Object(self.claims.clone())
    }
}

/// The claims of a revocation.
#[derive(Debug, Clone, PartialEq)]
pub struct RevocationDraft {
    typ: &'static str,
    claims: Map<String, Value>,
}

impl RevocationDraft {
    /// A revocation of what `selectors` mean, issued at `now` and valid for 5 minutes, of grants issued
    /// until `now`.
    pub fn new(
        issuer: &Issuer,
        host: &HostId,
        id: &GrantId,
        seq: u64,
        selectors: &[Selector],
        now: UnixTime,
    ) -> Self {
        let revoke: Vec<Value> = selectors.iter().map(selector).collect();
        let claims = json!({
            "ver": VERSION, "iss": issuer.as_str(), "aud": host.as_str(), "jti": id.as_str(),
            "iat": now.as_secs(), "exp": now.plus(Duration::from_secs(300)).as_secs(), "seq": seq,
            "revoke": revoke, "issued_before": now.as_secs(),
        });
        Self { typ: REVOCATION_TYP, claims: into_map(claims) }
    }

    /// A signed revocation list, issued at `now` and valid for 2 minutes.
    pub fn list(
        issuer: &Issuer,
        host: &HostId,
        seq: u64,
        entries: &[(Selector, UnixTime)],
        now: UnixTime,
    ) -> Self {
        let revoked: Vec<Value> = entries
            .iter()
            .map(|(what, before)| json!({ "revoke": selector(what), "issued_before": before.0 }))
            .collect();
        let claims = json!({
            "ver": VERSION, "iss": issuer.as_str(), "aud": host.as_str(), "iat": now.as_secs(),
            "exp": now.plus(Duration::from_secs(120)).as_secs(), "seq": seq, "revoked": revoked,
        });
        Self { typ: crate::revocation::LIST_TYP, claims: into_map(claims) }
    }

    /// Sets a claim to any value, also a wrong one.
    #[must_use]
    pub fn set(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(claim.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, claim: &str) -> Self {
        self.claims.remove(claim);
        self
    }
}

impl Draft for RevocationDraft {
    fn typ(&self) -> &str {
        self.typ
    }

    fn claims(&self) -> Value {
        Value::Object(self.claims.clone())
    }
}

fn selector(selector: &Selector) -> Value {
    match selector {
        Selector::Jti(id) => json!({ "jti": id.as_str() }),
        Selector::Sub(id) => json!({ "sub": id.as_str() }),
        Selector::Cid(id) => json!({ "cid": id.as_str() }),
        Selector::Act(id) => json!({ "act": id.as_str() }),
        Selector::Txn(id) => json!({ "txn": id.as_str() }),
        Selector::Workload(name) => json!({ "workload": name.as_str() }),
        Selector::All => json!({ "all": true }),
    }
}

pub(super) fn into_map(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { return Map::new() };
    map
}
