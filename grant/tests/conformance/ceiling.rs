//! Check 15: denies, subjects, ceiling. The whole grant is refused on any excess.

use std::collections::BTreeSet;
use std::time::Duration;

use grantd_grant::ids::{ActorId, ClientId, Group};
use grantd_grant::policy::{ApprovalRule, Deny, SubjectPattern};
use grantd_grant::{HostPolicy, HostPolicyParts, PortRange, Protocol, Reason, Subject};
use serde_json::{Value, json};

use crate::attempt::{Attempt, tcp_to};
use crate::world::{ACTOR, CLIENT, NOW, USER, name, parts, pattern, scopes};

fn to(endpoints: Value) -> Attempt {
    Attempt::new().claim("authorization_details", tcp_to(endpoints))
}

fn one(key: &str, host: &str, port: u16) -> Attempt {
    to(json!([{ key: host, "ports": [port] }]))
}

/// The production database: needs `net.prod`, at most 10 minutes, and an approval.
fn production() -> Attempt {
    one("host", "10.99.0.5", 5432)
        .token_claim("scp", json!(["host.connect", "net.prod"]))
        .claim("approval", json!({ "by": "00u9zz", "at": NOW.0 - 30, "id": "apr-31" }))
}

fn policy(change: impl FnOnce(&mut HostPolicyParts)) -> HostPolicy {
    let mut parts = parts();
    change(&mut parts);
    HostPolicy::new(parts).unwrap()
}

#[test]
fn what_the_ceiling_covers_is_admitted() {
    one("host", "db-1.internal", 5432).admitted();
    one("host", "*.eu.pkg.example.com", 443).admitted();
    one("cidr", "10.20.64.0/18", 8100).admitted();
    production().admitted();
}

#[test]
fn a_destination_outside_the_ceiling_is_refused() {
    for (key, host, port) in [
        ("host", "db-1.internal", 5433),
        ("host", "db-2.internal", 5432),
        ("host", "a.db-1.internal", 5432),
        ("host", "pkg.example.com", 443),
        ("host", "*.example.com", 443),
        ("host", "10.21.0.1", 8000),
        ("cidr", "10.20.0.0/15", 8000),
        ("cidr", "10.0.0.0/8", 8000),
        ("host", "10.20.0.1", 7999),
        ("host", "2001:db8::1", 443),
    ] {
        one(key, host, port).refused(Reason::DestinationOverCeiling);
    }
}

#[test]
fn a_wildcard_in_the_grant_needs_one_at_least_as_wide_in_the_ceiling() {
    one("host", "*.pkg.example.com", 443).admitted();
    one("host", "*.a.b.pkg.example.com", 443).admitted();
    one("host", "*.kg.example.com", 443).refused(Reason::DestinationOverCeiling);
    one("host", "*.db-1.internal", 5432).refused(Reason::DestinationOverCeiling);
}

#[test]
fn a_port_range_partly_over_the_ceiling_is_refused_whole() {
    let ranged = |from: u16, to_port: u16| {
        to(json!([{ "cidr": "10.20.0.0/24", "ports": [{ "from": from, "to": to_port }] }]))
    };
    ranged(8000, 8100).admitted();
    ranged(8000, 8101).refused(Reason::DestinationOverCeiling);
    ranged(7999, 8100).refused(Reason::DestinationOverCeiling);
    let scattered = json!([{ "host": "10.20.0.1", "ports": [8000, 9000] }]);
    to(scattered).refused(Reason::DestinationOverCeiling);
}

#[test]
fn a_protocol_over_the_ceiling_is_refused() {
    let udp = |host: &str, port: u16| {
        let mut details = tcp_to(json!([{ "host": host, "ports": [port] }]));
        details[0]["protocol"] = json!("udp");
        Attempt::new().claim("authorization_details", details)
    };
    udp("2001:db8::1", 443).admitted();
    udp("db-1.internal", 5432).refused(Reason::DestinationOverCeiling);
}

#[test]
fn one_destination_too_many_refuses_the_whole_grant() {
    let attempt = to(json!([
        { "host": "db-1.internal", "ports": [5432] },
        { "host": "203.0.113.7", "ports": [22] },
    ]));
    let refusal = attempt.run().unwrap_err();
    assert_eq!(refusal.reason, Reason::DestinationOverCeiling);
    assert!(refusal.detail.contains("203.0.113.7:22"), "names the excess: {refusal}");
}

#[test]
fn entries_are_not_added_up_to_cover_one_destination() {
    let attempt = || to(json!([{ "host": "10.20.0.1", "ports": [{ "from": 8100, "to": 8101 }] }]));
    let split = policy(|parts| {
        let more = crate::world::tcp("10.20.0.0/16", 8101, 8200);
        parts.ceiling[0].allow.push(more);
    });
    attempt().with_policy(split).refused(Reason::DestinationOverCeiling);
}

#[test]
fn a_workload_outside_the_entry_is_refused() {
    Attempt::new().claim("workload", "other-agent").refused(Reason::WorkloadOverCeiling);
}

#[test]
fn a_workload_that_the_host_does_not_have_is_refused() {
    Attempt::new().claim("workload", "third-agent").refused(Reason::WorkloadUnknown);
}

#[test]
fn a_token_without_the_entrys_scopes_is_refused() {
    production().token_claim("scp", json!(["host.connect"])).refused(Reason::ScopeOverCeiling);
    let both = policy(|parts| parts.ceiling[1].scopes = scopes(&["net.prod", "net.extra"]));
    production().with_policy(both).refused(Reason::ScopeOverCeiling);
}

#[test]
fn a_token_without_the_entrys_groups_is_refused() {
    let grouped = || {
        policy(|parts| {
            parts.ceiling[0].groups = BTreeSet::from([Group::new("sre agents").unwrap()]);
        })
    };
    let with = |groups: Value| Attempt::new().token_claim("groups", groups).with_policy(grouped());
    with(json!(["dev", "sre agents"])).admitted();
    with(json!(["SRE agents"])).refused(Reason::ScopeOverCeiling);
    with(json!(["sre\u{a0}agents"])).refused(Reason::ScopeOverCeiling);
    with(json!([])).refused(Reason::ScopeOverCeiling);
    Attempt::new().with_policy(grouped()).refused(Reason::ScopeOverCeiling);
    let two = || {
        let groups = ["sre agents", "on call"].map(|text| Group::new(text).unwrap());
        policy(|parts| parts.ceiling[0].groups = BTreeSet::from(groups))
    };
    let with = |groups: Value| Attempt::new().token_claim("groups", groups).with_policy(two());
    with(json!(["on call", "sre agents"])).admitted();
    with(json!(["sre agents"])).refused(Reason::ScopeOverCeiling);
    let only_groups = policy(|parts| {
        parts.ceiling[0].scopes.clear();
        parts.ceiling[0].groups = BTreeSet::from([Group::new("sre agents").unwrap()]);
    });
    Attempt::new().with_policy(only_groups).refused(Reason::ScopeOverCeiling);
}

#[test]
fn a_life_over_the_entrys_cap_is_refused() {
    production().claim("exp", NOW.0 + 600).admitted();
    production().claim("exp", NOW.0 + 601).refused(Reason::TtlOverCeiling);
    production().claim("iat", NOW.0 - 1).claim("exp", NOW.0 + 600).refused(Reason::TtlOverCeiling);
}

#[test]
fn a_demanded_approval_that_is_missing_refuses() {
    production().without("approval").refused(Reason::ApprovalMissing);
    let optional = policy(|parts| parts.ceiling[1].approval = ApprovalRule::Optional);
    production().without("approval").with_policy(optional).admitted();
}

#[test]
fn nobody_approves_for_themselves() {
    for by in [USER, "00U1AB", CLIENT, ACTOR, "jo@example.org", "JO@Example.org"] {
        let approval = json!({ "by": by, "at": NOW.0, "id": "apr-31" });
        production().claim("approval", approval).refused(Reason::ApprovalBySubject);
    }
}

#[test]
fn an_approval_precedes_what_it_approves() {
    let at = |at: u64| {
        production().claim("approval", json!({ "by": "00u9zz", "at": at, "id": "apr-31" }))
    };
    at(NOW.0).admitted();
    at(NOW.0 + 30).admitted();
    at(NOW.0 + 31).refused(Reason::ApprovalTimeInvalid);
}

#[test]
fn an_entry_without_approval_serves_where_another_demands_one() {
    let second = policy(|parts| {
        let mut entry = parts.ceiling[1].clone();
        entry.approval = ApprovalRule::Optional;
        parts.ceiling.push(entry);
    });
    production().without("approval").with_policy(second).admitted();
}

#[test]
fn a_subject_that_the_workload_does_not_have_is_refused() {
    let with = |subjects: Vec<SubjectPattern>| {
        Attempt::new().with_policy(policy(|parts| parts.workloads[0].subjects = subjects))
    };
    let client = |id: &str| SubjectPattern::Client(ClientId::new(id).unwrap());
    let user = |id: &str| SubjectPattern::User(Subject::new(id).unwrap());
    let actor = |id: &str| SubjectPattern::Actor(ActorId::new(id).unwrap());
    for good in [client(CLIENT), user(USER), actor(ACTOR)] {
        with(vec![good.clone()]).admitted();
        with(vec![client("0oaother"), good]).admitted();
    }
    // An id of one kind is not one of another kind.
    for bad in [client(USER), client(ACTOR), user(CLIENT), user("jo@example.org"), actor(USER)] {
        with(vec![bad]).refused(Reason::SubjectNotAllowed);
    }
}

#[test]
fn what_the_owner_denies_is_refused_though_the_ceiling_covers_it() {
    one("host", "192.0.2.65", 22).admitted();
    one("host", "192.0.2.66", 22).refused(Reason::DestinationDenied);
}

#[test]
fn a_range_that_contains_a_denied_address_is_refused() {
    one("cidr", "192.0.2.0/26", 22).admitted();
    one("cidr", "192.0.2.0/24", 22).refused(Reason::DestinationDenied);
    one("cidr", "192.0.2.64/29", 22).refused(Reason::DestinationDenied);
    one("cidr", "192.0.2.66/32", 22).refused(Reason::DestinationDenied);
}

#[test]
fn metadata_services_are_denied_without_configuration() {
    let open = || {
        policy(|parts| {
            parts.denies.clear();
            for net in ["fd00:ec2::/32", "64:ff9b::/96", "2002::/16", "2000::/3"] {
                let all = crate::world::tcp(net, 1, 65535);
                parts.ceiling[0].allow.push(all);
            }
        })
    };
    one("host", "169.254.169.254", 80).with_policy(open()).refused(Reason::DestinationForbidden);
    one("host", "fd00:ec2::253", 80).with_policy(open()).admitted();
    for (key, host) in [
        ("host", "fd00:ec2::254"),
        ("cidr", "fd00:ec2::/64"),
        ("cidr", "fd00:ec2::254/128"),
        // The same service through a translator or tunnel.
        ("host", "64:ff9b::a9fe:a9fe"),
        ("cidr", "64:ff9b::/96"),
        ("host", "2002:a9fe:a9fe::1"),
        ("cidr", "2000::/3"),
    ] {
        one(key, host, 80).with_policy(open()).refused(Reason::DestinationDenied);
    }
    one("host", "64:ff9b::a00:1", 80).with_policy(open()).admitted();
}

#[test]
fn a_deny_of_some_ports_or_one_protocol_leaves_the_others() {
    let deny = Deny {
        host: pattern("10.20.0.0/24"),
        ports: Some(vec![PortRange::single(8005).unwrap()]),
        protocol: Some(Protocol::Tcp),
    };
    let denied = || policy(|parts| parts.denies.push(deny.clone()));
    one("host", "10.20.0.1", 8004).with_policy(denied()).admitted();
    one("host", "10.20.0.1", 8005).with_policy(denied()).refused(Reason::DestinationDenied);
    let across = json!([{ "host": "10.20.0.1", "ports": [{ "from": 8000, "to": 8010 }] }]);
    to(across).with_policy(denied()).refused(Reason::DestinationDenied);
    let udp = Deny { protocol: Some(Protocol::Udp), ..deny.clone() };
    let other = policy(|parts| parts.denies.push(udp));
    one("host", "10.20.0.1", 8005).with_policy(other).admitted();
}

#[test]
fn a_deny_of_names_reaches_what_a_wildcard_would_cover() {
    let denied = |host: &str| policy(|parts| parts.denies.push(Deny::host(pattern(host))));
    let secret = || denied("secret.pkg.example.com");
    one("host", "a.pkg.example.com", 443).with_policy(secret()).admitted();
    one("host", "secret.pkg.example.com", 443)
        .with_policy(secret())
        .refused(Reason::DestinationDenied);
    one("host", "*.pkg.example.com", 443).with_policy(secret()).refused(Reason::DestinationDenied);
    let below = || denied("*.eu.pkg.example.com");
    one("host", "a.eu.pkg.example.com", 443)
        .with_policy(below())
        .refused(Reason::DestinationDenied);
    one("host", "*.pkg.example.com", 443).with_policy(below()).refused(Reason::DestinationDenied);
    one("host", "eu.pkg.example.com", 443).with_policy(below()).admitted();
}

#[test]
fn an_empty_ceiling_admits_nothing() {
    let none = policy(|parts| parts.ceiling.clear());
    Attempt::new().with_policy(none).refused(Reason::DestinationOverCeiling);
    let nobody = policy(|parts| {
        parts.workloads.clear();
        parts.ceiling.clear();
    });
    Attempt::new().with_policy(nobody).refused(Reason::WorkloadUnknown);
}

#[test]
fn the_widest_cap_in_the_configuration_is_an_hour() {
    let hour = policy(|parts| parts.workloads[0].max_ttl = Duration::from_secs(3600));
    assert_eq!(hour.workload(&name("coding-agent")).unwrap().max_ttl.as_secs(), 3600);
    let long = || Attempt::new().claim("exp", NOW.0 + 3540);
    long().with_policy(hour).admitted();
}
