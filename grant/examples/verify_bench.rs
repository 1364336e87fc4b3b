//! Median time to verify a whole push: grant, RS256 Okta token, ceiling (checks 1 to 15).
//!
//! `cargo run --release -p grantd-grant --example verify_bench --features mint`; the budget is 300 µs.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::collections::BTreeSet;
use std::error::Error;
use std::time::{Duration, Instant};

use grantd_grant::ids::{Audience, ClientId, Issuer, PeerUri, Scope};
use grantd_grant::mint::{
    GrantDraft, GrantSigner, OktaTokenMinter, SigningAlgorithm, TokenDraft, jwks, push_body,
};
use grantd_grant::policy::{
    ApprovalRule, CeilingEntry, ControlPlanePolicy, DEFAULT_MAX_TTL, GrantRate, OktaPolicy,
    SubjectPattern, WorkloadPolicy,
};
use grantd_grant::{
    ControlPlaneKeys, Destination, GrantId, HostId, HostPattern, HostPolicy, HostPolicyParts,
    KeyId, OktaKeys, PeerUris, PortRange, Protocol, Push, ReplayAnswer, Subject, TxnId, UnixTime,
    WorkloadName,
};

const NOW: UnixTime = UnixTime(1_795_311_000);
const PUSHER: &str = "spiffe://example.org/control-plane";
const DESTINATIONS: u8 = 10;
const ROUNDS: usize = 5000;

fn main() -> Result<(), Box<dyn Error>> {
    for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256] {
        let mut times = run(algorithm)?;
        times.sort_unstable();
        let at =
            |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        println!(
            "{}: whole push of {DESTINATIONS} destinations verified in {:?} median, {:?} p99 \
             ({ROUNDS} rounds; budget 300 µs)",
            algorithm.as_str(),
            at(50),
            at(99),
        );
    }
    Ok(())
}

fn run(algorithm: SigningAlgorithm) -> Result<Vec<Duration>, Box<dyn Error>> {
    let signer = GrantSigner::generate(algorithm, KeyId::new("cp")?)?;
    let minter = OktaTokenMinter::generate(KeyId::new("okta")?)?;
    let pinned = jwks([signer.jwk(UnixTime(0), UnixTime::MAX)]);
    let keys = ControlPlaneKeys::from_jwks(&pinned).map_err(|faults| format!("{faults:?}"))?;
    let okta_keys = OktaKeys::from_jwks(&minter.jwks())?;
    let policy = HostPolicy::new(parts()?).map_err(|faults| format!("{faults:?}"))?;
    let body = body(&signer, &minter)?;
    let peer = PeerUris::new([PUSHER.to_owned()]);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = now();
        let pusher = policy.check_pusher(&peer)?;
        let signed = Push::parse(&body)?.verify(&pusher, &keys, &policy, NOW)?;
        let fresh = signed.check_replay(ReplayAnswer::New).map_err(|other| format!("{other:?}"))?;
        let grant = fresh.bind(&okta_keys, &policy, NOW)?;
        times.push(now().duration_since(started));
        if grant.destinations().len() != usize::from(DESTINATIONS) {
            return Err("a destination is missing".into());
        }
    }
    Ok(times)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

fn body(signer: &GrantSigner, minter: &OktaTokenMinter) -> Result<Vec<u8>, Box<dyn Error>> {
    let okta = Issuer::new("https://acme.okta.com/oauth2/aus123")?;
    let hour = Duration::from_secs(3600);
    let audience = Audience::new("api://grantd")?;
    let token =
        TokenDraft::for_client(&okta, &audience, "0oa4client", &["host.connect"], NOW, hour);
    let token = minter.mint(&token)?;
    let mut grant = GrantDraft::new(
        &Issuer::new("https://control.example.org")?,
        &HostId::new("spiffe://example.org/host/build-7")?,
        &GrantId::new("01JDGRANT")?,
        &TxnId::new("req-7781")?,
        &Subject::new("0oa4client")?,
        &WorkloadName::new("coding-agent")?,
        &okta,
        &token,
        NOW,
        Duration::from_secs(600),
    )
    .set("cid", "0oa4client");
    for last in 1..=DESTINATIONS {
        grant = grant.allow(&tcp(&format!("10.20.0.{last}"))?);
    }
    Ok(push_body(&signer.sign(&grant)?, &token))
}

fn tcp(host: &str) -> Result<Destination, Box<dyn Error>> {
    let pattern = HostPattern::from_cidr(host).or_else(|_| HostPattern::from_host(host))?;
    Ok(Destination::new(pattern, [PortRange::single(5432)?], Protocol::Tcp)?)
}

fn parts() -> Result<HostPolicyParts, Box<dyn Error>> {
    let workload = WorkloadName::new("coding-agent")?;
    let scope = BTreeSet::from([Scope::new("host.connect")?]);
    let mut allow = vec![tcp("10.20.0.0/16")?];
    for at in 0..100 {
        allow.insert(0, tcp(&format!("db-{at}.example.com"))?);
    }
    Ok(HostPolicyParts {
        host_id: HostId::new("spiffe://example.org/host/build-7")?,
        control_plane: ControlPlanePolicy {
            issuer: Issuer::new("https://control.example.org")?,
            pushers: BTreeSet::from([PeerUri::new(PUSHER)?]),
        },
        okta: OktaPolicy {
            issuer: Issuer::new("https://acme.okta.com/oauth2/aus123")?,
            audience: Audience::new("api://grantd")?,
            required_scopes: scope.clone(),
        },
        workloads: vec![WorkloadPolicy {
            name: workload.clone(),
            subjects: vec![SubjectPattern::Client(ClientId::new("0oa4client")?)],
            max_ttl: DEFAULT_MAX_TTL,
            max_live_grants: 16,
            grant_rate: GrantRate { grants: 60, per: Duration::from_secs(60) },
        }],
        ceiling: vec![CeilingEntry {
            scopes: scope,
            groups: BTreeSet::new(),
            workloads: BTreeSet::from([workload]),
            allow,
            max_ttl: None,
            approval: ApprovalRule::Optional,
        }],
        denies: Vec::new(),
    })
}
