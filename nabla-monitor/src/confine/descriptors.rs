//! Which descriptors a process has, for hosts on which `close_range` is denied: it is newer than the filters of many a
//! container engine.

use crate::sys::raw::{check, nr, syscall};
use linux_raw_sys::general::{F_SETFD, FD_CLOEXEC, O_CLOEXEC, O_DIRECTORY, linux_dirent64};
use rustix::io::Errno;
use std::mem::offset_of;

/// Whether `close_range` may be called here. Closes nothing.
pub fn has_close_range() -> bool {
    // SAFETY: no descriptor has this number.
    unsafe { syscall!(nr::CLOSE_RANGE, u32::MAX, u32::MAX, 0) == 0 }
}

/// Calls `work` with every descriptor of this process, as `/proc/self/fd` lists them. `work` may close them.
///
/// Keeps the rules of the supervisor, which calls it: no allocation, no lock, no thread-local storage, no panic.
///
/// # Errors
///
/// Those of opening and reading the directory.
pub fn for_each_open(mut work: impl FnMut(i32)) -> Result<(), Errno> {
    #[repr(align(8))]
    struct Buffer([u8; 1024]);
    let path = c"/proc/self/fd".as_ptr();
    // SAFETY: the path is a string; the descriptor is closed below, and `work` is not told of it.
    let directory = check(unsafe { syscall!(nr::OPEN, path, O_DIRECTORY | O_CLOEXEC) })?;
    let mut buffer = Buffer([0; 1024]);
    let listed = loop {
        let size = buffer.0.len() as u64;
        // SAFETY: writes at most the buffer's size.
        let read = unsafe { syscall!(nr::GETDENTS64, directory, buffer.0.as_mut_ptr(), size) };
        match check(read) {
            Ok(0) => break Ok(()),
            Err(errno) => break Err(errno),
            Ok(length) => {
                let mut left = buffer.0.get(..usize::try_from(length).unwrap_or(0)).unwrap_or(&[]);
                while let Some((number, rest)) = next_entry(left) {
                    left = rest;
                    if let Some(number) = number.filter(|&number| u64::from(number) != directory) {
                        work(number.cast_signed());
                    }
                }
            }
        }
    };
    // SAFETY: the descriptor of above.
    unsafe { syscall!(nr::CLOSE, directory) };
    listed
}

/// The first of a list of [`linux_dirent64`]: its name if that is a number, and what follows it.
fn next_entry(list: &[u8]) -> Option<(Option<u32>, &[u8])> {
    const LENGTH: usize = offset_of!(linux_dirent64, d_reclen);
    const NAME: usize = offset_of!(linux_dirent64, d_name);
    let length = match list.get(LENGTH..LENGTH + 2)? {
        &[low, high] => usize::from(u16::from_le_bytes([low, high])),
        _ => return None,
    };
    let (name, rest) = (list.get(NAME..length)?, list.get(length..)?);
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let mut number = None;
    for &byte in name.iter().take_while(|&&byte| byte != 0) {
        let Some(digit) = digit(byte) else { return Some((None, rest)) };
        number = number.unwrap_or(0_u32).checked_mul(10).and_then(|n| n.checked_add(digit));
    }
    Some((number, rest))
}

/// Has every descriptor close when this process becomes another program.
///
/// # Errors
///
/// Those of listing them.
pub fn close_at_exec() -> Result<(), Errno> {
    for_each_open(|descriptor| {
        // SAFETY: changes nothing unless this process becomes another program, which is what the caller wants.
        unsafe { syscall!(nr::FCNTL, descriptor, F_SETFD, FD_CLOEXEC) };
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn all_descriptors_are_found() {
        let files: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let mut found = Vec::new();
        for_each_open(|descriptor| found.push(descriptor)).unwrap();
        assert!(files.iter().all(|file| found.contains(&file.as_raw_fd())), "{found:?}");
        assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    }

    #[test]
    fn entries_are_read_within_their_list() {
        let entry = |name: &[u8], length: u16| {
            let mut bytes = [&[0; 16][..], &length.to_le_bytes(), &[4], name].concat();
            bytes.resize(24 + name.len() / 8 * 8, 0);
            bytes
        };
        let list = [entry(b".", 24), entry(b"..", 24), entry(b"17", 24), entry(b"4294967296", 32)].concat();
        let mut left = &list[..];
        let mut numbers = Vec::new();
        while let Some((number, rest)) = next_entry(left) {
            numbers.push(number);
            left = rest;
        }
        assert_eq!(numbers, [None, None, Some(17), None]);
        assert!(left.is_empty());
        // Shorter than its header, and longer than the list.
        for length in [0, 18, 25, u16::MAX] {
            assert_eq!(next_entry(&entry(b"1", length)), None, "{length}");
        }
        assert_eq!(next_entry(&list[..17]), None);
    }
}
