//! The one place that reads clocks. Everything else is handed a [`Now`].
#![expect(clippy::disallowed_methods, reason = "this is the clock module that the ban points to")]

use std::time::Duration;

use grantd_grant::UnixTime;
use nix::time::{ClockId, clock_gettime};

/// One reading of every clock that a decision needs.
///
/// The readings are taken back to back, boot time first: a delay between them makes derived
/// deadlines earlier, never later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`, nanoseconds since boot, suspend included.
    pub boot_ns: u64,
    /// `CLOCK_TAI`, nanoseconds; steps with the wall clock, without leap seconds.
    pub tai_ns: u64,
    /// `CLOCK_REALTIME`, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
}

impl Now {
    /// The wall clock as whole seconds (RFC 7519 NumericDate), rounded down.
    #[must_use]
    pub const fn unix(&self) -> UnixTime {
        UnixTime(self.wall_ns / 1_000_000_000)
    }

    /// The wall clock in milliseconds, as audit records carry it.
    #[must_use]
    pub const fn unix_ms(&self) -> u64 {
        self.wall_ns / 1_000_000
    }
}

/// A source of [`Now`], so that tests can hand in any time.
pub trait Clock: Send + Sync + 'static {
    /// Reads every clock.
    fn now(&self) -> Now;
    /// Whether the kernel holds the wall clock to be synchronised (`adjtimex(2)`, `STA_UNSYNC` clear).
    fn synchronised(&self) -> bool;
}

/// The clocks of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            boot_ns: read(ClockId::CLOCK_BOOTTIME),
            tai_ns: read(ClockId::CLOCK_TAI),
            wall_ns: read(ClockId::CLOCK_REALTIME),
        }
    }

    fn synchronised(&self) -> bool {
        crate::kernel::clock_synchronised()
    }
}

/// A clock that cannot be read gives the latest time there is: every deadline has passed.
fn read(clock: ClockId) -> u64 {
    clock_gettime(clock)
        .ok()
        .and_then(|t| u64::try_from(Duration::from(t).as_nanos()).ok())
        .unwrap_or(u64::MAX)
}
