//! Revocations and the signed revocation list.

use grantd_grant::ids::{ActorId, ClientId, Issuer};
use grantd_grant::mint::{Draft, GrantSigner, RevocationDraft, revocation_body};
use grantd_grant::{
    GrantId, HostId, PeerUris, Reason, Refusal, RevocationList, RevocationPush, Selector, Subject,
    TxnId, UnixTime, VerifiedRevocation, VerifiedRevocationList,
};
use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::world::{ACTOR, CLIENT, CONTROL, HOST, NOW, PUSHER, USER, WORLD, name};

fn draft(selectors: &[Selector]) -> RevocationDraft {
    RevocationDraft::new(
        &Issuer::new(CONTROL).unwrap(),
        &HostId::new(HOST).unwrap(),
        &GrantId::new("01JDREVOKE").unwrap(),
        7,
        selectors,
        NOW,
    )
}

fn push(jws: &str) -> Result<VerifiedRevocation, Refusal> {
    let pusher = WORLD.policy.check_pusher(&PeerUris::new([PUSHER.to_owned()])).unwrap();
    RevocationPush::parse(&revocation_body(jws))?.verify(&pusher, &WORLD.keys, &WORLD.policy, NOW)
}

fn verify(draft: &RevocationDraft) -> Result<VerifiedRevocation, Refusal> {
    push(&WORLD.ed25519.sign(draft).unwrap())
}

#[track_caller]
fn refused(draft: &RevocationDraft, reason: Reason) {
    assert_eq!(verify(draft).unwrap_err().reason, reason);
}

fn all_selectors() -> Vec<Selector> {
    vec![
        Selector::Jti(GrantId::new("01JDGRANT").unwrap()),
        Selector::Sub(Subject::new(USER).unwrap()),
        Selector::Cid(ClientId::new(CLIENT).unwrap()),
        Selector::Act(ActorId::new(ACTOR).unwrap()),
        Selector::Txn(TxnId::new("req-7781").unwrap()),
        Selector::Workload(name("coding-agent")),
        Selector::All,
    ]
}

#[test]
fn a_signed_revocation_is_accepted_with_all_it_says() {
    let revocation = verify(&draft(&all_selectors())).unwrap();
    assert_eq!(revocation.seq(), 7);
    assert_eq!(revocation.jti().as_str(), "01JDREVOKE");
    assert_eq!(revocation.selectors(), all_selectors());
    assert_eq!(revocation.issued_before(), NOW);
    assert_eq!(revocation.kid().as_str(), "cp-ed");
}

#[test]
fn each_selector_ends_the_grants_that_it_means_and_no_others() {
    let mine = Attempt::new().admitted();
    let other = Attempt::new()
        .claim("jti", "01JDOTHER")
        .claim("txn", "req-1")
        .claim("sub", "00uother")
        .token_claim("uid", "00uother")
        .claim("act", json!({ "sub": "wlpother", "sub_profile": "ai_agent" }))
        .token_claim("act", json!({ "sub": "wlpother" }))
        .admitted();
    for selector in all_selectors() {
        assert!(selector.matches(&mine), "{selector}");
        assert!(
            verify(&draft(std::slice::from_ref(&selector))).unwrap().revokes(&mine),
            "{selector}"
        );
        let shared = matches!(selector, Selector::Cid(_) | Selector::Workload(_) | Selector::All);
        assert_eq!(selector.matches(&other), shared, "{selector}");
    }
    let foreign = Selector::Workload(name("other-agent"));
    assert!(!foreign.matches(&mine));
    // An id of one kind does not select by another kind.
    assert!(!Selector::Sub(Subject::new(CLIENT).unwrap()).matches(&mine));
    let bare = Attempt::new().without("act").token_without("act").admitted();
    assert!(!Selector::Act(ActorId::new(ACTOR).unwrap()).matches(&bare));
}

#[test]
fn a_replayed_revocation_does_not_end_a_grant_issued_since() {
    let grant = Attempt::new().admitted();
    let until = |at: u64, selector: Selector| {
        verify(&draft(&[selector]).set("issued_before", at)).unwrap().revokes(&grant)
    };
    let subject = || Selector::Sub(Subject::new(USER).unwrap());
    assert!(until(NOW.0, subject()));
    assert!(!until(NOW.0 - 1, subject()));
    assert!(!until(NOW.0 - 1, Selector::All));
    let jti = Selector::Jti(GrantId::new("01JDGRANT").unwrap());
    assert!(until(NOW.0 - 1, jti), "one grant by name is ended whenever it was issued");
}

#[test]
fn a_forged_or_foreign_revocation_ends_nothing() {
    let draft = draft(&[Selector::All]);
    let by = |signer: &GrantSigner| push(&signer.sign(&draft).unwrap()).map_err(|r| r.reason);
    assert!(by(&WORLD.es256).is_ok());
    assert_eq!(by(&WORLD.foreign).unwrap_err(), Reason::KeyUnknown);
    assert_eq!(by(&WORLD.old).unwrap_err(), Reason::KeyExpired);
    let header = json!({ "typ": "hostrevoke+jwt", "alg": "EdDSA", "kid": "cp-ed" }).to_string();
    let claims = draft.claims().to_string();
    let forged = WORLD.foreign.sign_raw(header.as_bytes(), claims.as_bytes()).unwrap();
    assert_eq!(push(&forged).unwrap_err().reason, Reason::SignatureInvalid);
    refused(&draft.clone().set("iss", "https://evil.example"), Reason::IssuerMismatch);
    refused(&draft.clone().set("aud", "spiffe://example.org/host/x"), Reason::AudienceMismatch);
    refused(&draft.clone().set("ver", 2), Reason::VersionUnsupported);
}

#[test]
fn a_grant_is_no_revocation_and_a_revocation_no_grant() {
    let grant = Attempt::new().grant("");
    assert_eq!(push(&grant).unwrap_err().reason, Reason::TypWrong);
    let revocation = WORLD.ed25519.sign(&draft(&[Selector::All])).unwrap();
    Attempt::new().raw_grant(revocation.clone()).refused(Reason::TypWrong);
    let list = RevocationList::parse(revocation.as_bytes()).unwrap();
    let refusal = list.verify(&WORLD.keys, &WORLD.policy, None, NOW).unwrap_err();
    assert_eq!(refusal.reason, Reason::TypWrong);
}

#[test]
fn a_revocation_from_the_future_or_past_its_end_is_refused() {
    let at = |iat: u64, exp: u64| draft(&[Selector::All]).set("iat", iat).set("exp", exp);
    assert!(verify(&at(NOW.0 + 30, NOW.0 + 60)).is_ok());
    assert!(verify(&at(NOW.0 - 3600, NOW.0 + 1)).is_ok(), "an old one is in the safe direction");
    refused(&at(NOW.0 + 31, NOW.0 + 60), Reason::IssuedInFuture);
    refused(&at(NOW.0 - 60, NOW.0), Reason::Expired);
    refused(&at(NOW.0 + 20, NOW.0 + 10), Reason::TtlInvalid);
}

#[test]
fn revocation_claims_are_strict() {
    let draft = || draft(&[Selector::All]);
    for claim in ["ver", "iss", "aud", "jti", "iat", "exp", "seq", "revoke", "issued_before"] {
        refused(&draft().without(claim), Reason::ClaimsMalformed);
        refused(&draft().set(claim, Value::Null), Reason::ClaimsMalformed);
    }
    refused(&draft().set("note", 1), Reason::ClaimsMalformed);
    for seq in [json!("7"), json!(-1), json!(7.0), json!(1e300)] {
        refused(&draft().set("seq", seq), Reason::ClaimsMalformed);
    }
    for revoke in [
        json!([]),
        json!({}),
        json!("all"),
        json!([{}]),
        json!([{ "all": false }]),
        json!([{ "all": 1 }]),
        json!([{ "all": "true" }]),
        json!([{ "jti": "a", "sub": "b" }]),
        json!([{ "everything": true }]),
        json!([{ "jti": "a" }, {}]),
        json!([["jti", "a"]]),
        json!([{ "sub": "" }]),
        json!([{ "sub": "a b" }]),
        json!(vec![json!({ "all": true }); 257]),
    ] {
        refused(&draft().set("revoke", revoke), Reason::ClaimsMalformed);
    }
    assert!(verify(&draft().set("revoke", json!(vec![json!({ "all": true }); 256]))).is_ok());
}

#[test]
fn a_revocation_body_is_strict() {
    let jws = WORLD.ed25519.sign(&draft(&[Selector::All])).unwrap();
    for body in [
        jws.clone(),
        json!([jws]).to_string(),
        json!({ "revocation": [jws] }).to_string(),
        json!({ "revocation": jws, "grant": jws }).to_string(),
        "{}".to_owned(),
    ] {
        let refusal = RevocationPush::parse(body.as_bytes()).unwrap_err();
        assert_eq!(refusal.reason, Reason::PushMalformed);
    }
    let mut large = revocation_body(&jws);
    large.resize(64 * 1024 + 1, b' ');
    assert_eq!(RevocationPush::parse(&large).unwrap_err().reason, Reason::PushTooLarge);
}

fn list(seq: u64, entries: &[(Selector, UnixTime)]) -> RevocationDraft {
    let issuer = Issuer::new(CONTROL).unwrap();
    RevocationDraft::list(&issuer, &HostId::new(HOST).unwrap(), seq, entries, NOW)
}

fn read(draft: &RevocationDraft, last: Option<u64>) -> Result<VerifiedRevocationList, Reason> {
    let jws = WORLD.ed25519.sign(draft).unwrap();
    let list = RevocationList::parse(jws.as_bytes()).unwrap();
    list.verify(&WORLD.keys, &WORLD.policy, last, NOW).map_err(|refusal| refusal.reason)
}

#[test]
fn a_signed_list_revokes_what_it_names() {
    let grant = Attempt::new().admitted();
    let subject = Selector::Sub(Subject::new(USER).unwrap());
    let read_one = |before| read(&list(3, &[(subject.clone(), before)]), None).unwrap();
    assert!(read_one(NOW).revokes(&grant));
    assert!(!read_one(UnixTime(NOW.0 - 1)).revokes(&grant));
    let empty = read(&list(3, &[]), None).unwrap();
    assert!(!empty.revokes(&grant) && empty.entries().is_empty());
}

#[test]
fn a_list_never_goes_back() {
    assert_eq!(read(&list(3, &[]), Some(3)).unwrap().seq(), 3);
    assert_eq!(read(&list(3, &[]), Some(2)).unwrap().seq(), 3);
    assert_eq!(read(&list(3, &[]), Some(4)).unwrap_err(), Reason::RevocationNotNewer);
}

#[test]
fn a_list_is_stale_after_two_minutes() {
    let fresh = read(&list(3, &[]).set("exp", NOW.0 + 3600), None).unwrap();
    assert!(!fresh.is_stale(UnixTime(NOW.0 + 119)));
    assert!(fresh.is_stale(UnixTime(NOW.0 + 120)));
    let short = read(&list(3, &[]).set("exp", NOW.0 + 10), None).unwrap();
    assert!(short.is_stale(UnixTime(NOW.0 + 10)));
}

#[test]
fn a_list_is_strict_and_bounded() {
    for claim in ["ver", "iss", "aud", "iat", "exp", "seq", "revoked"] {
        assert_eq!(read(&list(3, &[]).without(claim), None).unwrap_err(), Reason::ClaimsMalformed);
    }
    for revoked in [
        json!({}),
        json!([{}]),
        json!([{ "revoke": { "all": true } }]),
        json!([{ "issued_before": 1 }]),
    ] {
        let draft = list(3, &[]).set("revoked", revoked);
        assert_eq!(read(&draft, None).unwrap_err(), Reason::ClaimsMalformed);
    }
    assert_eq!(read(&list(3, &[]).set("aud", "x"), None).unwrap_err(), Reason::AudienceMismatch);
    assert_eq!(read(&list(3, &[]).set("exp", NOW.0), None).unwrap_err(), Reason::Expired);
    let large = RevocationList::parse(&vec![b'a'; 1024 * 1024 + 1]).unwrap_err();
    assert_eq!(large.reason, Reason::PushTooLarge);
}
