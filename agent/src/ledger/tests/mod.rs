//! What the ledger promises, by hand and against a model.

mod model;
mod opening;
mod support;

use grantd_grant::{GrantFacts, ReplayAnswer, Selector, UnixTime};
use support::*;

use super::*;

#[test]
fn a_new_grant_is_accepted_once_and_then_known() {
    let mut home = Home::fresh();
    let grant = grant("g1").make();
    assert_eq!(home.replay(&grant), ReplayAnswer::New);
    home.accept(grant.clone()).unwrap();
    assert_eq!(home.replay(&grant), ReplayAnswer::Same, "a re-push would be programmed twice");
    assert_eq!(home.get(&id("g1")).unwrap().state, State::Accepted);
}

#[test]
fn the_same_jti_with_other_content_is_told_apart() {
    let mut home = Home::fresh();
    home.accept(grant("g1").make()).unwrap();
    let forged = grant("g1").hash(9).make();
    assert_eq!(home.replay(&forged), ReplayAnswer::OtherHash);
    assert!(matches!(home.accept(forged), Err(AcceptError::Replay(ReplayAnswer::OtherHash))));
}

#[test]
fn an_ended_grant_does_not_come_back_nor_count_as_in_force() {
    let mut home = Home::fresh();
    let grant = grant("g1").make();
    home.accept(grant.clone()).unwrap();
    home.end(&id("g1"), EndCause::Expired, at(NOW)).unwrap();
    assert_eq!(home.replay(&grant), ReplayAnswer::Revoked);
    assert!(home.accept(grant).is_err(), "an ended grant was accepted again");
    assert_eq!(home.count(), 0);
}

#[test]
fn the_first_cause_of_an_end_stays() {
    let mut home = Home::fresh();
    home.accept(grant("g1").make()).unwrap();
    home.end(&id("g1"), EndCause::Revoked, at(NOW)).unwrap();
    home.end(&id("g1"), EndCause::Expired, at(NOW + 9)).unwrap();
    let state = home.find(&id("g1")).unwrap().unwrap().state;
    assert_eq!(state, State::Ended { cause: EndCause::Revoked, at_unix_ms: NOW * 1000 });
}

#[test]
fn an_abandoned_grant_can_be_pushed_again_but_one_in_force_cannot_be_abandoned() {
    let mut home = Home::fresh();
    home.accept(grant("g1").make()).unwrap();
    home.abandon(&id("g1")).unwrap();
    assert_eq!(home.replay(&grant("g1").make()), ReplayAnswer::New);
    home.accept(grant("g1").make()).unwrap();
    home.mark_in_force(&id("g1"), None, at(NOW)).unwrap();
    home.abandon(&id("g1")).unwrap();
    assert_eq!(home.replay(&grant("g1").make()), ReplayAnswer::Same);
}

#[test]
fn a_renewal_ends_what_it_replaces_in_the_same_step() {
    let mut home = Home::fresh();
    home.accept(grant("old").make()).unwrap();
    home.mark_in_force(&id("old"), None, at(NOW)).unwrap();
    home.accept(grant("new").make()).unwrap();
    home.mark_in_force(&id("new"), Some(&id("old")), at(NOW)).unwrap();
    let home = home.reopen();
    assert_eq!(home.live().map(|g| g.id().as_str()).collect::<Vec<_>>(), ["new"]);
    let old = home.find(&id("old")).unwrap().unwrap().state;
    assert!(matches!(old, State::Ended { cause: EndCause::Replaced, .. }), "{old:?}");
}

#[test]
fn every_selector_of_a_revocation_ends_and_refuses_what_it_means_and_nothing_else() {
    let selectors = [
        Selector::Jti(id("g1")),
        Selector::Sub("sub-a".parse().unwrap()),
        Selector::Cid("cid-a".parse().unwrap()),
        Selector::Act("act-a".parse().unwrap()),
        Selector::Txn("txn-a".parse().unwrap()),
        Selector::Workload("work-a".parse().unwrap()),
        Selector::All,
    ];
    for selector in selectors {
        let mut home = Home::fresh();
        home.accept(grant("g1").of('a').make()).unwrap();
        home.accept(grant("g2").of('b').make()).unwrap();
        let revocation = revocation("r1", 1, std::slice::from_ref(&selector), NOW);
        let Revoked::Applied { ended } = home.revoke(&revocation, at(NOW)).unwrap() else {
            panic!("{selector} was not applied");
        };
        let hit: Vec<_> = ended.iter().map(|g| g.id().as_str()).collect();
        let all = selector == Selector::All;
        assert_eq!(hit, if all { vec!["g1", "g2"] } else { vec!["g1"] }, "{selector}");
        let home = home.reopen();
        assert_eq!(home.count(), if all { 0 } else { 1 }, "{selector} came back after a restart");
        if matches!(selector, Selector::Jti(_)) {
            assert_eq!(home.replay(&grant("g1").of('a').make()), ReplayAnswer::Revoked);
            continue;
        }
        let before = grant("g3").of('a').make();
        assert_eq!(home.replay(&before), ReplayAnswer::SubjectRevoked, "{selector}");
        let newer = grant("g4").of('a').issued(NOW + 1).make();
        assert_eq!(home.replay(&newer), ReplayAnswer::New, "{selector} refuses for ever");
    }
}

#[test]
fn a_jti_can_be_revoked_before_the_grant_arrives() {
    let mut home = Home::fresh();
    let revocation = revocation("r1", 1, &[Selector::Jti(id("early"))], NOW);
    home.revoke(&revocation, at(NOW)).unwrap();
    assert_eq!(home.replay(&grant("early").issued(NOW + 5).make()), ReplayAnswer::Revoked);
}

#[test]
fn a_revocation_leaves_grants_alone_that_were_issued_after_its_instant() {
    let mut home = Home::fresh();
    home.accept(grant("before").issued(NOW - 20).make()).unwrap();
    home.accept(grant("after").issued(NOW - 5).make()).unwrap();
    home.revoke(&revocation("r1", 1, &[Selector::All], NOW - 10), at(NOW)).unwrap();
    assert_eq!(home.live().map(|g| g.id().as_str()).collect::<Vec<_>>(), ["after"]);
}

#[test]
fn a_revocation_pushed_again_is_fine_and_one_out_of_order_counts_all_the_same() {
    let mut home = Home::fresh();
    let first = revocation("r1", u64::MAX, &[Selector::Jti(id("x"))], NOW);
    home.revoke(&first, at(NOW)).unwrap();
    let mut home = home.reopen();
    assert_eq!(home.revoke(&first, at(NOW)).unwrap(), Revoked::Repeated);
    home.accept(grant("g1").make()).unwrap();
    let later = revocation("r2", 3, &[Selector::All], NOW);
    let Revoked::Applied { ended } = home.revoke(&later, at(NOW)).unwrap() else {
        panic!("one high seq blocked every revocation after it")
    };
    assert_eq!(ended.len(), 1);
    assert_eq!(home.revocation_seq(), u64::MAX);
}

#[test]
fn what_a_failing_disk_did_not_take_is_over_all_the_same_and_written_once_it_works() {
    let mut home = Home::fresh();
    for name in ["ended", "revoked"] {
        home.accept(grant(name).make()).unwrap();
    }
    let repair = home.break_disk();
    assert!(home.end(&id("ended"), EndCause::Expired, at(NOW)).is_err());
    let selector = Selector::Jti(id("revoked"));
    assert!(home.revoke_locally(selector, at(NOW)).is_err());
    // The marker alone is taken for frozen: what stands in its place says so as well.
    home.freeze().unwrap_err();
    assert_eq!(home.count(), 0, "an end waited for the disk");
    assert!(home.frozen(), "the kill switch waited for the disk");
    assert_eq!(home.replay(&grant("revoked").make()), ReplayAnswer::Revoked);
    assert!(home.settle().is_err() && !home.settled());
    repair();
    home.settle().unwrap();
    let home = home.reopen();
    assert_eq!(home.count(), 0, "a restart brought back what was over");
    assert!(home.frozen(), "a restart thawed the host");
}

#[test]
fn a_grant_that_a_failing_disk_did_not_take_is_not_there_after_a_restart_either() {
    let mut home = Home::fresh();
    let repair = home.break_disk();
    let spec = grant("g1").make();
    let placement = placement(u64::MAX);
    assert!(home.accept_many([(spec.clone(), placement)]).is_err());
    assert_eq!(home.count(), 0);
    repair();
    home.settle().unwrap();
    let mut home = home.reopen();
    assert_eq!(home.count(), 0);
    home.accept(spec).unwrap();
}

#[test]
fn a_local_revocation_ends_also_what_was_issued_ahead_of_our_clock() {
    let mut home = Home::fresh();
    home.accept(grant("ahead").issued(NOW + 20).make()).unwrap();
    let ended = home.revoke_locally(Selector::All, at(NOW)).unwrap();
    assert_eq!(ended.len(), 1, "the kill switch left a grant in force");
    let state = home.find(&id("ahead")).unwrap().unwrap().state;
    assert!(matches!(state, State::Ended { cause: EndCause::RevokedLocally, .. }));
    assert_eq!(home.replay(&grant("next").issued(NOW + 1).make()), ReplayAnswer::New);
}

#[test]
fn a_frozen_host_stays_frozen_over_a_restart() {
    let mut home = Home::fresh();
    home.freeze().unwrap();
    let mut home = home.reopen();
    assert!(home.frozen());
    assert!(matches!(home.accept(grant("g1").make()), Err(AcceptError::Frozen)));
    home.thaw().unwrap();
    home.accept(grant("g1").make()).unwrap();
}

#[test]
fn a_grant_is_remembered_until_five_minutes_after_its_end_and_then_below_the_floor() {
    let mut home = Home::fresh();
    let grant = grant("g1").ttl(60).make();
    home.accept(grant.clone()).unwrap();
    home.end(&id("g1"), EndCause::Expired, at(NOW + 60)).unwrap();
    assert_eq!(home.prune(at(NOW + 60 + 300)).unwrap(), 0, "forgotten too early");
    assert_eq!(home.replay(&grant), ReplayAnswer::Revoked);
    assert_eq!(home.prune(at(NOW + 60 + 301)).unwrap(), 1);
    assert_eq!(home.remembered(), 0);
    let home = home.reopen();
    let answer = home.replay(&grant);
    assert_eq!(answer, ReplayAnswer::BelowFloor, "a clock that is set back lets it in again");
}

#[test]
fn pruning_never_drops_a_live_grant() {
    let mut home = Home::fresh();
    home.accept(grant("g1").ttl(60).make()).unwrap();
    assert_eq!(home.prune(at(NOW + 10_000)).unwrap(), 0);
    assert_eq!(home.count(), 1);
}

#[test]
fn a_revocation_is_forgotten_only_when_a_floor_has_taken_its_place() {
    let mut home = Home::fresh();
    let sub = Selector::Sub("sub-a".parse().unwrap());
    home.revoke(&revocation("r1", 1, &[sub], NOW), at(NOW)).unwrap();
    home.prune(at(NOW + 3_900)).unwrap();
    assert_eq!(home.replay(&grant("g").of('a').make()), ReplayAnswer::SubjectRevoked);
    home.prune(at(NOW + 4_000)).unwrap();
    assert_eq!(home.replay(&grant("g").of('a').make()), ReplayAnswer::BelowFloor);
    assert_eq!(home.floor(), UnixTime(NOW + 1));
}

#[test]
fn workload_ids_are_stable_distinct_and_never_reserved_ones() {
    let mut home = Home::fresh();
    let names = ["a", "b", "c"].map(|name| name.parse().unwrap());
    let ids = names.clone().map(|name| home.workload_id(&name).unwrap());
    assert_eq!(ids, [16, 17, 18]);
    let mut home = home.reopen();
    assert_eq!(home.workload_id(&names[1]).unwrap(), 17, "the kernel's maps would name another");
    assert_eq!(home.workload_id(&"d".parse().unwrap()).unwrap(), 19);
}

#[test]
fn deadlines_are_ordered_and_only_ever_shorten() {
    let mut home = Home::fresh();
    home.accept_until(grant("late").make(), 900).unwrap();
    home.accept_until(grant("soon").make(), 100).unwrap();
    assert_eq!(home.next_deadline_boot_ns(), Some(100));
    home.shorten([(&id("late"), 50), (&id("soon"), 800)]).unwrap();
    let home = home.reopen();
    assert_eq!(home.next_deadline_boot_ns(), Some(50));
    assert_eq!(home.get(&id("soon")).unwrap().placement.deadline_boot_ns, 100);
}

#[test]
fn a_grant_is_past_by_whichever_clock_comes_first() {
    let mut home = Home::fresh();
    home.accept_until(grant("g1").make(), 100).unwrap();
    let tai = home.get(&id("g1")).unwrap().placement.deadline_tai_ns;
    let now = |boot_ns, tai_ns| Now { boot_ns, tai_ns, wall_ns: 0 };
    assert_eq!(home.past(now(99, tai - 1)).count(), 0);
    assert_eq!(home.past(now(100, 0)).count(), 1);
    assert_eq!(home.past(now(0, tai)).count(), 1);
}

#[test]
fn live_grants_are_listed_page_by_page_in_order() {
    let mut home = Home::fresh();
    for name in ["c", "a", "b"] {
        home.accept(grant(name).make()).unwrap();
    }
    let after_a: Vec<_> = home.live_after(&id("a")).map(|g| g.id().as_str()).collect();
    assert_eq!(after_a, ["b", "c"]);
}

#[test]
fn the_file_holds_no_token_and_no_signature() {
    let mut home = Home::fresh();
    home.accept(grant("g1").make()).unwrap();
    let bytes = std::fs::read(home.path().join("ledger.redb")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("g1"), "the grant is not where this test looks");
    assert!(!text.contains("eyJ"), "something that looks like a JWS lies in the ledger");
}

#[test]
fn a_query_says_what_the_grant_says() {
    let grant = grant("g1").of('a').make();
    let query = ReplayQuery::new(&grant, *grant.jws_sha256());
    assert_eq!(GrantFacts::id(&query), GrantFacts::id(&grant));
    assert_eq!(query.txn(), GrantFacts::txn(&grant));
    assert_eq!(query.sub(), GrantFacts::sub(&grant));
    assert_eq!(query.cid(), GrantFacts::cid(&grant));
    assert_eq!(GrantFacts::act(&query), GrantFacts::act(&grant));
    assert_eq!(query.workload(), GrantFacts::workload(&grant));
    assert_eq!(query.issued_at(), GrantFacts::issued_at(&grant));
}
