//! A host policy is checked as a whole, and every fault is told at once.

use std::time::Duration;

use grantd_grant::ids::{Audience, Group, Issuer, PeerUri};
use grantd_grant::policy::{Deny, GrantRate};
use grantd_grant::{HostId, HostPolicy, HostPolicyParts, PeerUris, WorkloadName};

use crate::world::{PUSHER, parts, pattern, workload};

fn faults(change: impl FnOnce(&mut HostPolicyParts)) -> Vec<String> {
    let mut parts = parts();
    change(&mut parts);
    match HostPolicy::new(parts) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.into_iter().map(|fault| fault.key).collect(),
    }
}

#[test]
fn a_sound_policy_is_accepted_and_names_its_pusher() {
    assert_eq!(faults(|_| {}), Vec::<String>::new());
    let policy = HostPolicy::new(parts()).unwrap();
    let pusher = policy.check_pusher(&PeerUris::new([PUSHER.to_owned()])).unwrap();
    assert_eq!(pusher.uri().as_str(), PUSHER);
    assert!(policy.denies().len() > 3, "built-in denies are there");
}

#[test]
fn empty_never_means_all() {
    assert_eq!(faults(|p| p.control_plane.pushers.clear()), ["control_plane.peers"]);
    assert_eq!(faults(|p| p.okta.required_scopes.clear()), ["okta.required_scopes"]);
    assert_eq!(faults(|p| p.workloads[1].subjects.clear()), ["workload[1].subjects"]);
    assert_eq!(faults(|p| p.ceiling[0].scopes.clear()), ["ceiling[0].scopes"]);
    assert_eq!(faults(|p| p.ceiling[1].workloads.clear()), ["ceiling[1].workloads"]);
    assert_eq!(faults(|p| p.ceiling[1].allow.clear()), ["ceiling[1].allow"]);
    let deny = Deny { ports: Some(Vec::new()), ..Deny::host(pattern("10.0.0.1")) };
    assert_eq!(faults(|p| p.denies = vec![deny]), ["deny[0].ports"]);
}

#[test]
fn caps_are_whole_seconds_up_to_an_hour() {
    for ttl in
        [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(3601), Duration::MAX]
    {
        assert_eq!(faults(|p| p.workloads[0].max_ttl = ttl), ["workload[0].max_ttl"]);
        assert_eq!(faults(|p| p.ceiling[0].max_ttl = Some(ttl)), ["ceiling[0].max_ttl"]);
    }
    assert_eq!(faults(|p| p.workloads[0].max_live_grants = 0), ["workload[0].max_live_grants"]);
    let never = GrantRate { grants: 0, per: Duration::from_secs(1) };
    assert_eq!(faults(|p| p.workloads[0].grant_rate = never), ["workload[0].grant_rate"]);
}

#[test]
fn the_shared_default_audience_is_refused() {
    let audience = Audience::new("api://default").unwrap();
    assert_eq!(faults(|p| p.okta.audience = audience), ["okta.audience"]);
}

#[test]
fn names_are_unique_and_known() {
    assert_eq!(faults(|p| p.workloads.push(workload("coding-agent"))), ["workload[2].name"]);
    let unknown = WorkloadName::new("typo-agent").unwrap();
    assert_eq!(faults(|p| p.ceiling[0].workloads.extend([unknown])), ["ceiling[0].workloads"]);
}

#[test]
fn all_faults_are_told_in_one_run() {
    let found = faults(|p| {
        p.control_plane.pushers.clear();
        p.workloads[0].max_ttl = Duration::ZERO;
        p.ceiling[1].allow.clear();
    });
    assert_eq!(found, ["control_plane.peers", "workload[0].max_ttl", "ceiling[1].allow"]);
}

#[test]
fn identifiers_of_the_configuration_are_strict() {
    for good in ["spiffe://example.org/host/build-7", "spiffe://a/b"] {
        assert!(HostId::new(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "spiffe://",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/",
        "spiffe://example.org/../a",
        "spiffe://Example.org/a",
        "SPIFFE://example.org/a",
        "https://example.org/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a b",
        "spiffe://u@example.org/a",
        "spiffe://example.org:1/a",
    ] {
        assert!(HostId::new(bad).is_err(), "{bad}");
    }
    for bad in [
        "",
        "acme.okta.com",
        "ftp://x",
        "https://",
        "https:///x",
        "https://x?y",
        "https://x#y",
        "https://x y",
    ] {
        assert!(Issuer::new(bad).is_err(), "{bad}");
    }
    for bad in ["", "a", "://x", "spiffe://", "spiffe://é"] {
        assert!(PeerUri::new(bad).is_err(), "{bad}");
    }
    assert!(Group::new("").is_err() && Group::new("a\n").is_err() && Group::new("é é").is_ok());
}
