//! What takes rights away from guests.

pub mod descriptors;
pub mod landlock;
pub mod namespaces;
pub mod seccomp;

use linux_raw_sys::general::{RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_NPROC};

/// Whom a guest's process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id. Supplementary groups are dropped.
    pub gid: u32,
}

/// Resource limits that are set to 0 for every guest, by number: the filter denies every call that they limit, so
/// they only matter should the filter have a hole.
pub const RLIMITS_ZERO: [(u32, &str); 4] = [
    (RLIMIT_CORE, "core dumps"),
    (RLIMIT_NPROC, "processes"),
    (RLIMIT_NOFILE, "descriptors"),
    (RLIMIT_MEMLOCK, "locked memory"),
];
