//! The rules of the cache, without waiting and without a network.

use std::time::Duration;

use super::super::cache::*;
use super::{keys, kid};

const SECOND: u64 = 1_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn cache() -> KeyCache {
    KeyCache::new(DAY, [])
}

fn found(cache: &KeyCache, id: &str, now: u64) -> bool {
    matches!(cache.lookup(&kid(id), now), Lookup::Found(set) if set.contains(&kid(id)))
}

#[test]
fn before_the_first_fetch_nothing_can_be_verified() {
    let cache = cache();
    assert!(cache.current(0).is_none());
    assert_eq!(cache.until_next_fetch(0), Duration::ZERO, "the first fetch is due at once");
    assert!(matches!(cache.lookup(&kid("a"), 0), Lookup::Fetch));
}

#[test]
fn fetches_follow_max_age_but_never_hammer_the_issuer_or_wait_more_than_an_hour() {
    for (max_age, least, most) in [
        (None, 3240, 3600),
        (Some(0), 54, 60),
        (Some(600), 540, 600),
        (Some(5_000_000), 3240, 3600),
    ] {
        for entropy in [0, 1, 50, 99, u64::MAX] {
            let mut cache = cache();
            cache.fetched(keys(&["a"]), max_age.map(Duration::from_secs), 0, entropy);
            let wait = cache.until_next_fetch(0).as_secs();
            assert!((least..=most).contains(&wait), "max-age {max_age:?} waits {wait} s");
        }
    }
    let mut spread = cache();
    spread.fetched(keys(&["a"]), None, 0, 99);
    let mut plain = cache();
    plain.fetched(keys(&["a"]), None, 0, 0);
    assert_ne!(spread.until_next_fetch(0), plain.until_next_fetch(0), "all hosts fetch at once");
}

#[test]
fn failing_fetches_are_tried_again_ever_more_slowly_but_at_least_every_five_minutes() {
    let mut cache = cache();
    let waits: Vec<u64> = (0..8)
        .map(|_| {
            cache.failed(0, 0);
            cache.until_next_fetch(0).as_secs()
        })
        .collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(cache.failures(), 8);
    cache.fetched(keys(&["a"]), None, 0, 0);
    assert_eq!(cache.failures(), 0);
}

#[test]
fn an_issuer_that_is_down_costs_nothing_for_a_day_and_then_new_grants_are_refused() {
    let mut cache = cache();
    cache.fetched(keys(&["a"]), None, 0, 0);
    let day = 86_400 * SECOND;
    for hour in 1..24 {
        cache.failed(hour * 3600 * SECOND, 0);
    }
    assert!(found(&cache, "a", day - 1));
    assert!(cache.current(day).is_none(), "keys are used after their time");
    cache.refetching(day);
    assert!(matches!(cache.lookup(&kid("a"), day + SECOND), Lookup::Fetch), "may join the fetch");
    cache.failed(day + SECOND, 0);
    assert!(matches!(cache.lookup(&kid("a"), day + SECOND), Lookup::Stale));
    assert!(matches!(cache.lookup(&kid("a"), day + 10 * SECOND), Lookup::Fetch));
    cache.fetched(keys(&["a"]), None, day + 11 * SECOND, 0);
    assert!(found(&cache, "a", day + 12 * SECOND), "an issuer that is back is not used");
}

#[test]
fn tokens_with_made_up_key_ids_cost_the_issuer_one_fetch_in_ten_seconds() {
    let mut cache = cache();
    cache.fetched(keys(&["a"]), None, 0, 0);
    let mut fetches = 0;
    for tenth in 0..300 {
        let now = tenth * SECOND / 10;
        let made_up = kid(&format!("made-up-{tenth}"));
        if matches!(cache.lookup(&made_up, now), Lookup::Fetch) {
            fetches += 1;
            cache.refetching(now);
            cache.fetched(keys(&["a"]), None, now, 0);
            cache.missed(made_up, now);
        }
    }
    assert_eq!(fetches, 3, "in 30 seconds");
}

#[test]
fn a_missing_key_is_remembered_for_half_a_minute_and_then_asked_for_again() {
    let mut cache = cache();
    cache.fetched(keys(&["a"]), None, 0, 0);
    cache.refetching(0);
    cache.fetched(keys(&["a"]), None, 0, 0);
    cache.missed(kid("b"), 0);
    for second in [0, 1, 10, 29] {
        assert!(matches!(cache.lookup(&kid("b"), second * SECOND), Lookup::Unknown), "{second} s");
    }
    assert!(matches!(cache.lookup(&kid("c"), 10 * SECOND), Lookup::Fetch), "another key");
    assert!(matches!(cache.lookup(&kid("b"), 30 * SECOND), Lookup::Fetch));
    cache.fetched(keys(&["a", "b"]), None, 5 * SECOND, 0);
    assert!(found(&cache, "b", 6 * SECOND), "a key that appeared stays unknown");
}

#[test]
fn the_memory_of_missing_keys_is_bounded() {
    let mut cache = cache();
    cache.fetched(keys(&["a"]), None, 0, 0);
    for n in 0..MAX_MISSES + 100 {
        cache.missed(kid(&format!("k{n}")), 0);
    }
    let far = (31) * SECOND;
    cache.missed(kid("later"), far);
    assert!(matches!(cache.lookup(&kid("later"), far), Lookup::Unknown), "room is made again");
}

#[test]
fn one_answer_without_a_key_is_not_a_withdrawal_but_two_are() {
    let mut cache = cache();
    cache.fetched(keys(&["a", "b"]), None, 0, 0);
    assert_eq!(cache.fetched(keys(&["b"]), None, 100 * SECOND, 0), []);
    assert!(found(&cache, "a", 100 * SECOND), "a lagging replica cuts everybody off");
    assert_eq!(
        cache.until_next_fetch(100 * SECOND),
        Duration::from_secs(10),
        "a withdrawal would be noticed only an hour later"
    );
    assert_eq!(cache.fetched(keys(&["b"]), None, 109 * SECOND, 0), [], "too soon to be sure");
    assert_eq!(cache.fetched(keys(&["b"]), None, 110 * SECOND, 0), [kid("a")]);
    assert!(!found(&cache, "a", 110 * SECOND), "a withdrawn key still verifies tokens");
    assert_eq!(cache.fetched(keys(&["b"]), None, 130 * SECOND, 0), [], "reported once");
}

#[test]
fn a_key_that_comes_back_was_never_withdrawn() {
    let mut cache = cache();
    cache.fetched(keys(&["a", "b"]), None, 0, 0);
    cache.fetched(keys(&["b"]), None, 100 * SECOND, 0);
    assert_eq!(cache.fetched(keys(&["a", "b"]), None, 120 * SECOND, 0), []);
    assert_eq!(cache.fetched(keys(&["b"]), None, 140 * SECOND, 0), [], "counting starts anew");
    assert_eq!(cache.fetched(keys(&["b"]), None, 150 * SECOND, 0), [kid("a")]);
}

#[test]
fn failed_fetches_withdraw_nothing() {
    let mut cache = cache();
    cache.fetched(keys(&["a"]), None, 0, 0);
    cache.fetched(keys(&["b"]), None, 100 * SECOND, 0);
    cache.failed(120 * SECOND, 0);
    assert!(found(&cache, "a", 130 * SECOND));
    assert_eq!(cache.fetched(keys(&["b"]), None, 140 * SECOND, 0), [kid("a")]);
}

#[test]
fn a_key_withdrawn_while_the_daemon_was_down_is_noticed() {
    let mut cache = KeyCache::new(DAY, [kid("old"), kid("kept")]);
    assert_eq!(cache.fetched(keys(&["kept"]), None, 0, 0), []);
    assert!(!found(&cache, "old", 0), "no set ever had it, so nothing can be verified with it");
    assert_eq!(cache.fetched(keys(&["kept"]), None, 10 * SECOND, 0), [kid("old")]);
}

#[test]
fn an_empty_set_withdraws_every_key() {
    let mut cache = cache();
    cache.fetched(keys(&["a", "b"]), None, 0, 0);
    cache.fetched(keys(&[]), None, 100 * SECOND, 0);
    assert_eq!(cache.fetched(keys(&[]), None, 111 * SECOND, 0), [kid("a"), kid("b")]);
}
