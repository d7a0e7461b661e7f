//! The most memory that a guest had. Runs in the supervisor; see [`super::task`] for the rules.
//!
//! The wait status does not tell: exec counts the memory that a process shared with another one before as its own, and
//! a guest shares the host program's until then.

use super::number;
use crate::sys::{nr, syscall};

/// Longest part of `/proc/PID/status` that is looked at. The line stands within the first kilobyte.
const LENGTH: usize = 2048;

/// Largest resident memory of a process so far, in bytes. `None` where `/proc` does not tell.
pub fn resident(pid: i32) -> Option<u64> {
    const O_RDONLY_CLOEXEC: u64 = 0o200_0000;
    let path = path(pid);
    let mut buffer = [0_u8; LENGTH];
    // SAFETY: the path ends with a NUL; the kernel writes at most the buffer's size; the descriptor is ours.
    let length = unsafe {
        let fd =
            i32::try_from(syscall(nr::OPEN, [path.as_ptr() as u64, O_RDONLY_CLOEXEC, 0, 0, 0, 0])).ok()?;
        if fd < 0 {
            return None;
        }
        let length = syscall(nr::READ, [number(fd), buffer.as_mut_ptr() as u64, LENGTH as u64, 0, 0, 0]);
        syscall(nr::CLOSE, [number(fd), 0, 0, 0, 0, 0]);
        length
    };
    parse(buffer.get(..usize::try_from(length).ok()?)?)
}

/// `/proc/PID/status`, with a NUL behind it.
fn path(pid: i32) -> [u8; 32] {
    let mut digits = [0_u8; 10];
    let mut rest = pid.unsigned_abs();
    let mut count = 0;
    for digit in &mut digits {
        *digit = b'0' + (rest % 10).to_le_bytes()[0];
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let mut path = [0_u8; 32];
    let text = b"/proc/".iter().chain(digits.iter().take(count).rev()).chain(b"/status");
    for (to, from) in path.iter_mut().zip(text) {
        *to = *from;
    }
    path
}

/// The line `VmHWM: N kB`.
fn parse(status: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"VmHWM:";
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(NAME))?;
    let digits =
        line.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    let kib = digits.fold(0_u64, |sum, digit| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    Some(kib.wrapping_mul(1024))
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
        let own = super::super::own_pid();
        assert!(resident(own).is_some_and(|bytes| bytes > 100 << 10 && bytes < 1 << 40));
        assert_eq!(resident(i32::MAX), None);
    }
}
