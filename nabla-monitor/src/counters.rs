//! What a guest has done, in numbers.

use std::time::Duration;

/// What a guest in a virtual machine has made its monitor do. See [`Guest::counters`](crate::Guest::counters).
///
/// Counting costs some tens of processor cycles for each time that the guest is left, and nothing in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// How often the guest was left, by the reason.
    pub exits: Exits,
    /// How often each hypercall was made.
    pub hypercalls: Hypercalls,
    /// Bytes that the guest wrote to the console.
    pub console_bytes: u64,
    /// Its devices, in the order of the manifest.
    pub devices: Vec<DeviceCounters>,
    /// Time in which the guest ran, what the kernel needs to enter and leave it included.
    pub time_in_guest: Duration,
    /// Time in which its hypercalls and exceptions were served.
    pub time_in_host: Duration,
    /// Time in which it waited in a poll.
    pub time_waiting: Duration,
}

/// See [`Counters::exits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exits {
    /// For a hypercall.
    pub hypercalls: u64,
    /// For an exception, or a privileged instruction that was emulated.
    pub exceptions: u64,
    /// To pause, stop or kill the guest.
    pub interruptions: u64,
    /// For something that ended it.
    pub others: u64,
}

/// See [`Counters::hypercalls`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "they are the hypercalls' names")]
pub struct Hypercalls {
    pub walltime: u64,
    pub puts: u64,
    pub poll: u64,
    pub block_write: u64,
    pub block_read: u64,
    pub net_write: u64,
    pub net_read: u64,
    pub halt: u64,
}

/// What went through a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceCounters {
    /// Its name in the manifest.
    pub name: String,
    /// Reads that brought something: of a network interface, frames.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes that they read.
    pub bytes_read: u64,
    /// Bytes that they wrote.
    pub bytes_written: u64,
    /// Calls that failed, be it for a wrong argument or for the host's device. Finding no frame is no failure.
    pub errors: u64,
}
