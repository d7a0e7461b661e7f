//! The most memory that a guest had. Runs in the supervisor; see [`super::task`] for the rules.
//!
//! The wait status does not tell: exec counts the memory that a process shared with another one before as its own, and
//! a guest shares the host program's until then.

use crate::sys::{
    procfs::counter,
    raw::{nr, syscall},
};
use linux_raw_sys::general::{O_CLOEXEC, O_RDONLY};
use std::io::Write;

/// Longest part of `/proc/PID/status` that is looked at. The line stands within the first kilobyte.
const LENGTH: usize = 2048;

/// Largest resident memory of a process so far, in bytes. `None` where `/proc` does not tell.
pub fn resident(pid: i32) -> Option<u64> {
    let path = path(pid);
    let mut buffer = [0_u8; LENGTH];
    // SAFETY: the path ends with a NUL; the kernel writes at most the buffer's size; the descriptor is ours.
    let length = unsafe {
        let fd = i32::try_from(syscall!(nr::OPEN, path.as_ptr(), O_RDONLY | O_CLOEXEC)).ok()?;
        if fd < 0 {
            return None;
        }
        let length = syscall!(nr::READ, fd, buffer.as_mut_ptr(), LENGTH as u64);
        syscall!(nr::CLOSE, fd);
        length
    };
    parse(buffer.get(..usize::try_from(length).ok()?)?)
}

/// `/proc/PID/status`, with a NUL after it. Formatting a number into a slice neither allocates nor panics.
fn path(pid: i32) -> [u8; 32] {
    let mut path = [0; 32];
    // There are 14 bytes besides the number, which has ten digits at most.
    let _ = write!(&mut path[..], "/proc/{pid}/status");
    path
}

/// The line `VmHWM: N kB`.
fn parse(status: &[u8]) -> Option<u64> {
    counter(str::from_utf8(status).ok()?, "VmHWM:").map(|kib| kib.wrapping_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_has_the_pid_in_decimal() {
        for pid in [1, 10, 4_194_304, i32::MAX] {
            let expected = format!("/proc/{pid}/status\0");
            assert_eq!(&path(pid)[..expected.len()], expected.as_bytes());
        }
    }

    #[test]
    fn line_is_found_and_scaled() {
        assert_eq!(
            parse(b"Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 5 kB\n"),
            Some(1234 << 10)
        );
        assert_eq!(parse(b"Name:\tkthread\n"), None);
    }

    #[test]
    fn own_memory_is_plausible() {
        let own = crate::sys::own_pid();
        assert!(resident(own).is_some_and(|bytes| bytes > 100 << 10 && bytes < 1 << 40));
        assert_eq!(resident(i32::MAX), None);
    }
}
