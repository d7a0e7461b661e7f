//! The two clocks.

use core::{
    ops::{Add, AddAssign, Sub, SubAssign},
    time::Duration,
};

use crate::sys::{self, Wait};

/// A time on the monotonic clock, in nanoseconds since some time before the guest started.
///
/// The clock never goes back, and it does not jump when the host's wall clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The time now.
    #[must_use]
    pub fn now() -> Self {
        Self(sys::monotonic())
    }

    /// The time of `nanos` nanoseconds on the monotonic clock.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds on the monotonic clock.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero when that is later.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time since then; zero when it is in the future.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }
}

/// Ends at the last time that there is, 584 years after the clock's start.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// Ends at the clock's start.
impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The time on the host's wall clock, since 1970-01-01 00:00 UTC. It jumps when the host's clock is set.
#[must_use]
pub fn wall_clock() -> Duration {
    Duration::from_nanos(sys::wall())
}

/// Waits for at least `duration`.
pub fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration);
}

/// Waits until `deadline`, at once when it is in the past.
///
/// The monitor's only way to wait ends early when a frame arrives: while a network device is ready, this
/// burns processor time. Guests with network devices wait with [`yield_until`](crate::yield_until) instead.
pub fn sleep_until(deadline: Instant) {
    while Instant::now() < deadline {
        let _ = sys::wait(Wait::Until(deadline.as_nanos()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Instant::from_nanos(u64::MAX - 1) + Duration::from_secs(1), Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_nanos(1) + Duration::MAX, Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_nanos(1) - Duration::from_secs(1), Instant::from_nanos(0));
        assert_eq!(Instant::from_nanos(1) - Instant::from_nanos(2), Duration::ZERO);
    }

    #[test]
    fn differences_are_exact() {
        let start = Instant::from_nanos(5);
        let mut end = start + Duration::new(3, 7);
        assert_eq!(end - start, Duration::new(3, 7));
        end -= Duration::from_nanos(7);
        assert_eq!(end.duration_since(start), Duration::from_secs(3));
    }
}
