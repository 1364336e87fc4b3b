//! The checks come in the written order: an attempt with two faults is refused for the earlier one.

use grantd_grant::{Reason, ReplayAnswer};
use serde_json::json;

use crate::attempt::{Attempt, tcp_to};
use crate::world::{NOW, WORLD};

type Fault = (Reason, fn(Attempt) -> Attempt);

/// One fault per check, in order. Each must leave the faults of all later checks in place.
fn faults() -> Vec<Fault> {
    vec![
        (Reason::PeerNotAllowed, |mut a| {
            a.peer.clear();
            a
        }),
        (Reason::PushMalformed, |a| a.raw_body("{}")),
        (Reason::JwsMalformed, |a| {
            let lax = format!("{}=", a.grant(&a.token()));
            a.raw_grant(lax)
        }),
        (Reason::HeaderForbidden, |a| a.header("crit", json!(["exp"]))),
        (Reason::TypWrong, |a| a.header("typ", "JWT")),
        (Reason::AlgMismatch, |a| a.header("alg", "ES256")),
        (Reason::SignatureInvalid, |a| a.forged_by(&WORLD.foreign)),
        (Reason::ClaimsMalformed, |a| a.claim("note", 1)),
        (Reason::IssuerMismatch, |a| a.claim("iss", "https://evil.example")),
        (Reason::AudienceMismatch, |a| a.claim("aud", "spiffe://example.org/host/x")),
        (Reason::VersionUnsupported, |a| a.claim("ver", 2)),
        (Reason::NotYetValid, |a| a.claim("nbf", NOW.0 + 31)),
        (Reason::BelowFloor, |mut a| {
            a.replay = ReplayAnswer::BelowFloor;
            a
        }),
        (Reason::TokenHashMismatch, |a| a.bound_to_other_token()),
        (Reason::TokenScopeMissing, |a| a.token_claim("scp", json!([]))),
        (Reason::SubjectMismatch, |a| a.claim("sub", "00uother")),
        (Reason::ClientMismatch, |a| a.claim("cid", "0oaother")),
        (Reason::ActorMismatch, |a| a.claim_at("/act/sub", "wlpother")),
        (Reason::OutlivesToken, |a| a.token_claim("exp", NOW.0 + 599)),
        (Reason::DestinationDenied, |a| {
            let denied = json!([{ "host": "192.0.2.66", "ports": [22] }]);
            a.claim("authorization_details", tcp_to(denied))
        }),
    ]
}

#[test]
fn each_fault_alone_is_refused_for_itself() {
    Attempt::new().admitted();
    for (reason, spoil) in faults() {
        spoil(Attempt::new()).refused(reason);
    }
}

#[test]
fn of_two_faults_in_a_row_the_earlier_check_refuses() {
    for pair in faults().windows(2) {
        let [(first, spoil_first), (second, spoil_second)] = pair else { unreachable!() };
        assert!(first.check() <= second.check(), "{first} is listed before {second}");
        spoil_first(spoil_second(Attempt::new())).refused(*first);
    }
}

#[test]
fn of_all_later_faults_together_the_earliest_check_refuses() {
    let faults = faults();
    for (at, (reason, _)) in faults.iter().enumerate() {
        // Later faults are put in first: the grant's text is frozen by the fault of check 2.
        let attempt = faults[at..].iter().rev().fold(Attempt::new(), |a, (_, spoil)| spoil(a));
        attempt.refused(*reason);
    }
}

#[test]
fn every_check_of_this_crate_has_a_fault_in_the_list() {
    let listed: Vec<u8> = faults().iter().map(|(reason, _)| reason.check()).collect();
    let all: Vec<u8> = (1..=15).collect();
    let mut seen = listed.clone();
    seen.dedup();
    assert_eq!(seen, all);
}

#[test]
fn reason_codes_are_unique_and_snake_case() {
    let mut codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert!(codes.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    codes.sort_unstable();
    let before = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), before);
    for reason in Reason::ALL {
        assert!(reason.check() <= 17);
        assert!((400..=599).contains(&reason.http_status()), "{reason} is no success");
    }
}
