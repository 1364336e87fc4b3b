//! Key sets: what the issuer publishes, and what is pinned of the control plane.

use grantd_grant::mint::{base64url, jwks};
use grantd_grant::{ControlPlaneKeys, InvalidJwks, OktaKeys, Reason, UnixTime};
use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::world::{NOW, WORLD};

fn okta_jwk(change: impl FnOnce(&mut Value)) -> Value {
    let mut jwk = WORLD.okta.jwk();
    change(&mut jwk);
    jwk
}

fn set(key: &str, value: impl Into<Value>) -> impl FnOnce(&mut Value) {
    let (key, value) = (key.to_owned(), value.into());
    move |jwk| jwk[key] = value
}

fn remove(key: &str) -> impl FnOnce(&mut Value) {
    let key = key.to_owned();
    move |jwk| drop(jwk.as_object_mut().unwrap().remove(&key).expect("the member exists"))
}

#[track_caller]
fn skipped(jwk: Value) {
    let keys = OktaKeys::from_jwks(&jwks([jwk.clone()])).expect("the set stays readable");
    assert!(keys.is_empty() && keys.skipped() == 1, "usable, but must not be: {jwk}");
    let mut attempt = Attempt::new();
    attempt.okta_keys = Some(keys);
    attempt.refused(Reason::TokenKeyUnknown);
}

#[test]
fn a_published_key_is_usable_with_alg_or_without() {
    for jwk in [WORLD.okta.jwk(), okta_jwk(remove("alg")), okta_jwk(set("x5t", "abc"))] {
        let keys = OktaKeys::from_jwks(&jwks([jwk])).unwrap();
        assert_eq!((keys.len(), keys.skipped()), (1, 0));
        let mut attempt = Attempt::new();
        attempt.okta_keys = Some(keys);
        attempt.admitted();
    }
}

#[test]
fn an_encryption_key_verifies_nothing() {
    skipped(okta_jwk(set("use", "enc")));
    skipped(okta_jwk(remove("use")));
    skipped(okta_jwk(set("use", "SIG")));
}

#[test]
fn a_key_for_another_algorithm_verifies_nothing() {
    for alg in [
        json!("RS384"),
        json!("RS512"),
        json!("PS256"),
        json!("HS256"),
        json!("none"),
        json!(7),
        json!(null),
    ] {
        skipped(okta_jwk(set("alg", alg)));
    }
}

#[test]
fn a_1024_bit_key_verifies_nothing() {
    skipped(okta_jwk(set("n", base64url(&[0xff; 128]))));
    let mut almost = vec![0xff; 256];
    almost[0] = 0x7f;
    skipped(okta_jwk(set("n", base64url(&almost))));
    skipped(okta_jwk(set("n", base64url(&[0xff; 1025]))));
}

#[test]
fn a_symmetric_or_foreign_key_verifies_nothing() {
    skipped(json!({ "kty": "oct", "use": "sig", "alg": "RS256", "kid": "okta-1", "k": "AAAA" }));
    skipped(okta_jwk(set("kty", "oct")));
    skipped(okta_jwk(set("kty", "EC")));
    skipped(okta_jwk(remove("kty")));
    skipped(okta_jwk(remove("kid")));
    skipped(okta_jwk(set("kid", "")));
}

#[test]
fn a_key_with_its_private_part_shown_verifies_nothing() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        skipped(okta_jwk(set(member, "AAAA")));
    }
}

#[test]
fn a_key_with_a_weak_or_malformed_number_verifies_nothing() {
    for exponent in ["", "AQ", "Aw", "EQ", "AQAA", "AAEAAQ", "AQAAAAE", "AQAB=", "!"] {
        skipped(okta_jwk(set("e", exponent)));
    }
    skipped(okta_jwk(remove("e")));
    skipped(okta_jwk(remove("n")));
    skipped(okta_jwk(set("n", 7)));
    let n = WORLD.okta.jwk()["n"].as_str().unwrap().to_owned();
    skipped(okta_jwk(set("n", format!("{n}="))));
    skipped(okta_jwk(set("n", format!("AA{n}"))));
}

#[test]
fn a_bad_key_does_not_take_the_good_one_with_it() {
    let bad = okta_jwk(set("use", "enc"));
    let mut bad = bad;
    bad["kid"] = json!("okta-enc");
    let keys = OktaKeys::from_jwks(&jwks([bad, WORLD.okta.jwk()])).unwrap();
    assert_eq!((keys.len(), keys.skipped()), (1, 1));
    assert!(keys.contains(WORLD.okta.kid()));
}

#[test]
fn a_duplicate_kid_refuses_the_set_even_if_one_is_unusable() {
    for other in [WORLD.impostor.jwk(), WORLD.okta.jwk(), okta_jwk(set("use", "enc"))] {
        let document = jwks([WORLD.okta.jwk(), other]);
        assert_eq!(
            OktaKeys::from_jwks(&document).unwrap_err(),
            InvalidJwks::DuplicateKid("okta-1".to_owned())
        );
    }
}

#[test]
fn a_set_of_more_than_32_keys_is_refused() {
    let keys = |count: usize| jwks((0..count).map(|at| okta_jwk(set("kid", format!("key-{at}")))));
    assert_eq!(OktaKeys::from_jwks(&keys(32)).unwrap().len(), 32);
    assert_eq!(OktaKeys::from_jwks(&keys(33)).unwrap_err(), InvalidJwks::TooManyKeys(33));
}

#[test]
fn a_set_over_256_kib_is_refused() {
    let mut document = WORLD.okta.jwks();
    document.resize(256 * 1024, b' ');
    assert!(OktaKeys::from_jwks(&document).is_ok());
    document.push(b' ');
    assert_eq!(OktaKeys::from_jwks(&document).unwrap_err(), InvalidJwks::TooLarge(256 * 1024 + 1));
}

#[test]
fn a_document_that_is_no_key_set_is_refused() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"keys":null}"#,
        r#"{"keys":{}}"#,
        r#"{"keys":[7]}"#,
        r#"{"keys":[[]]}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kid":"a","kid":"b"}]}"#,
        "<html>",
        r#"{"keys":[]} x"#,
    ] {
        let refused = OktaKeys::from_jwks(text.as_bytes());
        assert!(matches!(refused, Err(InvalidJwks::Malformed(_))), "{text}");
    }
    assert!(OktaKeys::from_jwks(br#"{"keys":[]}"#).unwrap().is_empty(), "all keys withdrawn");
}

fn pinned(change: impl FnOnce(&mut Value)) -> Result<ControlPlaneKeys, Vec<InvalidJwks>> {
    let mut jwk = WORLD.ed25519.jwk(NOW, UnixTime(NOW.0 + 10));
    change(&mut jwk);
    ControlPlaneKeys::from_jwks(&jwks([jwk]))
}

#[test]
fn pinned_keys_of_both_algorithms_are_read() {
    let (from, to) = (NOW, UnixTime(NOW.0 + 10));
    let keys = jwks([WORLD.ed25519.jwk(from, to), WORLD.es256.jwk(from, to)]);
    let keys = ControlPlaneKeys::from_jwks(&keys).unwrap();
    assert_eq!(keys.len(), 2);
    assert!(keys.contains(WORLD.ed25519.kid()) && keys.contains(WORLD.es256.kid()));
    assert!(keys.iter().all(|(_, key)| key.not_before() == from && key.expires() == to));
    assert!(pinned(remove("use")).is_ok(), "use is optional");
}

#[test]
fn a_pinned_key_that_is_not_exact_is_a_fault_of_the_file() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for (key, value) in [
        ("alg", json!("ES256")),
        ("alg", json!("Ed25519")),
        ("alg", json!("RS256")),
        ("alg", json!(null)),
        ("kty", json!("EC")),
        ("kty", json!("oct")),
        ("crv", json!("P-256")),
        ("crv", json!("X25519")),
        ("x", json!("AAAA")),
        ("x", json!(format!("{x}="))),
        ("x", json!(7)),
        ("kid", json!("")),
        ("nbf", json!("0")),
        ("nbf", json!(NOW.0 + 10)),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("use", json!("enc")),
        ("d", json!(x)),
        ("note", json!("mine")),
        ("k", json!("AAAA")),
    ] {
        assert!(pinned(set(key, value.clone())).is_err(), "{key} = {value}");
    }
    for key in ["kid", "alg", "kty", "crv", "x", "nbf", "exp"] {
        assert!(pinned(remove(key)).is_err(), "{key} is required");
    }
}

#[test]
fn a_pinned_point_off_the_curve_is_a_fault_of_the_file() {
    let mut jwk = WORLD.es256.jwk(NOW, UnixTime(NOW.0 + 10));
    jwk["y"] = jwk["x"].clone();
    let faults = ControlPlaneKeys::from_jwks(&jwks([jwk])).unwrap_err();
    assert!(matches!(faults.as_slice(), [InvalidJwks::Key { at: 0, .. }]), "{faults:?}");
}

#[test]
fn all_faults_of_a_pinned_set_are_told_at_once() {
    let bad = json!({ "kid": "a" });
    let good = WORLD.ed25519.jwk(NOW, UnixTime(NOW.0 + 10));
    let worse = json!({ "kid": "b", "alg": "none" });
    let faults = ControlPlaneKeys::from_jwks(&jwks([bad, good, worse])).unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn a_pinned_set_that_is_empty_or_ambiguous_is_a_fault_of_the_file() {
    assert_eq!(ControlPlaneKeys::from_jwks(&jwks([])).unwrap_err(), [InvalidJwks::Empty]);
    let jwk = || WORLD.ed25519.jwk(NOW, UnixTime(NOW.0 + 10));
    let twice = ControlPlaneKeys::from_jwks(&jwks([jwk(), jwk()])).unwrap_err();
    assert!(matches!(twice.as_slice(), [InvalidJwks::DuplicateKid(_)]));
    let beside = json!({ "keys": [jwk()], "note": 1 }).to_string();
    assert!(ControlPlaneKeys::from_jwks(beside.as_bytes()).is_err());
}
