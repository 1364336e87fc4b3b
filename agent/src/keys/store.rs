//! The issuer's keys as the rest of the daemon sees them: one task fetches, everybody reads.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use grantd_grant::{KeyId, OktaKeys};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::cache::{KeyCache, Lookup};
use super::fetch::{FetchError, Fetched, Fetcher};
use crate::clock::Clock;
use crate::config::OktaConfig;
use crate::text::chain;

/// Look-ups that may wait for the task at once; further ones wait to be let in.
const MAX_WAITING: usize = 256;
/// Withdrawn keys that may wait for the enforcer; further ones wait inside the task.
const MAX_WITHDRAWN: usize = 64;
/// Longest sleep of the task: timers stand still while the machine is suspended, so what is due is
/// looked at again this often.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Why no set with a key can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyLookupError {
    /// The issuer does not publish the key, as far as it may be asked now.
    #[error("the issuer does not publish this key")]
    Unknown,
    /// No fetch has succeeded for longer than keys may be used.
    #[error("the issuer's keys could not be fetched for too long")]
    Stale,
}

/// The state of the keys, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OktaKeyStatus {
    /// Keys of the latest set.
    pub keys: usize,
    /// Since the latest set was fetched; `None` before the first.
    pub age: Option<Duration>,
    /// Fetches that failed since the last that did not.
    pub failures: u32,
    /// Whether tokens can be verified now.
    pub usable: bool,
}

/// A handle on the issuer's keys. Cheap to clone; the task ends when the last one is dropped.
#[derive(Clone)]
pub struct OktaKeyStore {
    cache: watch::Receiver<Arc<KeyCache>>,
    lookups: mpsc::Sender<Waiting>,
    clock: Arc<dyn Clock>,
}

/// The task that fetches. Nothing happens until [`Self::run`] is awaited.
pub struct OktaKeyTask {
    cache: KeyCache,
    published: watch::Sender<Arc<KeyCache>>,
    lookups: mpsc::Receiver<Waiting>,
    withdrawn: mpsc::Sender<KeyId>,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
}

struct Waiting {
    kid: KeyId,
    reply: oneshot::Sender<Result<Arc<OktaKeys>, KeyLookupError>>,
}

impl OktaKeyStore {
    /// A store for one issuer. `relied_on` are the keys behind grants in force at start.
    ///
    /// The receiver yields every key that the issuer withdraws: the grants whose token it signed must
    /// end. None is dropped: a receiver that lags only delays further reports.
    ///
    /// # Errors
    /// [`FetchError::Ca`], [`FetchError::NoAuthority`] or [`FetchError::Client`].
    pub fn new(
        okta: &OktaConfig,
        clock: Arc<dyn Clock>,
        relied_on: impl IntoIterator<Item = KeyId>,
    ) -> Result<(Self, OktaKeyTask, mpsc::Receiver<KeyId>), FetchError> {
        let fetcher = Fetcher::new(okta)?;
        let cache = KeyCache::new(okta.staleness, relied_on);
        let (published, reader) = watch::channel(Arc::new(cache.clone()));
        let (sender, lookups) = mpsc::channel(MAX_WAITING);
        let (withdrawn, reports) = mpsc::channel(MAX_WITHDRAWN);
        let store = Self { cache: reader, lookups: sender, clock: Arc::clone(&clock) };
        let task = OktaKeyTask { cache, published, lookups, withdrawn, fetcher, clock };
        Ok((store, task, reports))
    }

    /// The latest set. Never waits.
    ///
    /// # Errors
    /// [`KeyLookupError::Stale`].
    pub fn current(&self) -> Result<Arc<OktaKeys>, KeyLookupError> {
        self.cache.borrow().current(self.clock.now().boot_ns).ok_or(KeyLookupError::Stale)
    }

    /// A set that has this key, fetching once if need be. All who ask at the same time share one fetch.
    /// A set with a key that the issuer is taking away is for verifying tokens of that key only.
    ///
    /// # Errors
    /// [`KeyLookupError`].
    pub async fn resolve(&self, kid: &KeyId) -> Result<Arc<OktaKeys>, KeyLookupError> {
        let lookup = self.cache.borrow().lookup(kid, self.clock.now().boot_ns);
        match lookup {
            Lookup::Found(keys) => return Ok(keys),
            Lookup::Unknown => return Err(KeyLookupError::Unknown),
            Lookup::Stale => return Err(KeyLookupError::Stale),
            Lookup::Fetch => {}
        }
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { kid: kid.clone(), reply };
        // A task that is gone can fetch nothing: nothing is known any more.
        self.lookups.send(waiting).await.map_err(|_| KeyLookupError::Stale)?;
        answer.await.unwrap_or(Err(KeyLookupError::Stale))
    }

    /// The state of the keys.
    #[must_use]
    pub fn status(&self) -> OktaKeyStatus {
        let now = self.clock.now().boot_ns;
        let cache = self.cache.borrow();
        let current = cache.current(now);
        OktaKeyStatus {
            keys: current.as_ref().map_or(0, |keys| keys.len()),
            age: cache.fetched_at().map(|at| Duration::from_nanos(now.saturating_sub(at))),
            failures: cache.failures(),
            usable: current.is_some(),
        }
    }

    /// Waits until a set was fetched or a fetch has failed: for a start that wants to say which.
    pub async fn first_round(&mut self) {
        let done = |cache: &Arc<KeyCache>| cache.fetched_at().is_some() || cache.failures() > 0;
        let _ = self.cache.wait_for(done).await;
    }
}

/// A round under way. It owns the fetcher and hands it back.
type Round = Pin<Box<dyn Future<Output = (Fetcher, Result<Fetched, FetchError>)> + Send>>;

/// What the task does now.
enum Activity {
    Idle(Fetcher),
    /// `refetch`: a look-up caused this round.
    Fetching {
        round: Round,
        refetch: bool,
    },
    /// Between two states; never seen.
    Moving,
}

impl OktaKeyTask {
    /// Fetches when due or asked to, until every [`OktaKeyStore`] is gone.
    pub async fn run(self) {
        let Self { cache, published, mut lookups, withdrawn, fetcher, clock } = self;
        let mut task = Running {
            cache,
            published,
            clock,
            activity: Activity::Idle(fetcher),
            waiting: Vec::new(),
            unreported: BTreeSet::new(),
        };
        loop {
            task.start_if_due();
            let (due, idle) = (task.until_due(), task.activity.is_idle());
            tokio::select! {
                lookup = lookups.recv(), if task.waiting.len() < MAX_WAITING => match lookup {
                    Some(lookup) => task.asked(lookup),
                    None => return,
                },
                (fetcher, result) = task.activity.round() => task.finished(fetcher, result),
                () = sleep(due), if idle => {}
                Ok(place) = withdrawn.reserve(), if !task.unreported.is_empty() => {
                    if let Some(kid) = task.unreported.pop_first() {
                        place.send(kid);
                    }
                }
            }
        }
    }
}

struct Running {
    cache: KeyCache,
    published: watch::Sender<Arc<KeyCache>>,
    clock: Arc<dyn Clock>,
    activity: Activity,
    waiting: Vec<Waiting>,
    unreported: BTreeSet<KeyId>,
}

impl Running {
    fn now(&self) -> u64 {
        self.clock.now().boot_ns
    }

    fn until_due(&self) -> Duration {
        self.cache.until_next_fetch(self.now()).min(MAX_SLEEP)
    }

    fn start_if_due(&mut self) {
        if self.activity.is_idle() && self.cache.until_next_fetch(self.now()).is_zero() {
            self.activity.start(false);
        }
    }

    /// A look-up that the handle could not answer itself.
    fn asked(&mut self, lookup: Waiting) {
        let now = self.now();
        let answer = match self.cache.lookup(&lookup.kid, now) {
            Lookup::Found(keys) => Ok(keys),
            _ if !self.activity.is_idle() => return self.waiting.push(lookup),
            Lookup::Unknown => Err(KeyLookupError::Unknown),
            Lookup::Stale => Err(KeyLookupError::Stale),
            Lookup::Fetch => {
                self.cache.refetching(now);
                self.activity.start(true);
                self.publish();
                return self.waiting.push(lookup);
            }
        };
        let _ = lookup.reply.send(answer);
    }

    fn finished(&mut self, fetcher: Fetcher, result: Result<Fetched, FetchError>) {
        let refetch = matches!(self.activity, Activity::Fetching { refetch: true, .. });
        self.activity = Activity::Idle(fetcher);
        let now = self.now();
        let succeeded = result.is_ok();
        match result {
            Ok(fetched) => {
                if self.cache.failures() > 0 {
                    tracing::info!("the issuer's keys can be fetched again");
                }
                let Fetched { keys, max_age } = fetched;
                let withdrawn = self.cache.fetched(keys, max_age, now, entropy());
                for kid in &withdrawn {
                    tracing::warn!(%kid, "the issuer has withdrawn a key: grants that rest on it end");
                }
                self.unreported.extend(withdrawn);
            }
            Err(error) => {
                // One line per outage: retries go on for as long as it lasts.
                if self.cache.failures() == 0 {
                    tracing::warn!(error = %chain(&error), "the issuer's keys cannot be fetched");
                }
                self.cache.failed(now, entropy());
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        if refetch && succeeded {
            for lookup in &waiting {
                if !matches!(self.cache.lookup(&lookup.kid, now), Lookup::Found(_)) {
                    self.cache.missed(lookup.kid.clone(), now);
                }
            }
        }
        self.publish();
        // Those who waited for a regular round may now cause one of their own.
        waiting.into_iter().for_each(|lookup| self.asked(lookup));
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.cache.clone()));
    }
}

impl Activity {
    const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    fn start(&mut self, refetch: bool) {
        *self = match std::mem::replace(self, Self::Moving) {
            Self::Idle(mut fetcher) => {
                let round = Box::pin(async move {
                    let result = fetcher.fetch().await;
                    (fetcher, result)
                });
                Self::Fetching { round, refetch }
            }
            busy @ (Self::Fetching { .. } | Self::Moving) => busy,
        };
    }

    /// The end of the round under way; never, if there is none.
    async fn round(&mut self) -> (Fetcher, Result<Fetched, FetchError>) {
        match self {
            Self::Fetching { round, .. } => round.as_mut().await,
            Self::Idle(_) | Self::Moving => std::future::pending().await,
        }
    }
}

/// Randomness for jitter; without any, all hosts fetch at the same pace, which is no worse.
fn entropy() -> u64 {
    let mut bytes = [0; 8];
    let _ = rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
