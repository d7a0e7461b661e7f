//! What is read from /proc, and set there.

use crate::Namespace;
use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// What can be seen of a process that is named by its id in a process namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// It runs, since this time.
    Started(u64),
    /// There is no such process, but others of the namespace can be seen.
    Missing,
    /// No process of the namespace can be seen: it has ended, or is not below the one that /proc is of.
    Unseen,
}

/// Looks for a process. The id that it has in /proc is not the one of its own namespace where /proc is of another one.
pub fn find(namespace: u32, pid: u32) -> Process {
    let this = Path::new("/proc/self");
    let is_ours = || fs::read_link(this).is_ok_and(|id| id == Path::new(&std::process::id().to_string()));
    if namespace_of(this).is_ok_and(|of| of == namespace) && is_ours() {
        return match start_time(&Path::new("/proc").join(pid.to_string())) {
            Ok(started) => Process::Started(started),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Process::Missing,
            Err(_) => Process::Unseen,
        };
    }
    let mut found = Process::Unseen;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let is_process = entry.file_name().as_encoded_bytes()[0].is_ascii_digit();
        if !is_process || !namespace_of(&path).is_ok_and(|of| of == namespace) {
            continue;
        }
        found = Process::Missing;
        if id_in_own_namespace(&path) == Some(pid)
            && let Ok(started) = start_time(&path)
        {
            return Process::Started(started);
        }
    }
    found
}

/// Source: proc_pid_status(5), `NSpid`. The last one is that of the innermost namespace.
fn id_in_own_namespace(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().next_back()?.parse().ok()
}

/// When a process started, in clock ticks since the machine did. Source: proc_pid_stat(5), field 22.
pub fn start_time(process: &Path) -> io::Result<u64> {
    let stat = fs::read_to_string(process.join("stat"))?;
    // The second field is the program's name in parentheses, which may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let started = fields.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    started.ok_or_else(|| io::Error::other("its stat file has an unknown form"))
}

/// The inode of a process's process namespace.
pub fn namespace_of(process: &Path) -> io::Result<u32> {
    let inode = fs::metadata(process.join("ns/pid"))?.ino();
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
    fn processes_are_found_by_their_id_in_their_own_namespace() {
        let (here, pid) = (Path::new("/proc/self"), std::process::id());
        let (namespace, started) = (namespace_of(here).unwrap(), start_time(here).unwrap());
        assert_eq!(find(namespace, pid), Process::Started(started));
        assert_eq!(find(namespace, u32::MAX), Process::Missing);
        assert_eq!(find(namespace + 1, pid), Process::Unseen);
    }
}
