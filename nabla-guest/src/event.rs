//! Waiting for network devices and for time.

use crate::{
    Net,
    sys::{self, Wait},
    time::Instant,
};

/// Network devices that have frames to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct ReadySet(u64);

impl ReadySet {
    /// Whether no device is ready.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `device` is ready.
    #[must_use]
    pub fn contains(self, device: &Net) -> bool {
        self.0 >> device.index() & 1 == 1
    }

    /// Bit N is set when the device with index N in the manifest is ready; the first device that
    /// [`entry!`](crate::entry!) declares has index 1.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Tells which network devices are ready now, without waiting.
///
/// Under `spt` this is a single system call that does not touch the timer.
pub fn poll() -> ReadySet {
    ReadySet(sys::wait(Wait::No))
}

/// Waits until a network device is ready or `deadline` has come, and tells which devices are ready.
///
/// The set is empty when the deadline has come first. A deadline in the past makes this [`poll()`].
pub fn yield_until(deadline: Instant) -> ReadySet {
    ReadySet(sys::wait(Wait::Until(deadline.as_nanos())))
}

/// Waits until a network device is ready, however long that takes, and tells which ones are.
///
/// A guest without network devices waits until it is killed.
pub fn yield_forever() -> ReadySet {
    ReadySet(sys::wait(Wait::Forever))
}
