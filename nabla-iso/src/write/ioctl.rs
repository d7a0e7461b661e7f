//! The one system call for which rustix has no function.
#![allow(unsafe_code, reason = "a request of ioctl is only as right as its number and its structure")]

use rustix::{
    fd::{AsRawFd, BorrowedFd},
    io::Errno,
    ioctl::{Setter, ioctl, opcode},
};

/// `struct file_clone_range` of linux/fs.h.
#[repr(C)]
struct CloneRange {
    source: i64,
    offset: u64,
    length: u64,
    target_offset: u64,
}

/// Lets `target` share `length` bytes of `source`'s blocks from `offset` on, at `place`.
pub fn clone_range(
    source: BorrowedFd<'_>,
    offset: u64,
    length: u64,
    target: BorrowedFd<'_>,
    place: u64,
) -> Result<(), Errno> {
    const FICLONERANGE: u32 = opcode::write::<CloneRange>(0x94, 13);
    let range = CloneRange { source: source.as_raw_fd().into(), offset, length, target_offset: place };
    // SAFETY: FICLONERANGE takes a pointer to this structure and only reads it.
    unsafe { ioctl(target, Setter::<FICLONERANGE, CloneRange>::new(range)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    #[test]
    fn the_request_has_the_number_of_the_headers() {
        assert_eq!(opcode::write::<CloneRange>(0x94, 13), 0x4020_940d);
    }

    #[test]
    fn a_directory_cannot_be_shared() {
        let directory = tempfile::tempdir().unwrap();
        let source = std::fs::File::open(directory.path()).unwrap();
        let target = tempfile::tempfile().unwrap();
        assert!(clone_range(source.as_fd(), 0, 4096, target.as_fd(), 0).is_err());
    }
}
