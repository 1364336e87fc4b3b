//! The task and its handle, against an issuer on loopback.

use std::sync::Arc;
use std::time::Duration;

use grantd_grant::KeyId;
use tokio::sync::mpsc;

use super::super::{KeyLookupError, OktaKeyStore};
use super::issuer::{FakeIssuer, KEYS, OAUTH, Reply};
use super::{FakeClock, kid};

/// A running store, its clock, and the reports of withdrawn keys.
struct Running {
    store: OktaKeyStore,
    clock: Arc<FakeClock>,
    withdrawn: mpsc::Receiver<KeyId>,
}

async fn start(issuer: &FakeIssuer, relied_on: &[&str]) -> Running {
    let clock = Arc::new(FakeClock::default());
    let relied_on = relied_on.iter().map(|id| kid(id));
    let (mut store, task, withdrawn) =
        OktaKeyStore::new(&issuer.config(), clock.clone(), relied_on).expect("store");
    tokio::spawn(task.run());
    store.first_round().await;
    Running { store, clock, withdrawn }
}

impl Running {
    /// Moves the clock past the rate limit and causes one fetch.
    async fn refetch(&self, round: u32) {
        self.clock.forward(11);
        let unknown = kid(&format!("unknown-{round}"));
        assert!(self.store.resolve(&unknown).await.is_err());
    }
}

#[tokio::test]
async fn keys_are_there_after_the_first_fetch() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let running = start(&issuer, &[]).await;
    assert!(running.store.current().expect("fresh").contains(&kid("a")));
    assert!(running.store.resolve(&kid("a")).await.expect("known").contains(&kid("a")));
    assert_eq!(issuer.asked(), [OAUTH, KEYS], "a known key costs no request");
    let status = running.store.status();
    assert!(status.usable);
    assert_eq!((status.keys, status.failures, status.age), (1, 0, Some(Duration::ZERO)));
}

#[tokio::test]
async fn an_unknown_key_that_the_issuer_has_meanwhile_is_found() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let running = start(&issuer, &[]).await;
    issuer.publish(&["a", "b"]);
    assert!(running.store.resolve(&kid("b")).await.expect("found").contains(&kid("b")));
    assert!(running.store.current().expect("fresh").contains(&kid("b")), "only for who asked");
}

#[tokio::test]
async fn an_unknown_key_that_the_issuer_does_not_have_costs_one_request() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let running = start(&issuer, &[]).await;
    issuer.asked();
    for _ in 0..50 {
        assert_eq!(running.store.resolve(&kid("b")).await.err(), Some(KeyLookupError::Unknown));
    }
    assert_eq!(issuer.asked(), [KEYS]);
    running.clock.forward(31);
    assert!(running.store.resolve(&kid("b")).await.is_err());
    assert_eq!(issuer.asked(), [KEYS], "it is asked for again after a while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_who_ask_at_once_share_one_request() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let running = start(&issuer, &[]).await;
    issuer.publish(&["a", "b"]);
    let slow = Reply { delay: Duration::from_millis(300), ..Reply::ok(super::jwks(&["a", "b"])) };
    issuer.set(KEYS, slow);
    issuer.asked();
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let store = running.store.clone();
            tokio::spawn(async move { store.resolve(&kid("b")).await })
        })
        .collect();
    for asked in asking {
        assert!(asked.await.expect("no panic").expect("found").contains(&kid("b")));
    }
    assert_eq!(issuer.asked(), [KEYS]);
}

#[tokio::test]
async fn a_failing_key_set_leaves_known_keys_usable_until_they_are_stale() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let running = start(&issuer, &[]).await;
    issuer.set(KEYS, Reply::status(503));
    running.refetch(1).await;
    assert_eq!(running.store.status().failures, 1);
    assert!(running.store.current().expect("still fresh").contains(&kid("a")));
    running.clock.forward(86_400);
    assert_eq!(running.store.current().err(), Some(KeyLookupError::Stale));
    assert_eq!(running.store.resolve(&kid("a")).await.err(), Some(KeyLookupError::Stale));
    assert!(!running.store.status().usable);
    running.clock.forward(11);
    issuer.publish(&["a"]);
    assert!(running.store.resolve(&kid("a")).await.is_ok(), "the issuer is back");
}

#[tokio::test]
async fn an_issuer_that_is_down_at_start_is_asked_again_when_a_token_comes() {
    let issuer = FakeIssuer::start(&["a"]).await;
    issuer.set(KEYS, Reply::status(500));
    let running = start(&issuer, &[]).await;
    assert_eq!(running.store.current().err(), Some(KeyLookupError::Stale));
    issuer.publish(&["a"]);
    assert!(running.store.resolve(&kid("a")).await.expect("found").contains(&kid("a")));
}

#[tokio::test]
async fn a_withdrawn_key_is_reported_once_and_no_longer_used() {
    let issuer = FakeIssuer::start(&["a", "b"]).await;
    let mut running = start(&issuer, &[]).await;
    issuer.publish(&["b"]);
    running.refetch(1).await;
    let leaving = running.store.resolve(&kid("a")).await.expect("one answer withdraws nothing");
    assert!(leaving.contains(&kid("a")));
    assert!(running.withdrawn.try_recv().is_err(), "grants end because of a lagging replica");
    running.refetch(2).await;
    assert_eq!(running.withdrawn.recv().await, Some(kid("a")));
    assert_eq!(running.store.resolve(&kid("a")).await.err(), Some(KeyLookupError::Unknown));
    running.refetch(3).await;
    assert!(running.withdrawn.try_recv().is_err());
}

#[tokio::test]
async fn a_key_of_grants_in_force_that_went_while_the_daemon_was_down_is_reported() {
    let issuer = FakeIssuer::start(&["b"]).await;
    let mut running = start(&issuer, &["gone", "b"]).await;
    running.refetch(1).await;
    assert_eq!(running.withdrawn.recv().await, Some(kid("gone")));
    assert!(running.withdrawn.try_recv().is_err());
}

#[tokio::test]
async fn many_withdrawals_wait_for_a_slow_receiver_and_none_is_lost() {
    let issuer = FakeIssuer::start(&["b"]).await;
    let gone: Vec<String> = (0..200).map(|n| format!("gone-{n:03}")).collect();
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    let mut running = start(&issuer, &gone).await;
    running.refetch(1).await;
    running.refetch(2).await;
    assert!(running.store.current().is_ok(), "a slow receiver blocks look-ups");
    for id in gone {
        assert_eq!(running.withdrawn.recv().await, Some(kid(id)));
    }
}

#[tokio::test]
async fn the_task_ends_with_its_last_handle() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let clock = Arc::new(FakeClock::default());
    let (mut store, task, _withdrawn) =
        OktaKeyStore::new(&issuer.config(), clock, []).expect("store");
    let task = tokio::spawn(task.run());
    store.first_round().await;
    drop(store);
    let ended = tokio::time::timeout(Duration::from_secs(5), task).await;
    assert!(ended.is_ok(), "the task outlives everybody who could use it");
}

#[tokio::test]
async fn regular_fetches_come_by_themselves() {
    let issuer = FakeIssuer::start(&["a"]).await;
    let headers = vec![("cache-control", "max-age=0".to_owned())];
    issuer.set(KEYS, Reply { headers, ..Reply::ok(super::jwks(&["a"])) });
    let running = start(&issuer, &[]).await;
    issuer.asked();
    issuer.publish(&["a", "b"]);
    running.clock.forward(61);
    // The look-up of a known key goes nowhere; only the due fetch can bring the other one.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    for _ in 0..100 {
        if running.store.current().is_ok_and(|keys| keys.contains(&kid("b"))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a new key is not noticed until a token names it: {:?}", issuer.asked());
}
