//! The two bindings. Each gives the rest of the crate the same few functions; nothing else knows which it is.

#[cfg(feature = "hvt")]
mod hvt;
#[cfg(not(feature = "hvt"))]
mod spt;

#[cfg(feature = "hvt")]
pub use self::hvt::*;
#[cfg(not(feature = "hvt"))]
pub use self::spt::*;

/// What can become of an attempt to use a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing there now.
    Again,
    /// The host could not do it.
    Failed,
}

/// How long to wait for a network device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Only look.
    No,
    /// Until this many nanoseconds on the monotonic clock.
    Until(u64),
    /// For as long as it takes.
    Forever,
}

/// A number of the ABI, which has 64 bits everywhere, as one of this program, which has as many.
#[expect(clippy::cast_possible_truncation, reason = "the target has 64 bits")]
pub const fn word(number: u64) -> usize {
    number as usize
}
