//! Invariant I6: no token bytes in `Debug`, errors or what is kept.

use grantd_grant::{BindError, PeerUris, Push, Reason, ReplayAnswer};

use crate::attempt::Attempt;
use crate::world::{NOW, WORLD};

/// Whether any 12 characters in a row of one of the token's parts occur in `text`.
fn shows(text: &str, token: &str) -> bool {
    token.split('.').any(|part| {
        part.as_bytes().windows(12).any(|w| text.contains(std::str::from_utf8(w).unwrap()))
    })
}

#[test]
fn no_stage_of_a_grant_prints_the_token() {
    let attempt = Attempt::new();
    let token = attempt.token();
    assert!(shows(&String::from_utf8(attempt.body()).unwrap(), &token), "positive control");
    let push = Push::parse(&attempt.body()).unwrap();
    let tokenless = |what: &str, text: String| assert!(!shows(&text, &token), "{what}: {text}");
    tokenless("push", format!("{push:?} {push:#?}"));
    let pusher = WORLD.policy.check_pusher(&PeerUris::new(attempt.peer.clone())).unwrap();
    let signed = push.verify(&pusher, &WORLD.keys, &WORLD.policy, NOW).unwrap();
    tokenless("signed", format!("{signed:?}"));
    let fresh = signed.check_replay(ReplayAnswer::New).unwrap();
    tokenless("fresh", format!("{fresh:?}"));
    let verified = fresh.bind(&WORLD.okta_keys, &WORLD.policy, NOW).unwrap();
    tokenless("verified", format!("{verified:?}"));
    let stored = verified.to_stored();
    tokenless("stored", format!("{stored:?}"));
    tokenless("ledger", serde_json::to_string(&stored).unwrap());
}

#[test]
fn no_refusal_quotes_the_token() {
    let token = Attempt::new().token();
    let expired = Attempt::new().token_claim("exp", NOW.0);
    for (attempt, reason) in [
        (Attempt::new().bound_to_other_token(), Reason::TokenHashMismatch),
        (Attempt::new().raw_token(format!("{token}.x")), Reason::TokenMalformed),
        (Attempt::new().raw_token(format!("{token}=")), Reason::TokenMalformed),
        (Attempt::new().token_signed_by(&WORLD.impostor), Reason::TokenSignatureInvalid),
        (Attempt::new().raw_grant(token.clone()), Reason::HeaderMalformed),
        (Attempt::new().raw_body(format!("{{\"{token}\":1}}")), Reason::PushMalformed),
        (Attempt::new().raw_body(token.clone()), Reason::PushMalformed),
        (expired, Reason::TokenExpired),
    ] {
        let refusal = attempt.run().unwrap_err();
        assert_eq!(refusal.reason, reason);
        let text = format!("{refusal} {refusal:?}");
        assert!(!shows(&text, &token) && !shows(&text, &attempt.token()), "{text}");
    }
}

#[test]
fn signing_keys_and_key_sets_print_their_ids_only() {
    assert_eq!(format!("{:?}", WORLD.ed25519), "GrantSigner(cp-ed)");
    assert_eq!(format!("{:?}", WORLD.okta), "OktaTokenMinter(okta-1)");
    assert_eq!(format!("{:?}", WORLD.okta_keys), r#"{KeyId("okta-1")}"#);
    let bind = BindError::UnknownKey(crate::world::kid_of("k"));
    assert_eq!(bind.to_string(), "the token's key k is not in the issuer's key set");
}
