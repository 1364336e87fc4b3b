//! The one place that reads clocks. Everything else is handed a [`Now`].
#![expect(clippy::disallowed_methods, reason = "this is the clock module that the ban points to")]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use grantd_grant::UnixTime;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};
use nix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;

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

/// A timer, and the wait for it.
#[derive(Debug)]
struct Timer {
    timer: TimerFd,
    ready: AsyncFd<OwnedFd>,
}

impl Timer {
    fn new(clock: TimerClock) -> io::Result<Self> {
        let timer = TimerFd::new(clock, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let ready = crate::kernel::watch(timer.as_fd())?;
        Ok(Self { timer, ready })
    }

    /// Waits until it fires or is cancelled; `false` when it cannot be waited for any more.
    async fn fired(&self) -> bool {
        loop {
            let Ok(mut ready) = self.ready.readable().await else { return false };
            let mut expirations = [0u8; 8];
            match nix::unistd::read(self.timer.as_fd(), &mut expirations) {
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

/// Wakes at an instant of `CLOCK_BOOTTIME`, which goes on while the host sleeps.
#[derive(Debug)]
pub struct BootTimer(Timer);

impl BootTimer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The kernel gives no timer descriptor.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Timer::new(TimerClock::CLOCK_BOOTTIME)?))
    }

    /// Sets it to an instant, or to none.
    ///
    /// # Errors
    /// The kernel refuses the time.
    pub fn set(&self, boot_ns: Option<u64>) -> io::Result<()> {
        match boot_ns {
            // Zero would disarm it; an instant that has passed fires at once.
            Some(at) => self.0.timer.set(
                Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at.max(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )?,
            None => self.0.timer.unset()?,
        }
        Ok(())
    }

    /// Waits until it fires.
    pub async fn fired(&self) {
        if !self.0.fired().await {
            tracing::error!(
                "the deadline timer cannot be waited for: ends are noticed late, not enforced late"
            );
            std::future::pending::<()>().await;
        }
    }
}

/// Tells when the wall clock was stepped (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`).
#[derive(Debug)]
pub struct StepWatch(Timer);

impl StepWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// The kernel gives no timer descriptor.
    pub fn new() -> io::Result<Self> {
        let watch = Self(Timer::new(TimerClock::CLOCK_REALTIME)?);
        watch.arm()?;
        Ok(watch)
    }

    fn arm(&self) -> io::Result<()> {
        const FAR: Duration = Duration::from_secs(1 << 36);
        self.0.timer.set(
            Expiration::OneShot(TimeSpec::from_duration(FAR)),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
        )?;
        Ok(())
    }

    /// Waits for the next step, and watches on.
    pub async fn stepped(&self) {
        let stepped = self.0.fired().await;
        if let (true, Ok(())) = (stepped, self.arm()) {
            return;
        }
        tracing::error!(
            "steps of the wall clock cannot be watched any more; the kernel still compares it"
        );
        std::future::pending::<()>().await;
    }
}
