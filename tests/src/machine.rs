//! What kind of machine the tests run on.
//!
//! `cargo xtask test --kernel` runs them in virtual machines that are emulated in software, where everything
//! takes many times as long and nothing can be said about how fast the product is. They are also nobody
//! else's, so that what would disturb a host can be tried there.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::programs::not_run;

/// Set in an emulated machine, and nowhere else.
const EMULATED: &str = "GRANTD_EMULATED";
/// Where keys may be kept from one test to the next: making one takes seconds on an emulated machine.
const KEYS: &str = "GRANTD_TEST_KEYS";

/// How much longer everything may take there.
const SLOWER: u32 = 10;
/// How much longer grants last there, and the longest life that the deployments' ceiling allows, in seconds.
const LONGER: u64 = 4;
const LONGEST: u64 = 600;

/// Whether this is an emulated machine of the run's own.
#[must_use]
pub fn is_emulated() -> bool {
    std::env::var_os(EMULATED).is_some()
}

/// How long to wait here for what takes at most `limit` on a real machine.
#[must_use]
pub fn patience(limit: Duration) -> Duration {
    if is_emulated() { limit.saturating_mul(SLOWER) } else { limit }
}

/// The life of a grant that gives a test the same time here as `seconds` on a real machine.
#[must_use]
pub fn life(seconds: u64) -> u64 {
    let longer = (seconds * LONGER).min(LONGEST);
    if is_emulated() && seconds < LONGEST { longer } else { seconds }
}

/// Whether a promise about time can be judged here. Where it cannot, says so among what was not run.
///
/// # Errors
/// When it cannot be told.
pub fn judges_time(promise: &str) -> Result<bool> {
    if !is_emulated() {
        return Ok(true);
    }
    not_run(promise, "time is judged on the host's kernel; this machine is emulated")?;
    Ok(false)
}

/// The directory in which keys are kept, if any.
pub(crate) fn keys() -> Option<PathBuf> {
    std::env::var_os(KEYS).map(PathBuf::from)
}
