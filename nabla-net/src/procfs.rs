//! What is read from /proc, and set there.

use crate::Namespace;
use std::{fs, io, os::unix::fs::MetadataExt};

/// When a process started, in clock ticks since the machine did. Source: proc_pid_stat(5), field 22.
pub fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let started = fields.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    started.ok_or_else(|| io::Error::other("its stat file has an unknown form"))
}

/// The inode of the calling process's process namespace.
pub fn pid_namespace() -> io::Result<u32> {
    let inode = fs::metadata("/proc/self/ns/pid")?.ino();
    u32::try_from(inode).map_err(|_| io::Error::other("the inode of its process namespace is too large"))
}

/// While this is there, the kernel does not tell anybody when an interface gets another MAC address.
///
/// Source: `arp_notify` and `ndisc_notify` in the kernel's ip-sysctl document.
#[derive(Debug)]
pub struct Silence<'a> {
    namespace: &'a Namespace,
    /// Paths, and what was there before.
    settings: Vec<(String, String)>,
}

impl<'a> Silence<'a> {
    /// Of the interface with this name.
    pub fn of(namespace: &'a Namespace, name: &str) -> io::Result<Self> {
        // Either of the two is enough.
        let paths =
            [("ipv4", "arp_notify"), ("ipv6", "ndisc_notify")].into_iter().flat_map(|(family, setting)| {
                ["all", name].map(|of| format!("/proc/sys/net/{family}/conf/{of}/{setting}"))
            });
        let mut silence = Self { namespace, settings: Vec::new() };
        for path in paths {
            let setting = namespace.run(|| fs::read_to_string(&path)).map_err(io::Error::other)?;
            // Kernels without IPv6 have nothing to be silenced.
            let Ok(setting) = setting else { continue };
            if setting.trim() != "0" {
                namespace.run(|| fs::write(&path, "0")).map_err(io::Error::other)??;
                silence.settings.push((path, setting));
            }
        }
        Ok(silence)
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        for (path, setting) in &self.settings {
            let restored = self.namespace.run(|| fs::write(path, setting));
            if !matches!(restored, Ok(Ok(()))) {
                tracing::warn!(path, "a setting of the network namespace could not be restored");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_a_start_and_missing_ones_are_not_found() {
        assert!(start_time(std::process::id()).unwrap() > 0);
        assert_eq!(start_time(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
