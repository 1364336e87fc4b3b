//! Check 12, second half: the token's claims; checks 13 and 14.

use grantd_grant::{Reason, UnixTime};
use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::world::{AUDIENCE, CLIENT, NOW, OKTA, USER};

#[test]
fn unknown_claims_of_a_token_are_permitted() {
    Attempt::new().token_claim("tenant", json!({ "a": [1.5, null, { "b": -1 }] })).admitted();
    Attempt::new().token_claim("auth_time", NOW.0 - 100).admitted();
    Attempt::new().token_claim("nbf", NOW.0).admitted();
}

#[test]
fn each_required_claim_of_a_token_is_required() {
    for claim in ["iss", "aud", "sub", "iat", "exp", "jti"] {
        Attempt::new().token_without(claim).refused(Reason::TokenClaimMissing);
        Attempt::new().token_claim(claim, Value::Null).refused(Reason::TokenClaimsMalformed);
    }
}

#[test]
fn the_issuer_is_compared_as_the_full_string() {
    for iss in [
        "https://acme.okta.com/oauth2/aus123/",
        "https://acme.okta.com/oauth2/aus1234",
        "https://acme.okta.com/oauth2/aus12",
        "https://acme.okta.com/oauth2/AUS123",
        "https://ACME.okta.com/oauth2/aus123",
        "http://acme.okta.com/oauth2/aus123",
        "https://acme.okta.com",
        "https://acme.okta.com/oauth2/default",
        "",
    ] {
        assert_ne!(iss, OKTA);
        Attempt::new().token_claim("iss", iss).refused(Reason::TokenIssuerMismatch);
    }
    for iss in [json!([OKTA]), json!(7), json!({ "iss": OKTA }), json!(true)] {
        Attempt::new().token_claim("iss", iss).refused(Reason::TokenClaimsMalformed);
    }
}

#[test]
fn a_grant_that_names_another_issuer_is_refused() {
    Attempt::new()
        .claim_at("/okta/iss", "https://acme.okta.com/oauth2/other")
        .refused(Reason::TokenIssuerMismatch);
}

#[test]
fn the_audience_is_ours_alone() {
    Attempt::new().token_claim("aud", json!([AUDIENCE])).admitted();
    for aud in [
        json!("api://default"),
        json!("api://grantd/"),
        json!("API://grantd"),
        json!("api://GRANTD"),
        json!("api://grant"),
        json!("api://grantd2"),
        json!(""),
        json!([]),
        json!([AUDIENCE, "api://x"]),
        json!(["api://x", AUDIENCE]),
        json!([AUDIENCE, AUDIENCE]),
        json!(["api://x"]),
        json!([""]),
    ] {
        Attempt::new().token_claim("aud", aud).refused(Reason::TokenAudienceMismatch);
    }
    for aud in [json!(7), json!({ "aud": AUDIENCE }), json!([7]), json!([[AUDIENCE]]), json!(true)]
    {
        Attempt::new().token_claim("aud", aud).refused(Reason::TokenClaimsMalformed);
    }
}

#[test]
fn an_expired_token_is_refused_without_leeway() {
    let ends = |at: u64| Attempt::new().token_claim("exp", at);
    ends(NOW.0).refused(Reason::TokenExpired);
    ends(NOW.0 - 1).refused(Reason::TokenExpired);
    ends(NOW.0 + 1).claim("exp", NOW.0 + 1).admitted();
}

#[test]
fn a_token_from_the_future_is_refused() {
    Attempt::new().token_claim("nbf", NOW.0 + 30).admitted();
    Attempt::new().token_claim("nbf", NOW.0 + 31).refused(Reason::TokenNotYetValid);
    Attempt::new().token_claim("iat", NOW.0 + 30).admitted();
    Attempt::new().token_claim("iat", NOW.0 + 31).refused(Reason::TokenIssuedInFuture);
    Attempt::new().token_claim("iat", NOW.0 - 86_400).admitted();
}

#[test]
fn a_clock_set_back_does_not_admit_what_was_issued_after() {
    let back = UnixTime(NOW.0 - 3600);
    Attempt::new().at(back).refused(Reason::IssuedInFuture);
    let aged = Attempt::new().claim("iat", back.0).claim("nbf", back.0).claim("exp", back.0 + 600);
    aged.at(back).refused(Reason::TokenIssuedInFuture);
}

#[test]
fn a_clock_set_forward_refuses_rather_than_prolongs() {
    Attempt::new().at(UnixTime(NOW.0 + 3600)).refused(Reason::IssuedTooLongAgo);
    Attempt::new().at(UnixTime(u64::MAX)).refused(Reason::KeyExpired);
}

#[test]
fn times_of_a_token_are_unsigned_whole_seconds() {
    for claim in ["exp", "iat", "nbf", "auth_time"] {
        for value in [
            json!(NOW.0.to_string()),
            json!(1e308),
            json!(-1),
            json!(-1e308),
            json!(NOW.0 as f64 + 0.5),
            json!(u64::MAX),
            json!([NOW.0]),
            json!({}),
            json!(true),
            json!("never"),
        ] {
            Attempt::new().token_claim(claim, value).refused(Reason::TokenClaimsMalformed);
        }
    }
    Attempt::new()
        .token_claim("iat", NOW.0 + 10)
        .token_claim("exp", NOW.0 + 10)
        .refused(Reason::TokenClaimsMalformed);
}

#[test]
fn duplicate_claims_of_a_token_are_refused_at_every_depth() {
    for (from, to) in [
        (r#""exp":"#, r#""exp":9999999999,"exp":"#),
        (r#""aud":"#, r#""aud":"api://x","aud":"#),
        (r#""aud":"#, r#""\u0061ud":"api://x","aud":"#),
        (r#""act":{"#, r#""act":{"sub":"x","#),
        (r#""uid":"#, r#""note":1,"note":1,"uid":"#),
        (r#""uid":"#, r#""note":{"a":{"b":1,"b":2}},"uid":"#),
    ] {
        Attempt::new().edit_token_claims(from, to).refused(Reason::TokenClaimsMalformed);
    }
}

#[test]
fn claims_of_a_token_that_are_not_one_object_are_refused() {
    for text in ["null", "[]", "7", "{", "{}{}", "\u{feff}{}"] {
        Attempt::new().raw_token_claims(text.as_bytes()).refused(Reason::TokenClaimsMalformed);
    }
    Attempt::new().raw_token_claims(b"{}").refused(Reason::TokenClaimMissing);
    Attempt::new().raw_token_claims(b"{\"sub\":\"\xff\"}").refused(Reason::TokenClaimsMalformed);
}

#[test]
fn scopes_come_as_an_array_or_as_a_string() {
    let scoped =
        |claim: &str, value: Value| Attempt::new().token_without("scp").token_claim(claim, value);
    scoped("scp", json!(["openid", "host.connect"])).admitted();
    scoped("scope", json!("openid host.connect")).admitted();
    scoped("scope", json!("host.connect")).admitted();
}

#[test]
fn a_token_without_the_required_scope_is_refused() {
    for scopes in [json!([]), json!(["openid"]), json!(["HOST.CONNECT"]), json!(["host.connect2"])]
    {
        Attempt::new().token_claim("scp", scopes).refused(Reason::TokenScopeMissing);
    }
    Attempt::new().token_without("scp").refused(Reason::TokenScopeMissing);
    let none = Attempt::new().token_without("scp").token_claim("scope", "openid host.connect2");
    none.refused(Reason::TokenScopeMissing);
}

#[test]
fn scopes_of_a_wrong_form_are_refused() {
    for scp in
        [json!("host.connect"), json!([["host.connect"]]), json!([7]), json!(["a b"]), json!([""])]
    {
        Attempt::new().token_claim("scp", scp).refused(Reason::TokenClaimsMalformed);
    }
    for scope in [
        json!(["host.connect"]),
        json!(""),
        json!("a  host.connect"),
        json!(" host.connect"),
        json!("host.connect\n"),
        json!("a\u{a0}host.connect"),
    ] {
        let attempt = Attempt::new().token_without("scp").token_claim("scope", scope);
        attempt.refused(Reason::TokenClaimsMalformed);
    }
    // Which of the two counts would be a guess.
    Attempt::new().token_claim("scope", "host.connect").refused(Reason::TokenClaimsMalformed);
}

#[test]
fn groups_of_a_wrong_form_are_refused() {
    Attempt::new().token_claim("groups", json!(["SRE agents", "Équipe"])).admitted();
    Attempt::new().token_claim("groups", json!([])).admitted();
    for groups in [json!("sre"), json!([7]), json!([""]), json!({ "sre": true }), json!(["a\u{0}"])]
    {
        Attempt::new().token_claim("groups", groups).refused(Reason::TokenClaimsMalformed);
    }
}

#[test]
fn the_subject_is_the_tokens_uid() {
    assert_eq!(Attempt::new().admitted().sub().as_str(), USER);
    Attempt::new().claim("sub", "00uother").refused(Reason::SubjectMismatch);
    Attempt::new().claim("sub", "00U1AB").refused(Reason::SubjectMismatch);
    // The login is not the identity: it can be given to another person.
    Attempt::new().claim("sub", "jo@example.org").refused(Reason::SubjectMismatch);
    Attempt::new().token_claim("uid", "").refused(Reason::TokenClaimsMalformed);
    Attempt::new().token_claim("uid", json!([USER])).refused(Reason::TokenClaimsMalformed);
}

#[test]
fn the_subject_is_the_tokens_sub_where_it_has_no_uid() {
    let machine = || Attempt::new().token_without("uid").token_claim("sub", CLIENT);
    machine().claim("sub", CLIENT).admitted();
    machine().refused(Reason::SubjectMismatch);
}

#[test]
fn the_client_agrees_with_the_token() {
    Attempt::new().claim("cid", "0oaother").refused(Reason::ClientMismatch);
    Attempt::new().without("cid").refused(Reason::ClientMismatch);
    Attempt::new().token_without("cid").refused(Reason::ClientMismatch);
    Attempt::new().token_claim("cid", json!([CLIENT])).refused(Reason::TokenClaimsMalformed);
    Attempt::new().token_claim("cid", 7).refused(Reason::TokenClaimsMalformed);
}

#[test]
fn the_actor_agrees_with_the_token() {
    Attempt::new().claim_at("/act/sub", "wlpother").refused(Reason::ActorMismatch);
    Attempt::new().without("act").refused(Reason::ActorMismatch);
    Attempt::new().token_without("act").refused(Reason::ActorMismatch);
    Attempt::new().token_claim("act", json!({ "sub": "wlpother" })).refused(Reason::ActorMismatch);
    for act in [json!("wlp7agent"), json!(["wlp7agent"]), json!({ "sub": 7 }), json!(null)] {
        Attempt::new().token_claim("act", act).refused(Reason::TokenClaimsMalformed);
    }
    let chain = json!({ "sub": "wlp7agent", "act": { "sub": "earlier" } });
    Attempt::new().token_claim("act", chain).admitted();
    let inner = json!({ "sub": "outer", "act": { "sub": "wlp7agent" } });
    Attempt::new().token_claim("act", inner).refused(Reason::ActorMismatch);
}

#[test]
fn a_grant_does_not_outlive_its_token() {
    Attempt::new().token_claim("exp", NOW.0 + 600).admitted();
    Attempt::new().token_claim("exp", NOW.0 + 599).refused(Reason::OutlivesToken);
}
