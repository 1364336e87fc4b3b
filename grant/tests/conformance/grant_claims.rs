//! Checks 7 to 9: strict claims, addressee, time.

use grantd_grant::{HostPolicy, Reason, UnixTime};
use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::world::{CONTROL, HOST, NOW, parts};

const REQUIRED: [&str; 12] = [
    "ver",
    "iss",
    "aud",
    "jti",
    "txn",
    "iat",
    "nbf",
    "exp",
    "sub",
    "okta",
    "workload",
    "authorization_details",
];

fn secs(offset: i64) -> u64 {
    NOW.0.checked_add_signed(offset).unwrap()
}

#[test]
fn optional_claims_may_be_present_or_absent() {
    let full = Attempt::new()
        .claim("boot_id", "3f1c2b7e-0000-4a4b-8c8d-1234567890ab")
        .claim("invocation_id", "0123456789abcdef0123456789abcdef")
        .claim("replaces", "01JDOLDER")
        .claim("approval", json!({ "by": "00u9zz", "at": NOW.0, "id": "apr-31" }))
        .admitted();
    assert_eq!(full.replaces().unwrap().as_str(), "01JDOLDER");
    assert_eq!(full.approval().unwrap().by.as_str(), "00u9zz");
    assert!(full.boot_id().is_some() && full.invocation_id().is_some());
    let bare = Attempt::new().without("act").token_without("act").admitted();
    assert!(bare.act().is_none() && bare.replaces().is_none() && bare.approval().is_none());
}

#[test]
fn each_required_claim_is_required() {
    for claim in REQUIRED {
        Attempt::new().without(claim).refused(Reason::ClaimsMalformed);
    }
}

#[test]
fn null_is_not_the_same_as_absent() {
    let optional = ["cid", "act", "boot_id", "invocation_id", "replaces", "approval"];
    for claim in REQUIRED.into_iter().chain(optional) {
        Attempt::new().claim(claim, Value::Null).refused(Reason::ClaimsMalformed);
    }
}

#[test]
fn unknown_fields_are_refused_at_every_depth() {
    Attempt::new().claim("scope", "all").refused(Reason::ClaimsMalformed);
    Attempt::new().claim("Sub", "x").refused(Reason::ClaimsMalformed);
    Attempt::new().claim("sub\u{200b}", "x").refused(Reason::ClaimsMalformed);
    for (from, to) in [
        (r#""ath":"#, r#""x":1,"ath":"#),
        (r#""sub_profile":"#, r#""x":1,"sub_profile":"#),
        (r#""protocol":"#, r#""locations":[],"protocol":"#),
        (r#""ports":"#, r#""x":1,"ports":"#),
        (r#""from":"#, r#""x":1,"from":"#),
    ] {
        Attempt::new().edit_claims(from, to).refused(Reason::ClaimsMalformed);
    }
    let approval = json!({ "by": "00u9zz", "at": NOW.0, "id": "apr-31", "x": 1 });
    Attempt::new().claim("approval", approval).refused(Reason::ClaimsMalformed);
}

#[test]
fn duplicate_keys_are_refused_at_every_depth() {
    for (from, to) in [
        (r#""exp":"#, r#""exp":1,"exp":"#),
        (r#""exp":"#, r#""\u0065xp":1,"exp":"#),
        (r#""workload":"#, r#""workload":"coding-agent","workload":"#),
        (r#""ath":"#, r#""ath":"","ath":"#),
        (r#""sub_profile":"#, r#""sub_profile":"x","sub_profile":"#),
        (r#""protocol":"#, r#""protocol":"udp","protocol":"#),
        (r#""ports":"#, r#""ports":[1],"ports":"#),
        (r#""from":"#, r#""from":1,"from":"#),
    ] {
        Attempt::new().edit_claims(from, to).refused(Reason::ClaimsMalformed);
    }
}

#[test]
fn claims_that_are_not_one_object_are_refused() {
    for text in ["null", "[]", "1", "\"x\"", "{}", "{", "{}{}", "\u{feff}{}", "nul", "{\"a\":}"] {
        Attempt::new().raw_claims(text.as_bytes()).refused(Reason::ClaimsMalformed);
    }
    Attempt::new().raw_claims(b"{\"sub\":\"\xff\"}").refused(Reason::ClaimsMalformed);
    Attempt::new().raw_claims("[".repeat(9000).as_bytes()).refused(Reason::ClaimsMalformed);
}

#[test]
fn an_array_does_not_stand_for_an_object() {
    let ath = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
    Attempt::new().claim("okta", json!(["https://x", ath])).refused(Reason::ClaimsMalformed);
    Attempt::new().claim("act", json!(["a", "b"])).refused(Reason::ClaimsMalformed);
    Attempt::new().claim("approval", json!(["a", 1, "b"])).refused(Reason::ClaimsMalformed);
    Attempt::new().claim("authorization_details", json!({})).refused(Reason::ClaimsMalformed);
}

#[test]
fn times_are_unsigned_whole_seconds() {
    for claim in ["iat", "nbf", "exp"] {
        for value in [
            json!(NOW.0.to_string()),
            json!(NOW.0 as f64 + 0.5),
            json!(1e308),
            json!(-1),
            json!(-1e308),
            json!(u64::MAX),
            json!(253_402_300_800u64),
            json!([NOW.0]),
            json!({}),
            json!(true),
        ] {
            Attempt::new().claim(claim, value).refused(Reason::ClaimsMalformed);
        }
    }
    let exp = format!("\"exp\":{}", NOW.0 + 600);
    for other in [".0", "e0", "E+0"] {
        Attempt::new().edit_claims(&exp, &format!("{exp}{other}")).refused(Reason::ClaimsMalformed);
    }
    for other in ["18446744073709551616", "1e400", "0x10", "+1", "01", "-0", "NaN", "Infinity"] {
        let to = format!("\"exp\":{other}");
        Attempt::new().edit_claims(&exp, &to).refused(Reason::ClaimsMalformed);
    }
}

#[test]
fn identifiers_are_bounded_ascii_strings() {
    for claim in ["jti", "txn", "sub", "cid", "workload", "boot_id", "invocation_id", "replaces"] {
        for value in [
            json!(""),
            json!(" "),
            json!("a b"),
            json!("a\u{200b}b"),
            json!("a\u{0}b"),
            json!("аdmin"),
            json!("a".repeat(257)),
            json!(7),
            json!(["a"]),
            json!({ "a": 1 }),
            json!(true),
        ] {
            Attempt::new().claim(claim, value).refused(Reason::ClaimsMalformed);
        }
    }
    for jti in ["../../etc/passwd", "a/b", ".hidden", "a%2fb", "a?b"] {
        Attempt::new().claim("jti", jti).refused(Reason::ClaimsMalformed);
    }
    for name in ["Coding-Agent", "../x", ".x", "-x", "a/b"] {
        Attempt::new().claim("workload", name).refused(Reason::ClaimsMalformed);
    }
    Attempt::new().claim("replaces", "01JDGRANT").refused(Reason::ClaimsMalformed);
}

#[test]
fn the_token_hash_is_exactly_a_sha_256() {
    for ath in [json!(""), json!("AAAA"), json!("A".repeat(44)), json!(1), json!("=".repeat(43))] {
        Attempt::new()
            .bound_to_other_token()
            .claim_at("/okta/ath", ath)
            .refused(Reason::ClaimsMalformed);
    }
    // The last character of 43 carries 2 bits that must be zero.
    let lax = format!("{}B", "A".repeat(42));
    Attempt::new()
        .bound_to_other_token()
        .claim_at("/okta/ath", lax)
        .refused(Reason::ClaimsMalformed);
}

#[test]
fn issuer_audience_and_version_are_compared_exactly() {
    for iss in [
        "https://control.example.org/",
        "https://CONTROL.example.org",
        "https://control.example.org.evil.example",
        "https://control.example.or",
        "http://control.example.org",
        "",
    ] {
        assert_ne!(iss, CONTROL);
        Attempt::new().claim("iss", iss).refused(Reason::IssuerMismatch);
    }
    for aud in [
        "spiffe://example.org/host/build-8",
        "spiffe://example.org/host/build-70",
        "spiffe://example.org/host/build-7/",
        "spiffe://example.org/host/Build-7",
        "",
    ] {
        assert_ne!(aud, HOST);
        Attempt::new().claim("aud", aud).refused(Reason::AudienceMismatch);
    }
    for value in [json!([HOST]), json!(7), json!({ "a": HOST })] {
        Attempt::new().claim("aud", value.clone()).refused(Reason::ClaimsMalformed);
        Attempt::new().claim("iss", value).refused(Reason::ClaimsMalformed);
    }
    Attempt::new().claim("ver", 2).refused(Reason::VersionUnsupported);
    Attempt::new().claim("ver", 0).refused(Reason::VersionUnsupported);
    Attempt::new().claim("ver", "1").refused(Reason::ClaimsMalformed);
    Attempt::new().claim("ver", 1.0).refused(Reason::ClaimsMalformed);
}

#[test]
fn the_issue_may_be_thirty_seconds_ahead_and_five_minutes_old() {
    let issued = |offset: i64| Attempt::new().claim("iat", secs(offset)).claim("exp", secs(500));
    issued(30).admitted();
    issued(31).refused(Reason::IssuedInFuture);
    issued(-300).admitted();
    issued(-301).refused(Reason::IssuedTooLongAgo);
    issued(0).claim("nbf", secs(30)).admitted();
    issued(0).claim("nbf", secs(31)).refused(Reason::NotYetValid);
    issued(0).claim("nbf", 0).admitted();
    issued(0).claim("iat", 0).refused(Reason::IssuedTooLongAgo);
    issued(0).claim("iat", UnixTime::MAX.0).refused(Reason::IssuedInFuture);
}

#[test]
fn an_end_has_no_leeway() {
    let ends = |offset: i64| Attempt::new().claim("iat", secs(-60)).claim("exp", secs(offset));
    ends(1).admitted();
    ends(0).refused(Reason::Expired);
    ends(-1).refused(Reason::Expired);
    Attempt::new().claim("exp", 0).refused(Reason::Expired);
}

#[test]
fn a_life_is_positive_and_within_the_workloads_cap() {
    let lives = |from: i64, to: i64| Attempt::new().claim("iat", secs(from)).claim("exp", secs(to));
    lives(0, 900).admitted();
    lives(0, 901).refused(Reason::TtlTooLong);
    lives(-100, 800).admitted();
    lives(-100, 801).refused(Reason::TtlTooLong);
    lives(10, 10).refused(Reason::TtlInvalid);
    lives(20, 10).refused(Reason::TtlInvalid);
    Attempt::new().claim("exp", UnixTime::MAX.0).refused(Reason::TtlTooLong);
}

#[test]
fn a_shorter_cap_of_the_workload_is_the_one_that_counts() {
    let mut parts = parts();
    parts.workloads[0].max_ttl = std::time::Duration::from_secs(60);
    let policy = || HostPolicy::new(parts.clone()).unwrap();
    Attempt::new().claim("exp", secs(60)).with_policy(policy()).admitted();
    Attempt::new().claim("exp", secs(61)).with_policy(policy()).refused(Reason::TtlTooLong);
}

#[test]
fn a_refused_grant_says_what_it_was_once_its_signature_is_known() {
    let refusal = Attempt::new().claim("aud", "x").run().unwrap_err();
    let about = refusal.about.expect("authenticated");
    assert_eq!(about.jti.unwrap().as_str(), "01JDGRANT");
    assert_eq!(about.workload.unwrap().as_str(), "coding-agent");
    assert_eq!(about.kid.unwrap().as_str(), "cp-ed");
    assert_eq!(about.destinations.len(), 1);
    let forged = Attempt::new().forged_by(&crate::world::WORLD.foreign).run().unwrap_err();
    assert_eq!(forged.about, None, "nothing of an unauthenticated message is believed");
}
