//! When to fetch, which keys count, and which are gone. Pure: time and randomness are arguments.
//!
//! All times are nanoseconds of `CLOCK_BOOTTIME`, so that neither a suspend nor a step of the wall clock
//! makes keys younger than they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use grantd_grant::{KeyId, OktaKeys};

/// Longest time between two fetches while all goes well.
pub(super) const MAX_REFRESH: Duration = Duration::from_secs(3600);
/// Shortest, whatever `max-age` the issuer gives.
pub(super) const MIN_REFRESH: Duration = Duration::from_secs(60);
/// Least time between two fetches that unknown key ids cause.
pub(super) const REFETCH_INTERVAL: Duration = Duration::from_secs(10);
/// How long a key id that a fetch did not bring stays unknown without another fetch.
pub(super) const MISS_MEMORY: Duration = Duration::from_secs(30);
/// Two successful fetches this far apart must both lack a key before it counts as withdrawn: one
/// answer may come from a replica that lags behind.
pub(super) const WITHDRAWN_AFTER: Duration = Duration::from_secs(10);
/// First pause after a fetch that failed; doubles with each further failure.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(10);
/// Longest pause between fetches that fail.
pub(super) const MAX_RETRY: Duration = Duration::from_secs(300);
/// Most key ids remembered as missing. Beyond, the id is simply not remembered.
pub(super) const MAX_MISSES: usize = 1024;

/// What a look-up means.
#[derive(Debug)]
pub(super) enum Lookup {
    /// This set has the key.
    Found(Arc<OktaKeys>),
    /// The issuer does not publish it, as far as may be asked now.
    Unknown,
    /// No set is fresh enough to say anything.
    Stale,
    /// Only a fetch can tell, and one may be made.
    Fetch,
}

/// One fetched set.
#[derive(Clone, Debug)]
struct Latest {
    keys: Arc<OktaKeys>,
    fetched_at: u64,
}

/// A key that the latest set lacks, but which is not withdrawn yet.
#[derive(Clone, Debug)]
struct Leaving {
    /// When a successful fetch first lacked it; `None` before any fetch.
    since: Option<u64>,
    /// The last set that had it; `None` for a key known only from grants in force.
    set: Option<Arc<OktaKeys>>,
}

/// The keys and what is known about them.
#[derive(Clone, Debug)]
pub(super) struct KeyCache {
    staleness: Duration,
    latest: Option<Latest>,
    leaving: BTreeMap<KeyId, Leaving>,
    misses: BTreeMap<KeyId, u64>,
    last_refetch: Option<u64>,
    /// Whether a fetch that a look-up caused is under way: then others may join it.
    refetching: bool,
    failures: u32,
    next_fetch: u64,
}

impl KeyCache {
    /// An empty cache that is due for a fetch. `relied_on` are the keys behind grants in force: they
    /// count as withdrawn if fetches lack them, though no set of this run ever had them.
    pub(super) fn new(staleness: Duration, relied_on: impl IntoIterator<Item = KeyId>) -> Self {
        let unseen = Leaving { since: None, set: None };
        Self {
            staleness,
            latest: None,
            leaving: relied_on.into_iter().map(|kid| (kid, unseen.clone())).collect(),
            misses: BTreeMap::new(),
            last_refetch: None,
            refetching: false,
            failures: 0,
            next_fetch: 0,
        }
    }

    /// The latest set, unless it is stale.
    pub(super) fn current(&self, now: u64) -> Option<Arc<OktaKeys>> {
        let latest = self.latest.as_ref()?;
        let fresh = now.saturating_sub(latest.fetched_at) < nanos(self.staleness);
        fresh.then(|| Arc::clone(&latest.keys))
    }

    /// A set that has the key, or what to do about it.
    pub(super) fn lookup(&self, kid: &KeyId, now: u64) -> Lookup {
        let may_fetch = self.refetching
            || self.last_refetch.is_none_or(|at| elapsed(at, now) >= REFETCH_INTERVAL);
        let Some(latest) = self.current(now) else {
            return if may_fetch { Lookup::Fetch } else { Lookup::Stale };
        };
        if latest.contains(kid) {
            return Lookup::Found(latest);
        }
        if let Some(set) = self.leaving.get(kid).and_then(|leaving| leaving.set.as_ref()) {
            return Lookup::Found(Arc::clone(set));
        }
        let missed = self.misses.get(kid).is_some_and(|at| elapsed(*at, now) < MISS_MEMORY);
        if missed || !may_fetch { Lookup::Unknown } else { Lookup::Fetch }
    }

    /// A fetch that a look-up caused begins.
    pub(super) fn refetching(&mut self, now: u64) {
        self.last_refetch = Some(now);
        self.refetching = true;
    }

    /// A fetch that a look-up caused has ended, and the issuer does not publish this key.
    pub(super) fn missed(&mut self, kid: KeyId, now: u64) {
        self.misses.retain(|_, at| elapsed(*at, now) < MISS_MEMORY);
        if self.misses.len() < MAX_MISSES {
            self.misses.insert(kid, now);
        }
    }

    /// A fetch succeeded. Returns the keys that are now withdrawn. `entropy` is any random number.
    pub(super) fn fetched(
        &mut self,
        keys: OktaKeys,
        max_age: Option<Duration>,
        now: u64,
        entropy: u64,
    ) -> Vec<KeyId> {
        let before = self.latest.take();
        if let Some(before) = before {
            for kid in before.keys.kids() {
                let leaving = Leaving { since: None, set: Some(Arc::clone(&before.keys)) };
                self.leaving.entry(kid.clone()).or_insert(leaving);
            }
        }
        self.leaving.retain(|kid, _| !keys.contains(kid));
        self.misses.retain(|kid, _| !keys.contains(kid));
        let withdrawn: Vec<KeyId> = self
            .leaving
            .iter_mut()
            .filter_map(|(kid, leaving)| {
                let since = *leaving.since.get_or_insert(now);
                (elapsed(since, now) >= WITHDRAWN_AFTER).then(|| kid.clone())
            })
            .collect();
        for kid in &withdrawn {
            self.leaving.remove(kid);
        }
        self.latest = Some(Latest { keys: Arc::new(keys), fetched_at: now });
        self.failures = 0;
        self.refetching = false;
        let wait = if self.leaving.is_empty() {
            shorten(max_age.unwrap_or(MAX_REFRESH).clamp(MIN_REFRESH, MAX_REFRESH), entropy)
        } else {
            WITHDRAWN_AFTER
        };
        self.next_fetch = now.saturating_add(nanos(wait));
        withdrawn
    }

    /// A fetch failed: what is known stays.
    pub(super) fn failed(&mut self, now: u64, entropy: u64) {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.refetching = false;
        let wait = shorten(doubled.min(MAX_RETRY), entropy);
        self.next_fetch = now.saturating_add(nanos(wait));
    }

    /// How long until the next regular fetch is due.
    pub(super) fn until_next_fetch(&self, now: u64) -> Duration {
        Duration::from_nanos(self.next_fetch.saturating_sub(now))
    }

    /// Fetches that failed since the last that did not.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// When the latest set was fetched.
    pub(super) fn fetched_at(&self) -> Option<u64> {
        self.latest.as_ref().map(|latest| latest.fetched_at)
    }
}

fn elapsed(since: u64, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(since))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Up to a tenth shorter, so that many hosts do not fetch at the same instant.
fn shorten(duration: Duration, entropy: u64) -> Duration {
    let thousandths = u32::try_from(entropy % 100).unwrap_or(0);
    duration.saturating_sub(duration / 1000 * thousandths)
}
