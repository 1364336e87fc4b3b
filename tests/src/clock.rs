//! The only file of this crate that reads a clock. The product takes time as an argument; its tests
//! measure it, and therefore have to read it somewhere.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::machine;

/// How often [`wait_until`] asks again.
const POLL: Duration = Duration::from_millis(5);

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "tests and the demo measure elapsed time")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since `start` on the monotonic clock.
#[must_use]
pub fn since(start: Instant) -> Duration {
    now().saturating_duration_since(start)
}

/// The wall clock as time since 1970, for comparing instants seen by different processes and for
/// the `iat` and `exp` of tokens.
#[expect(clippy::disallowed_methods, reason = "issuer and control plane stamp what they sign")]
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The wall clock in whole seconds since 1970.
#[must_use]
pub fn unix_now() -> u64 {
    wall().as_secs()
}

/// The wall clock in microseconds since 1970.
#[must_use]
pub fn unix_micros() -> u64 {
    u64::try_from(wall().as_micros()).unwrap_or(u64::MAX)
}

/// Sleeps until the wall clock shows `unix_secs` seconds since 1970; returns at once if it does.
pub fn sleep_until_unix(unix_secs: u64) {
    std::thread::sleep(Duration::from_secs(unix_secs).saturating_sub(wall()));
}

/// Asks `question` until it answers `Some`, at most for `patience` (longer on an emulated machine).
///
/// # Errors
/// When `question` fails, or when it still answers `None` after `patience`; the message names `what`.
pub fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let (start, patience) = (now(), machine::patience(patience));
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if since(start) > patience {
            bail!("waited {patience:?} in vain for {what}");
        }
        std::thread::sleep(POLL);
    }
}
