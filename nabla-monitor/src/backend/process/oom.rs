//! Whether the kernel killed something for want of memory.

use crate::sys::{lock, procfs::counter};
use std::{fs, path::Path, sync::Mutex};

/// Kills on the whole host since the last question.
#[derive(Debug, Default)]
pub struct OomKills(Mutex<Option<u64>>);

impl OomKills {
    /// Remembers how many there were, unless that was done before.
    pub fn note(&self) {
        let mut known = lock(&self.0);
        if known.is_none() {
            *known = host_kills();
        }
    }

    /// Whether there was one since this was last asked.
    pub fn happened(&self) -> bool {
        let mut known = lock(&self.0);
        let now = host_kills();
        let happened = matches!((*known, now), (Some(before), Some(now)) if now > before);
        *known = now;
        happened
    }
}

/// How many processes the kernel has killed for want of memory since it started.
fn host_kills() -> Option<u64> {
    counter(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// The same within a cgroup.
pub fn cgroup_kills(cgroup: &Path) -> Option<u64> {
    // v2, then v1.
    let text = fs::read_to_string(cgroup.join("memory.events"))
        .or_else(|_| fs::read_to_string(cgroup.join("memory.oom_control")))
        .ok()?;
    counter(&text, "oom_kill")
}
