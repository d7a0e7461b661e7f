//! What the kernel counts for processes and threads: getrusage(2).

use super::raw::{nr, syscall};
use crate::usage::ResourceUsage;
use linux_raw_sys::general::RUSAGE_THREAD;
use std::time::Duration;

/// The kernel's `struct rusage`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct RawUsage {
    user: [i64; 2],
    system: [i64; 2],
    max_resident_kib: i64,
    unused: [i64; 3],
    minor_faults: i64,
    major_faults: i64,
    rest: [i64; 8],
}

const _: () = assert!(size_of::<RawUsage>() == size_of::<linux_raw_sys::general::rusage>());

impl From<RawUsage> for ResourceUsage {
    fn from(raw: RawUsage) -> Self {
        let time = |[seconds, micros]: [i64; 2]| {
            Duration::from_secs(seconds.unsigned_abs()) + Duration::from_micros(micros.unsigned_abs())
        };
        Self {
            user_time: time(raw.user),
            system_time: time(raw.system),
            max_resident: raw.max_resident_kib.unsigned_abs() * 1024,
            resident: 0,
            minor_faults: raw.minor_faults.unsigned_abs(),
            major_faults: raw.major_faults.unsigned_abs(),
        }
    }
}

/// What the calling thread has used. Its memory is the whole program's.
pub fn of_this_thread() -> ResourceUsage {
    let mut usage = RawUsage::default();
    // SAFETY: the kernel writes a rusage there.
    unsafe { syscall!(nr::GETRUSAGE, RUSAGE_THREAD, &raw mut usage) };
    usage.into()
}
