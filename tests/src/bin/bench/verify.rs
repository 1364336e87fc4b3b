//! What the pure core costs: all checks of one push, two signatures included.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use grantd_e2e::clock::{now, since, unix_now};
use grantd_e2e::grants::Letterhead;
use grantd_e2e::jose::{SigningKey, fresh_id};
use grantd_e2e::okta::AccessToken;
use grantd_e2e::probe::Latency;
use grantd_e2e::world::{A, CODING_CLIENT, CONTROL_PLANE, HOST_ID, PEER, SCOPES, pinned};
use grantd_grant::ids::{Audience, ClientId, Issuer, PeerUri, Scope};
use grantd_grant::policy::{
    ApprovalRule, CeilingEntry, ControlPlanePolicy, DEFAULT_MAX_TTL, GrantRate, OktaPolicy,
    SubjectPattern, WorkloadPolicy,
};
use grantd_grant::{
    Cidr, ControlPlaneKeys, Destination, HostId, HostPattern, HostPolicy, HostPolicyParts,
    OktaKeys, PeerUris, PortRange, Protocol, Push, ReplayAnswer, UnixTime, WorkloadName,
};
use serde_json::json;

use crate::{nanos, row, spread};

const ROUNDS: usize = 2_000;
const OKTA: &str = "https://acme.okta.com/oauth2/aus4grantd";
const WORKLOAD: &str = "coding-agent";

pub(crate) fn run() -> Result<()> {
    let control_plane = Arc::new(SigningKey::ed25519("cp-1")?);
    let okta = SigningKey::rsa("okta-key-1")?;
    let control_plane_jwks = json!({"keys": [pinned(&control_plane)?]}).to_string();
    let control_plane_keys = ControlPlaneKeys::from_jwks(control_plane_jwks.as_bytes())
        .map_err(|faults| anyhow!("{faults:?}"))?;
    let okta_keys = OktaKeys::from_jwks(json!({"keys": [okta.jwk()?]}).to_string().as_bytes())?;
    let policy = policy()?;
    let body = body(&okta, control_plane)?;
    let peer = PeerUris::new([PEER.to_owned()]);
    let at = UnixTime(unix_now());

    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        let start = now();
        let pusher = policy.check_pusher(&peer)?;
        let signed = Push::parse(&body)?.verify(&pusher, &control_plane_keys, &policy, at)?;
        let fresh = signed
            .check_replay(ReplayAnswer::New)
            .map_err(|_| anyhow!("a new grant was taken for a replay"))?;
        let verified = fresh
            .bind(&okta_keys, &policy, at)
            .map_err(|error| anyhow!("a good grant was refused: {error:?}"))?;
        samples.push(nanos(since(start)));
        ensure!(black_box(&verified).destinations().len() == 1, "no destination");
    }
    let latency = Latency::of(samples).context("no samples")?;
    row("verification of one push (checks 1 to 15)", &spread(latency), "median under 300 µs");
    Ok(())
}

fn policy() -> Result<HostPolicy> {
    let scopes = |names: &[&str]| -> Result<BTreeSet<Scope>> {
        names.iter().map(|name| Scope::new(*name).context("a scope")).collect()
    };
    let workload = WorkloadName::new(WORKLOAD)?;
    let parts = HostPolicyParts {
        host_id: HostId::new(HOST_ID)?,
        control_plane: ControlPlanePolicy {
            issuer: Issuer::new(CONTROL_PLANE)?,
            pushers: [PeerUri::new(PEER)?].into(),
        },
        okta: OktaPolicy {
            issuer: Issuer::new(OKTA)?,
            audience: Audience::new("api://grantd")?,
            required_scopes: scopes(&SCOPES[..1])?,
        },
        workloads: vec![WorkloadPolicy {
            name: workload.clone(),
            subjects: vec![SubjectPattern::Client(ClientId::new(CODING_CLIENT)?)],
            max_ttl: DEFAULT_MAX_TTL,
            max_live_grants: 256,
            grant_rate: GrantRate { grants: 60, per: std::time::Duration::from_secs(60) },
        }],
        ceiling: vec![CeilingEntry {
            scopes: scopes(&SCOPES[1..])?,
            groups: BTreeSet::new(),
            workloads: [workload].into(),
            allow: vec![Destination::new(
                HostPattern::Cidr(Cidr::parse("10.77.1.0/24")?),
                vec![PortRange::ALL],
                Protocol::Tcp,
            )?],
            max_ttl: None,
            approval: ApprovalRule::Optional,
        }],
        denies: Vec::new(),
    };
    HostPolicy::new(parts).map_err(|faults| anyhow!("{faults:?}"))
}

fn body(okta: &SigningKey, control_plane: Arc<SigningKey>) -> Result<Vec<u8>> {
    let at = unix_now();
    let claims = json!({
        "ver": 1, "jti": fresh_id("AT."), "iss": OKTA, "aud": "api://grantd", "iat": at,
        "exp": at + 3600, "cid": CODING_CLIENT, "uid": "00u1mira", "scp": SCOPES,
        "sub": "mira@example.org",
    });
    let header = json!({"kid": okta.kid(), "alg": "RS256"});
    let token = AccessToken::new(okta.sign_with(&header, &claims)?);
    let letterhead = Letterhead {
        issuer: CONTROL_PLANE.to_owned(),
        host_id: HOST_ID.to_owned(),
        key: control_plane,
    };
    Ok(letterhead.draft(WORKLOAD, &token)?.tcp(A, 5432).sign()?.body())
}
