//! The conformance list of the design's page on Okta tokens, row by row under its own names. The modules
//! `token_form`, `token_claims` and `key_sets` go further on most of them.

use grantd_grant::mint::{base64url, jwks};
use grantd_grant::{InvalidJwks, OktaKeys, Reason, UnixTime};
use serde_json::json;

use crate::attempt::Attempt;
use crate::world::{AUDIENCE, NOW, OKTA, WORLD};

macro_rules! refused {
    ($($row:ident: $attempt:expr => $reason:ident;)*) => {
        $(#[test]
        fn $row() {
            Attempt::new().admitted();
            $attempt.refused(Reason::$reason);
        })*
    };
}

macro_rules! admitted {
    ($($row:ident: $attempt:expr;)*) => {
        $(#[test]
        fn $row() {
            let grant = $attempt.admitted();
            assert_eq!(grant.okta_kid().as_str(), "okta-1");
        })*
    };
}

fn good() -> String {
    Attempt::new().token()
}

fn with_keys(key: serde_json::Value) -> Attempt {
    let mut attempt = Attempt::new();
    attempt.okta_keys = Some(OktaKeys::from_jwks(&jwks([key])).expect("the set is readable"));
    attempt
}

fn key_with(member: &str, value: impl Into<serde_json::Value>) -> serde_json::Value {
    let mut jwk = WORLD.okta.jwk();
    jwk[member] = value.into();
    jwk
}

// What Okta's own verifiers test.
refused! {
    empty: Attempt::new().raw_token("") => TokenMalformed;
    blank: Attempt::new().raw_token("   ") => TokenMalformed;
    one_part: Attempt::new().raw_token(good().replace('.', "")) => TokenMalformed;
    two_parts: Attempt::new().raw_token(good().replacen('.', "", 1)) => TokenMalformed;
    four_parts: Attempt::new().raw_token(good() + ".x") => TokenMalformed;
    header_without_alg: Attempt::new().token_without_header("alg") => TokenHeaderMalformed;
    header_without_kid: Attempt::new().token_without_header("kid") => TokenHeaderMalformed;
    hs256: Attempt::new().token_header("alg", "HS256") => TokenAlgWrong;
    rs384: Attempt::new().token_header("alg", "RS384") => TokenAlgWrong;
    none: Attempt::new().token_header("alg", "none") => TokenAlgWrong;
    duplicate_alg:
        Attempt::new().raw_token_header(r#"{"alg":"RS256","alg":"none","kid":"okta-1"}"#)
        => TokenHeaderMalformed;
    bad_signature: Attempt::new().token_signed_by(&WORLD.impostor) => TokenSignatureInvalid;
    org_key_token:
        Attempt::new().token_signed_by(&WORLD.org).token_header("kid", "org-key") => TokenKeyUnknown;
    unknown_kid_not_found: Attempt::new().token_header("kid", "okta-2") => TokenKeyUnknown;
    issuer_missing: Attempt::new().token_without("iss") => TokenClaimMissing;
    issuer_longer: Attempt::new().token_claim("iss", format!("{OKTA}4")) => TokenIssuerMismatch;
    issuer_other_case:
        Attempt::new().token_claim("iss", OKTA.replace("acme", "Acme")) => TokenIssuerMismatch;
    issuer_trailing_slash: Attempt::new().token_claim("iss", format!("{OKTA}/")) => TokenIssuerMismatch;
    audience_other_string: Attempt::new().token_claim("aud", "api://x") => TokenAudienceMismatch;
    audience_other_array: Attempt::new().token_claim("aud", json!(["api://x"])) => TokenAudienceMismatch;
    audience_missing: Attempt::new().token_without("aud") => TokenClaimMissing;
    audience_empty: Attempt::new().token_claim("aud", "") => TokenAudienceMismatch;
    audience_empty_array: Attempt::new().token_claim("aud", json!([])) => TokenAudienceMismatch;
    audience_other_case: Attempt::new().token_claim("aud", "api://Grantd") => TokenAudienceMismatch;
    expired: Attempt::new().token_claim("exp", NOW.0) => TokenExpired;
    not_yet_valid: Attempt::new().token_claim("nbf", NOW.0 + 60) => TokenNotYetValid;
    issued_in_the_future: Attempt::new().token_claim("iat", NOW.0 + 60) => TokenIssuedInFuture;
    claim_missing: Attempt::new().token_without("sub") => TokenClaimMissing;
    cid_mismatch: Attempt::new().token_claim("cid", "0oaother") => ClientMismatch;
    scope_array_lacks_it: Attempt::new().token_claim("scp", json!(["openid"])) => TokenScopeMissing;
    scope_string_lacks_it:
        Attempt::new().token_without("scp").token_claim("scope", "openid") => TokenScopeMissing;
}

admitted! {
    unknown_kid_then_found: with_keys(WORLD.okta.jwk());
    audience_string: Attempt::new().token_claim("aud", AUDIENCE);
    audience_array: Attempt::new().token_claim("aud", json!([AUDIENCE]));
    scope_array: Attempt::new().token_claim("scp", json!(["openid", "host.connect"]));
    scope_string: Attempt::new().token_without("scp").token_claim("scope", "openid host.connect");
}

// What they miss. The HMAC keyed with the RSA public key is in `token_form`.
refused! {
    crit: Attempt::new().token_header("crit", json!(["exp"])) => TokenHeaderForbidden;
    wrong_typ: Attempt::new().token_header("typ", "dpop+jwt") => TokenTypWrong;
    aud_number: Attempt::new().token_claim("aud", 7) => TokenClaimsMalformed;
    aud_object: Attempt::new().token_claim("aud", json!({ "a": AUDIENCE })) => TokenClaimsMalformed;
    iss_array: Attempt::new().token_claim("iss", json!([OKTA])) => TokenClaimsMalformed;
    exp_string: Attempt::new().token_claim("exp", "9999999999") => TokenClaimsMalformed;
    exp_negative: Attempt::new().token_claim("exp", -1) => TokenClaimsMalformed;
    exp_1e308: Attempt::new().token_claim("exp", 1e308) => TokenClaimsMalformed;
    duplicate_claims:
        Attempt::new().edit_token_claims("\"exp\":", "\"exp\":1,\"exp\":") => TokenClaimsMalformed;
    jwe: Attempt::new().raw_token(format!("{}.AA.AA", good())) => TokenMalformed;
    over_16_kib: Attempt::new().token_claim("pad", "x".repeat(16 * 1024)) => TokenTooLarge;
    base64_padding: Attempt::new().raw_token(good() + "=") => TokenMalformed;
    base64_whitespace: Attempt::new().raw_token(good().replacen('.', "\n.", 1)) => TokenMalformed;
    use_enc_key: with_keys(key_with("use", "enc")) => TokenKeyUnknown;
    key_of_1024_bits: with_keys(key_with("n", base64url(&[0xc1; 128]))) => TokenKeyUnknown;
    oct_key_in_the_set: with_keys(
        json!({ "kty": "oct", "kid": "okta-1", "use": "sig", "alg": "RS256", "k": "AAAA" }),
    ) => TokenKeyUnknown;
    id_token: Attempt::new().token_claim("nonce", "n-0S6").token_claim("at_hash", "x") => TokenKindWrong;
    id_jag: Attempt::new().token_header("typ", "oauth-id-jag+jwt") => TokenTypWrong;
    logout_token: Attempt::new().token_header("typ", "logout+jwt") => TokenTypWrong;
    logout_token_without_typ: Attempt::new().token_claim("events", json!({})) => TokenKindWrong;
    security_event_token: Attempt::new().token_header("typ", "secevent+jwt") => TokenTypWrong;
    our_own_grant: Attempt::new().raw_token(Attempt::new().grant("")) => TokenTypWrong;
    clock_set_back: Attempt::new().at(UnixTime(NOW.0 - 3600)) => IssuedInFuture;
    clock_set_forward: Attempt::new().at(UnixTime(NOW.0 + 3600)) => IssuedTooLongAgo;
}

#[test]
fn base64_trailing_bits() {
    let token = good();
    let last = token.chars().last().unwrap();
    assert!("AQgw".contains(last), "the last character has 4 spare bits");
    let lax = char::from(u8::try_from(last).unwrap() + 1);
    Attempt::new()
        .raw_token(token[..token.len() - 1].to_owned() + &lax.to_string())
        .refused(Reason::TokenMalformed);
}

#[test]
fn duplicate_kid() {
    let refused = OktaKeys::from_jwks(&jwks([WORLD.okta.jwk(), WORLD.impostor.jwk()]));
    assert_eq!(refused.unwrap_err(), InvalidJwks::DuplicateKid("okta-1".to_owned()));
}
