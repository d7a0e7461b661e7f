//! What is read from /proc.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_a_start_and_missing_ones_are_not_found() {
        assert!(start_time(std::process::id()).unwrap() > 0);
        assert_eq!(start_time(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
