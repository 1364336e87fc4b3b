//! One control plane, one issuer and one host, as the design's examples have them.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use grantd_grant::ids::{Audience, ClientId, Issuer, PeerUri, Scope};
use grantd_grant::mint::{GrantSigner, OktaTokenMinter, SigningAlgorithm, jwks};
use grantd_grant::policy::{
    ApprovalRule, CeilingEntry, ControlPlanePolicy, DEFAULT_MAX_TTL, Deny, GrantRate, OktaPolicy,
    SubjectPattern, WorkloadPolicy,
};
use grantd_grant::{
    ControlPlaneKeys, Destination, HostId, HostPattern, HostPolicy, HostPolicyParts, KeyId,
    OktaKeys, PortRange, Protocol, UnixTime, WorkloadName,
};

pub(crate) const NOW: UnixTime = UnixTime(1_795_311_000);
pub(crate) const CONTROL: &str = "https://control.example.org";
pub(crate) const HOST: &str = "spiffe://example.org/host/build-7";
pub(crate) const PUSHER: &str = "spiffe://example.org/control-plane";
pub(crate) const OKTA: &str = "https://acme.okta.com/oauth2/aus123";
pub(crate) const AUDIENCE: &str = "api://grantd";
pub(crate) const CLIENT: &str = "0oa4client";
pub(crate) const USER: &str = "00u1ab";
pub(crate) const ACTOR: &str = "wlp7agent";

pub(crate) struct World {
    /// EdDSA, `cp-ed`.
    pub(crate) ed25519: GrantSigner,
    /// ES256, `cp-es`.
    pub(crate) es256: GrantSigner,
    /// Pinned, but its period is over: `cp-old`.
    pub(crate) old: GrantSigner,
    /// Pinned, but its period has not begun: `cp-next`.
    pub(crate) next: GrantSigner,
    /// Not pinned: `cp-foreign`.
    pub(crate) foreign: GrantSigner,
    /// Published, `okta-1`.
    pub(crate) okta: OktaTokenMinter,
    /// Claims to be `okta-1`, but is another key.
    pub(crate) impostor: OktaTokenMinter,
    /// The organisation's server's key, not published by our authorization server.
    pub(crate) org: OktaTokenMinter,
    pub(crate) keys: ControlPlaneKeys,
    pub(crate) okta_keys: OktaKeys,
    pub(crate) policy: HostPolicy,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let signer = |alg, kid| GrantSigner::generate(alg, kid_of(kid)).unwrap();
    let minter = |kid| OktaTokenMinter::generate(kid_of(kid)).unwrap();
    let ed25519 = signer(SigningAlgorithm::EdDsa, "cp-ed");
    let es256 = signer(SigningAlgorithm::Es256, "cp-es");
    let old = signer(SigningAlgorithm::EdDsa, "cp-old");
    let next = signer(SigningAlgorithm::EdDsa, "cp-next");
    let (from, to) = (UnixTime(NOW.0 - 86_400), UnixTime(NOW.0 + 86_400));
    let pinned = jwks([
        ed25519.jwk(from, to),
        es256.jwk(from, to),
        old.jwk(from, NOW),
        next.jwk(UnixTime(NOW.0 + 1), to),
    ]);
    let okta = minter("okta-1");
    World {
        keys: ControlPlaneKeys::from_jwks(&pinned).unwrap(),
        okta_keys: OktaKeys::from_jwks(&okta.jwks()).unwrap(),
        foreign: signer(SigningAlgorithm::EdDsa, "cp-foreign"),
        impostor: minter("okta-1"),
        org: minter("org-key"),
        policy: HostPolicy::new(parts()).unwrap(),
        ed25519,
        es256,
        old,
        next,
        okta,
    }
});

/// The host's policy: the agent's client may reach, with the base scope, `db-1.internal:5432/tcp`,
/// names below `pkg.example.com` on 443, 10.20.0.0/16 on 8000 to 8100, and 2001:db8::/32 by UDP on 443;
/// with `net.prod` and an approval, 10.99.0.0/24 on 5432 for 10 minutes.
pub(crate) fn parts() -> HostPolicyParts {
    HostPolicyParts {
        host_id: HostId::new(HOST).unwrap(),
        control_plane: ControlPlanePolicy {
            issuer: Issuer::new(CONTROL).unwrap(),
            pushers: BTreeSet::from([PeerUri::new(PUSHER).unwrap()]),
        },
        okta: OktaPolicy {
            issuer: Issuer::new(OKTA).unwrap(),
            audience: Audience::new(AUDIENCE).unwrap(),
            required_scopes: scopes(&["host.connect"]),
        },
        workloads: vec![workload("coding-agent"), workload("other-agent")],
        ceiling: vec![
            CeilingEntry {
                scopes: scopes(&["host.connect"]),
                groups: BTreeSet::new(),
                workloads: BTreeSet::from([name("coding-agent")]),
                allow: vec![
                    tcp("db-1.internal", 5432, 5432),
                    tcp("*.pkg.example.com", 443, 443),
                    tcp("10.20.0.0/16", 8000, 8100),
                    destination("2001:db8::/32", 443, 443, Protocol::Udp),
                    tcp("192.0.2.0/24", 1, 65535),
                    tcp("fd00:ec2::/64", 1, 65535),
                ],
                max_ttl: None,
                approval: ApprovalRule::Optional,
            },
            CeilingEntry {
                scopes: scopes(&["net.prod"]),
                groups: BTreeSet::new(),
                workloads: BTreeSet::from([name("coding-agent")]),
                allow: vec![tcp("10.99.0.0/24", 5432, 5432)],
                max_ttl: Some(Duration::from_secs(600)),
                approval: ApprovalRule::Required,
            },
        ],
        denies: vec![Deny::host(pattern("192.0.2.66"))],
    }
}

pub(crate) fn workload(text: &str) -> WorkloadPolicy {
    WorkloadPolicy {
        name: name(text),
        subjects: vec![SubjectPattern::Client(ClientId::new(CLIENT).unwrap())],
        max_ttl: DEFAULT_MAX_TTL,
        max_live_grants: 16,
        grant_rate: GrantRate { grants: 60, per: Duration::from_secs(60) },
    }
}

pub(crate) fn name(text: &str) -> WorkloadName {
    WorkloadName::new(text).unwrap()
}

pub(crate) fn scopes(names: &[&str]) -> BTreeSet<Scope> {
    names.iter().map(|name| Scope::new(*name).unwrap()).collect()
}

pub(crate) fn kid_of(text: &str) -> KeyId {
    KeyId::new(text).unwrap()
}

/// A host pattern from either of its two spellings on the wire.
pub(crate) fn pattern(text: &str) -> HostPattern {
    HostPattern::from_cidr(text).or_else(|_| HostPattern::from_host(text)).unwrap()
}

pub(crate) fn destination(host: &str, from: u16, to: u16, protocol: Protocol) -> Destination {
    Destination::new(pattern(host), [PortRange::new(from, to).unwrap()], protocol).unwrap()
}

pub(crate) fn tcp(host: &str, from: u16, to: u16) -> Destination {
    destination(host, from, to, Protocol::Tcp)
}
