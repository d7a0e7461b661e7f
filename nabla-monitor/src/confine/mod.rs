//! What takes rights away from guests.

pub mod landlock;
pub mod namespaces;
pub mod seccomp;

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
pub const RLIMITS_ZERO: [(u32, &str); 4] =
    [(4, "core dumps"), (6, "processes"), (7, "descriptors"), (8, "locked memory")];
