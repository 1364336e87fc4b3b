//! Checks 11 and 12, first half: the token's binding, form, header, key, signature, and other kinds of
//! token passed as an access token.

use grantd_grant::mint::{base64url, sign_compact};
use grantd_grant::{BindError, OktaKeys, PeerUris, Push, Reason, ReplayAnswer};
use serde_json::json;

use crate::attempt::Attempt;
use crate::world::{NOW, WORLD};

fn good_token() -> String {
    Attempt::new().token()
}

#[test]
fn a_valid_token_is_admitted_with_any_of_its_types() {
    Attempt::new().admitted();
    Attempt::new().token_header("typ", "JWT").admitted();
    Attempt::new().token_header("typ", "at+jwt").admitted();
}

#[test]
fn a_token_other_than_the_one_bound_is_refused() {
    Attempt::new().bound_to_other_token().refused(Reason::TokenHashMismatch);
    let bound = Attempt::new();
    let grant = bound.grant(&bound.token());
    let other = Attempt::new().token_claim("jti", "AT.other").token();
    Attempt::new().raw_grant(grant).raw_token(other).refused(Reason::TokenHashMismatch);
}

#[test]
fn an_empty_or_blank_token_is_refused() {
    for token in ["", " ", "\n", "\t  "] {
        Attempt::new().raw_token(token).refused(Reason::TokenMalformed);
    }
}

#[test]
fn a_token_with_a_wrong_part_count_is_refused() {
    let token = good_token();
    let (head, tail) = token.split_once('.').unwrap();
    let payload = tail.split('.').next().unwrap();
    for text in [
        head.to_owned(),
        format!("{head}.{payload}"),
        format!("{head}.{payload}."),
        format!(".{tail}"),
        format!("{token}.x"),
        format!("{token}."),
        format!(".{token}"),
        "opaque-reference-token".to_owned(),
    ] {
        Attempt::new().raw_token(text).refused(Reason::TokenMalformed);
    }
}

#[test]
fn an_encrypted_token_is_refused() {
    let header = base64url(br#"{"alg":"RSA-OAEP","enc":"A256GCM","kid":"okta-1"}"#);
    Attempt::new()
        .raw_token(format!("{header}.AAAA.AAAA.AAAA.AAAA"))
        .refused(Reason::TokenMalformed);
    let header = r#"{"alg":"RS256","kid":"okta-1","enc":"A256GCM"}"#;
    Attempt::new().raw_token_header(header).refused(Reason::TokenHeaderForbidden);
}

#[test]
fn a_token_over_16_kib_is_refused() {
    let sized = |size: usize| {
        // Base64 makes 4 characters of 3 bytes; the claim is grown until the text has the size.
        let mut pad = 1;
        loop {
            let attempt = Attempt::new().token_claim("pad", "x".repeat(pad));
            match attempt.token().len() {
                len if len >= size => return (len, attempt),
                len => pad += ((size - len) * 3 / 4).max(1),
            }
        }
    };
    let (len, small) = sized(16 * 1024 - 2);
    assert!(len <= 16 * 1024);
    small.admitted();
    let (len, large) = sized(16 * 1024 + 1);
    assert!(len <= 16 * 1024 + 4);
    large.refused(Reason::TokenTooLarge);
}

#[test]
fn a_token_in_lax_base64_is_refused() {
    let token = good_token();
    for text in [
        format!("{token}="),
        format!("{token}=="),
        format!("{token}\n"),
        format!(" {token}"),
        token.replacen('.', "=.", 1),
        token.replacen('.', " .", 1),
        token.replacen("eyJ", "eyJ\r\n", 1),
        token.replacen('e', "+", 1),
    ] {
        Attempt::new().raw_token(text).refused(Reason::TokenMalformed);
    }
}

#[test]
fn a_token_with_trailing_bits_is_refused() {
    // 256 bytes of signature are 342 characters, the last of which carries 4 spare bits.
    let token = good_token();
    let last = token.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).unwrap();
    assert_eq!(at % 16, 0, "the last character has 4 spare bits");
    let text = format!("{}{}", &token[..token.len() - 1], alphabet.chars().nth(at + 1).unwrap());
    Attempt::new().raw_token(text).refused(Reason::TokenMalformed);
}

#[test]
fn a_header_without_alg_is_refused() {
    Attempt::new().token_without_header("alg").refused(Reason::TokenHeaderMalformed);
}

#[test]
fn a_header_without_kid_is_refused() {
    Attempt::new().token_without_header("kid").refused(Reason::TokenHeaderMalformed);
}

#[test]
fn a_header_with_duplicate_alg_is_refused() {
    for header in [
        r#"{"alg":"none","alg":"RS256","kid":"okta-1"}"#,
        r#"{"alg":"RS256","kid":"okta-1","alg":"RS256"}"#,
        r#"{"alg":"RS256","\u0061lg":"RS256","kid":"okta-1"}"#,
        r#"{"alg":"RS256","kid":"okta-1","kid":"okta-1"}"#,
    ] {
        Attempt::new().raw_token_header(header).refused(Reason::TokenHeaderMalformed);
    }
}

#[test]
fn a_header_that_is_not_an_object_of_strings_is_refused() {
    for header in [
        "null",
        "[]",
        r#"["RS256","okta-1"]"#,
        "7",
        "{",
        r#"{"alg":["RS256"],"kid":"okta-1"}"#,
        r#"{"alg":256,"kid":"okta-1"}"#,
        r#"{"alg":"RS256","kid":null}"#,
        r#"{"alg":"RS256","kid":""}"#,
        r#"{"alg":"RS256","kid":"okta-1","typ":null}"#,
        r#"{"alg":"RS256","kid":"okta-1","typ":["JWT"]}"#,
    ] {
        Attempt::new().raw_token_header(header).refused(Reason::TokenHeaderMalformed);
    }
}

#[test]
fn every_algorithm_but_rs256_is_refused() {
    for alg in [
        "HS256", "HS384", "RS384", "RS512", "PS256", "ES256", "EdDSA", "none", "None", "NONE",
        "nOnE", "rs256", "RS256 ", "",
    ] {
        Attempt::new().token_header("alg", alg).refused(Reason::TokenAlgWrong);
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    let header = base64url(br#"{"alg":"none","kid":"okta-1"}"#);
    let token = good_token();
    let payload = token.split('.').nth(1).unwrap();
    Attempt::new().raw_token(format!("{header}.{payload}.")).refused(Reason::TokenMalformed);
    Attempt::new().raw_token(format!("{header}.{payload}.AA")).refused(Reason::TokenAlgWrong);
}

#[test]
fn an_hmac_keyed_with_the_public_key_is_refused() {
    use aws_lc_rs::hmac;
    let jwk = WORLD.okta.jwk();
    let claims = good_token().split('.').nth(1).unwrap().to_owned();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims);
    let payload = payload.unwrap();
    for secret in [jwk.to_string(), jwk["n"].as_str().unwrap().to_owned()] {
        for alg in ["HS256", "RS256"] {
            let header = json!({ "alg": alg, "kid": "okta-1" }).to_string();
            let token = sign_compact(header.as_bytes(), &payload, |input| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                Ok(hmac::sign(&key, input).as_ref().to_vec())
            });
            let reason = match alg {
                "HS256" => Reason::TokenAlgWrong,
                _ => Reason::TokenSignatureInvalid,
            };
            Attempt::new().raw_token(token.unwrap()).refused(reason);
        }
    }
}

#[test]
fn a_header_with_crit_or_a_key_of_its_own_is_refused() {
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("jwk", WORLD.impostor.jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("ALG", json!("none")),
    ] {
        Attempt::new().token_header(name, value).refused(Reason::TokenHeaderForbidden);
    }
}

#[test]
fn a_token_of_another_type_is_refused() {
    for typ in [
        "hostgrant+jwt",
        "hostrevoke+jwt",
        "oauth-id-jag+jwt",
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "client-authentication+jwt",
        "token-introspection+jwt",
        "jwt",
        "AT+JWT",
        "id_token",
        "",
        "JWT ",
    ] {
        Attempt::new().token_header("typ", typ).refused(Reason::TokenTypWrong);
    }
}

#[test]
fn a_bad_signature_is_refused() {
    Attempt::new().token_signed_by(&WORLD.impostor).refused(Reason::TokenSignatureInvalid);
    let token = good_token();
    let (input, _) = token.rsplit_once('.').unwrap();
    for signature in [vec![0u8; 256], vec![0xff; 256], vec![1], vec![0; 255], vec![0; 257]] {
        Attempt::new()
            .raw_token(format!("{input}.{}", base64url(&signature)))
            .refused(Reason::TokenSignatureInvalid);
    }
    let longer = Attempt::new().token_claim("exp", NOW.0 + 90_000).token();
    let (stolen, _) = longer.rsplit_once('.').unwrap();
    let (_, signature) = token.rsplit_once('.').unwrap();
    Attempt::new()
        .raw_token(format!("{stolen}.{signature}"))
        .refused(Reason::TokenSignatureInvalid);
}

#[test]
fn a_token_of_the_organisations_server_is_refused() {
    let org = Attempt::new().token_signed_by(&WORLD.org).token_header("kid", "org-key");
    org.refused(Reason::TokenKeyUnknown);
    let org = Attempt::new()
        .token_claim("iss", "https://acme.okta.com")
        .token_claim("aud", "https://acme.okta.com");
    org.refused(Reason::TokenIssuerMismatch);
}

#[test]
fn an_unknown_key_is_told_apart_so_that_the_set_is_fetched_once_and_tried_again() {
    let attempt = Attempt::new().token_signed_by(&WORLD.org).token_header("kid", "org-key");
    let policy = &WORLD.policy;
    let pusher = policy.check_pusher(&PeerUris::new(attempt.peer.clone())).unwrap();
    let push = Push::parse(&attempt.body()).unwrap();
    let fresh = push
        .verify(&pusher, &WORLD.keys, policy, NOW)
        .unwrap()
        .check_replay(ReplayAnswer::New)
        .unwrap();
    let missing = fresh.bind(&WORLD.okta_keys, policy, NOW).unwrap_err();
    assert_eq!(missing, BindError::UnknownKey(crate::world::kid_of("org-key")));
    let fetched = OktaKeys::from_jwks(&WORLD.org.jwks()).unwrap();
    assert!(fresh.bind(&fetched, policy, NOW).is_ok(), "found after the fetch");
    let late = fresh.bind(&fetched, policy, grantd_grant::UnixTime(NOW.0 + 600));
    let Err(BindError::Refused(refusal)) = late else { panic!("admitted after its end") };
    assert_eq!(refusal.reason, Reason::Expired, "the fetch took longer than the grant lives");
    let still = OktaKeys::default();
    assert!(matches!(fresh.bind(&still, policy, NOW), Err(BindError::UnknownKey(_))));
}

#[test]
fn our_own_grant_is_no_access_token() {
    let grant = Attempt::new().grant("");
    Attempt::new().raw_token(grant).refused(Reason::TokenTypWrong);
}

#[test]
fn an_id_token_is_refused() {
    Attempt::new().token_claim("aud", "0oa4client").refused(Reason::TokenAudienceMismatch);
    for claim in ["nonce", "at_hash", "c_hash", "s_hash"] {
        Attempt::new().token_claim(claim, "x").refused(Reason::TokenKindWrong);
    }
}

#[test]
fn an_identity_assertion_grant_is_refused() {
    let id_jag = || Attempt::new().token_claim("aud", "https://other.example/token");
    id_jag().token_header("typ", "oauth-id-jag+jwt").refused(Reason::TokenTypWrong);
    id_jag().refused(Reason::TokenAudienceMismatch);
}

#[test]
fn a_logout_token_or_security_event_is_refused() {
    let logout = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    Attempt::new()
        .token_claim("events", logout)
        .token_without("exp")
        .refused(Reason::TokenKindWrong);
    let event =
        json!({ "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} });
    Attempt::new().token_claim("events", event).refused(Reason::TokenKindWrong);
    Attempt::new().token_claim("events", json!(null)).refused(Reason::TokenKindWrong);
    Attempt::new().token_claim("toe", NOW.0).refused(Reason::TokenKindWrong);
}
