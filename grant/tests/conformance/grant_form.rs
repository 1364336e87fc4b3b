//! Checks 1 to 6: peer, size, form, header, type, key, signature.

use grantd_grant::Reason;
use grantd_grant::mint::{base64url, push_body};
use serde_json::json;

use crate::attempt::Attempt;
use crate::world::{NOW, PUSHER, WORLD};

#[test]
fn a_well_formed_push_is_admitted_with_either_algorithm() {
    let grant = Attempt::new().admitted();
    assert_eq!(grant.id().as_str(), "01JDGRANT");
    assert_eq!(grant.control_plane_kid().as_str(), "cp-ed");
    assert_eq!(grant.okta_kid().as_str(), "okta-1");
    assert_eq!(
        Attempt::new().signed_by(&WORLD.es256).admitted().control_plane_kid().as_str(),
        "cp-es"
    );
}

#[test]
fn a_peer_without_an_allowed_uri_may_not_push() {
    let with = |peer: &[&str]| {
        let mut attempt = Attempt::new();
        attempt.peer = peer.iter().map(|uri| (*uri).to_owned()).collect();
        attempt.refused(Reason::PeerNotAllowed);
    };
    with(&[]);
    with(&["spiffe://example.org/host/build-7"]);
    with(&["spiffe://example.org/control-plane/"]);
    with(&["SPIFFE://example.org/control-plane"]);
    with(&["spiffe://example.org/control-plan"]);
    with(&[""]);
}

#[test]
fn a_certificate_with_a_second_uri_may_not_push() {
    for peer in
        [[PUSHER, "spiffe://evil.example/x"], ["spiffe://evil.example/x", PUSHER], [PUSHER; 2]]
    {
        let mut attempt = Attempt::new();
        attempt.peer = peer.map(str::to_owned).to_vec();
        attempt.refused(Reason::PeerNotAllowed);
    }
}

#[test]
fn a_body_over_64_kib_is_refused() {
    let good = Attempt::new().body();
    let padded = |size: usize| {
        let mut body = good.clone();
        body.resize(size, b' ');
        Attempt::new().raw_body(body)
    };
    padded(64 * 1024).admitted();
    padded(64 * 1024 + 1).refused(Reason::PushTooLarge);
}

#[test]
fn a_body_that_is_not_the_one_strict_object_is_refused() {
    let attempt = Attempt::new();
    let (token, grant) = (attempt.token(), attempt.grant(&attempt.token()));
    let good = String::from_utf8(push_body(&grant, &token)).unwrap();
    Attempt::new().raw_body(good.clone()).admitted();
    let bad: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"null".to_vec(),
        b"{}".to_vec(),
        b"{".to_vec(),
        b"\xff".to_vec(),
        format!("\u{feff}{good}").into_bytes(),
        format!("{good}{good}").into_bytes(),
        format!("{good},").into_bytes(),
        json!([grant, token]).to_string().into_bytes(),
        json!({ "grant": grant }).to_string().into_bytes(),
        json!({ "subject_token": token }).to_string().into_bytes(),
        json!({ "grant": grant, "subject_token": null }).to_string().into_bytes(),
        json!({ "grant": [grant], "subject_token": token }).to_string().into_bytes(),
        json!({ "grant": grant, "subject_token": token, "note": 1 }).to_string().into_bytes(),
        json!({ "Grant": grant, "subject_token": token }).to_string().into_bytes(),
        good.replacen('{', &format!("{{\"grant\":\"{grant}\","), 1).into_bytes(),
        good.replacen('{', "{\"\\u0067rant\":\"x\",", 1).into_bytes(),
        "[".repeat(5000).into_bytes(),
    ];
    for body in bad {
        Attempt::new().raw_body(body).refused(Reason::PushMalformed);
    }
}

#[test]
fn a_grant_that_is_not_three_parts_is_refused() {
    let grant = Attempt::new().grant("");
    let parts: Vec<&str> = grant.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    for text in [
        String::new(),
        " ".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        header.to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{grant}."),
        format!("{grant}.{signature}"),
        format!(".{grant}"),
        format!("{header}.{payload}.{signature}.{signature}.{signature}"),
    ] {
        Attempt::new().raw_grant(text).refused(Reason::JwsMalformed);
    }
}

#[test]
fn a_grant_in_lax_base64_is_refused() {
    let grant = Attempt::new().grant("");
    for text in [
        format!("{grant}="),
        format!("{grant}=="),
        format!("{grant} "),
        format!("{grant}\n"),
        format!(" {grant}"),
        grant.replacen('.', " .", 1),
        grant.replacen('.', ".\t", 1),
        grant.replacen('e', "+", 1),
        grant.replacen('e', "/", 1),
        grant.replacen('e', "\u{200b}e", 1),
        grant.replacen('e', "é", 1),
        grant.replacen('.', "=.", 1),
    ] {
        Attempt::new().raw_grant(text).refused(Reason::JwsMalformed);
    }
}

#[test]
fn a_signature_with_trailing_bits_is_refused() {
    // 64 bytes are 86 characters, the last of which carries 4 bits that must be zero.
    let attempt = Attempt::new();
    let token = attempt.token();
    let grant = attempt.grant(&token);
    let last = grant.chars().last().unwrap();
    assert!("AQgw".contains(last), "the last character has 4 spare bits");
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let stem = &grant[..grant.len() - 1];
    let push = |grant: String| Attempt::new().raw_token(token.clone()).raw_grant(grant);
    push(grant.clone()).admitted();
    push(format!("{stem}{next}")).refused(Reason::JwsMalformed);
}

#[test]
fn a_header_that_is_not_an_object_of_three_strings_is_refused() {
    for header in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        r#"["hostgrant+jwt","EdDSA","cp-ed"]"#,
        r#"{"typ":"hostgrant+jwt","alg":"EdDSA","kid":"cp-ed"} x"#,
        r#"{"typ":"hostgrant+jwt","alg":"EdDSA","alg":"EdDSA","kid":"cp-ed"}"#,
        r#"{"typ":"hostgrant+jwt","alg":"EdDSA","kid":"cp-ed","kid":"cp-ed"}"#,
        r#"{"typ":"hostgrant+jwt","alg":["EdDSA"],"kid":"cp-ed"}"#,
        r#"{"typ":"hostgrant+jwt","alg":"EdDSA","kid":7}"#,
        r#"{"typ":"hostgrant+jwt","alg":"EdDSA","kid":""}"#,
        r#"{"typ":null,"alg":"EdDSA","kid":"cp-ed"}"#,
    ] {
        let reason = if header.is_empty() { Reason::JwsMalformed } else { Reason::HeaderMalformed };
        Attempt::new().raw_header(header).refused(reason);
    }
    for name in ["typ", "alg", "kid"] {
        Attempt::new().without_header(name).refused(Reason::HeaderMalformed);
    }
}

#[test]
fn a_header_that_brings_its_own_key_or_extensions_is_refused() {
    let jwk = WORLD.foreign.jwk(NOW, NOW);
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("jku", json!("https://evil.example/keys")),
        ("jwk", jwk),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("abc")),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("iss", json!("x")),
        ("KID", json!("x")),
    ] {
        Attempt::new().header(name, value).refused(Reason::HeaderForbidden);
    }
}

#[test]
fn a_message_of_another_type_is_refused() {
    for typ in [
        "JWT",
        "at+jwt",
        "hostrevoke+jwt",
        "hostrevokelist+jwt",
        "HostGrant+jwt",
        "hostgrant+JWT",
        "hostgrant",
        "application/hostgrant+jwt",
        "hostgrant+jwt ",
        "hostgrant+jwt\u{200b}",
        "",
    ] {
        Attempt::new().header("typ", typ).refused(Reason::TypWrong);
    }
}

#[test]
fn a_key_that_is_not_pinned_or_outside_its_period_signs_nothing() {
    Attempt::new().signed_by(&WORLD.foreign).refused(Reason::KeyUnknown);
    Attempt::new().header("kid", "CP-ED").refused(Reason::KeyUnknown);
    Attempt::new().signed_by(&WORLD.old).refused(Reason::KeyExpired);
    Attempt::new().signed_by(&WORLD.next).refused(Reason::KeyNotYetValid);
    Attempt::new().signed_by(&WORLD.old).at(grantd_grant::UnixTime(NOW.0 - 1)).admitted();
}

#[test]
fn a_key_is_used_with_its_one_algorithm_only() {
    for alg in ["ES256", "none", "None", "HS256", "RS256", "Ed25519", "eddsa", "EDDSA", ""] {
        Attempt::new().header("alg", alg).refused(Reason::AlgMismatch);
    }
    Attempt::new().signed_by(&WORLD.es256).header("alg", "EdDSA").refused(Reason::AlgMismatch);
    Attempt::new().signed_by(&WORLD.es256).header("alg", "ES384").refused(Reason::AlgMismatch);
}

#[test]
fn a_signature_by_another_key_or_over_other_bytes_is_refused() {
    Attempt::new().forged_by(&WORLD.foreign).refused(Reason::SignatureInvalid);
    Attempt::new().forged_by(&WORLD.es256).refused(Reason::SignatureInvalid);
    let good = Attempt::new().grant("");
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let altered = Attempt::new().claim("exp", NOW.0 + 601).grant("");
    let other_payload = altered.split('.').nth(1).unwrap();
    for text in [
        format!("{header}.{other_payload}.{signature}"),
        format!("{header}.{payload}.{}", base64url(&[0; 64])),
        format!("{header}.{payload}.{}", base64url(&[0; 63])),
        format!("{header}.{payload}.{}", base64url(b"x")),
        format!("{header}.{payload}.{signature}AAAA"),
    ] {
        Attempt::new().raw_grant(text).refused(Reason::SignatureInvalid);
    }
}

#[test]
fn an_es256_signature_of_zeros_or_in_der_is_refused() {
    let good = Attempt::new().signed_by(&WORLD.es256).grant("");
    let (input, _) = good.rsplit_once('.').unwrap();
    for signature in [vec![0u8; 64], vec![0x30, 6, 2, 1, 1, 2, 1, 1], vec![0xff; 64]] {
        let text = format!("{input}.{}", base64url(&signature));
        Attempt::new().raw_grant(text).refused(Reason::SignatureInvalid);
    }
}
