//! What a guest has used.

use std::time::Duration;

/// What a guest has used of the host. What the kernel counts: nothing stands between guest and kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceUsage {
    /// Processor time in the guest's own code.
    pub user_time: Duration,
    /// Processor time in the kernel on its behalf.
    pub system_time: Duration,
    /// Largest resident memory so far, in bytes. Of a guest that has ended without having been supervised, this is the
    /// kernel's figure, which counts the size of the host program at the start.
    pub max_resident: u64,
    /// Resident memory now, in bytes; 0 when the guest has ended.
    pub resident: u64,
    /// Page faults that needed no reading.
    pub minor_faults: u64,
    /// Page faults that read from a disk.
    pub major_faults: u64,
}

impl ResourceUsage {
    /// The times and faults of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            user_time: self.user_time + other.user_time,
            system_time: self.system_time + other.system_time,
            minor_faults: self.minor_faults + other.minor_faults,
            major_faults: self.major_faults + other.major_faults,
            ..self
        }
    }
}
