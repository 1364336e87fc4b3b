//! Check 10: what the ledger remembers.

use grantd_grant::{GrantFacts, PeerUris, Push, Reason, ReplayAnswer, ReplayOutcome, SignedGrant};

use crate::attempt::Attempt;
use crate::world::{NOW, WORLD};

fn signed(attempt: &Attempt) -> SignedGrant {
    let pusher = WORLD.policy.check_pusher(&PeerUris::new(attempt.peer.clone())).unwrap();
    let push = Push::parse(&attempt.body()).unwrap();
    push.verify(&pusher, &WORLD.keys, &WORLD.policy, NOW).unwrap()
}

#[test]
fn an_exact_repetition_is_accepted_without_effect() {
    let outcome = signed(&Attempt::new()).check_replay(ReplayAnswer::Same).unwrap_err();
    let ReplayOutcome::AlreadyAccepted(id) = outcome else { panic!("refused: {outcome:?}") };
    assert_eq!(id.as_str(), "01JDGRANT");
}

#[test]
fn a_repetition_has_the_same_hash_and_a_changed_grant_another() {
    let first = Attempt::new();
    let token = first.token();
    let same = Attempt::new().raw_token(token.clone());
    let other = Attempt::new().raw_token(token).claim("exp", NOW.0 + 601);
    assert_eq!(signed(&same).jws_sha256(), signed(&same).jws_sha256());
    assert_ne!(signed(&same).jws_sha256(), signed(&other).jws_sha256());
    assert_eq!(signed(&same).id(), signed(&other).id());
    assert_eq!(signed(&same).expires().0, NOW.0 + 600);
}

#[test]
fn what_the_ledger_refuses_is_refused_with_its_status() {
    for (answer, reason, status) in [
        (ReplayAnswer::OtherHash, Reason::JtiReused, 409),
        (ReplayAnswer::Revoked, Reason::GrantRevoked, 410),
        (ReplayAnswer::BelowFloor, Reason::BelowFloor, 410),
        (ReplayAnswer::SubjectRevoked, Reason::SubjectRevoked, 410),
    ] {
        let mut attempt = Attempt::new();
        attempt.replay = answer;
        attempt.refused(reason);
        assert_eq!(reason.http_status(), status, "{reason}");
        attempt.replay = ReplayAnswer::New;
        attempt.admitted();
    }
}

#[test]
fn what_revocations_select_by_is_known_before_the_ledger_is_asked() {
    let grant = signed(&Attempt::new());
    assert_eq!(grant.sub().as_str(), crate::world::USER);
    assert_eq!(grant.cid().unwrap().as_str(), crate::world::CLIENT);
    assert_eq!(grant.act().unwrap().as_str(), crate::world::ACTOR);
    assert_eq!(grant.txn().as_str(), "req-7781");
    assert_eq!(grant.workload().as_str(), "coding-agent");
    assert_eq!(grant.issued_at(), NOW);
}
