//! Going through a tree of directories.

use super::beneath::DIRECTORY;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, Mode, OFlags},
    io::Errno,
};
use std::ffi::OsStr;

/// A place in a tree of directories. However deep that is, it takes one descriptor, and each step one system call more
/// than opening a directory: the way back is `..`, and must lead to where the way came from.
#[derive(Debug)]
pub struct Cursor {
    here: OwnedFd,
    /// Device and inode of the directories above, the root first.
    above: Vec<(u64, u64)>,
}

impl Cursor {
    pub const fn new(root: OwnedFd) -> Self {
        Self { here: root, above: Vec::new() }
    }

    pub fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// How many directories are above, the root being the last of them.
    pub const fn depth(&self) -> usize {
        self.above.len()
    }

    /// Goes to a directory in this one; a symbolic link is not followed.
    pub fn enter(&mut self, name: &OsStr) -> Result<(), Errno> {
        let below = fs::openat(&self.here, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        self.above.push(identity(&self.here)?);
        self.here = below;
        Ok(())
    }

    /// Goes back to the directory above, and returns the one that was left. Not to be called at the root.
    pub fn leave(&mut self) -> Result<OwnedFd, Errno> {
        let above = fs::openat(&self.here, "..", DIRECTORY, Mode::empty())?;
        if self.above.pop() != Some(identity(&above)?) {
            // Somebody has moved the directory to another place.
            return Err(Errno::STALE);
        }
        Ok(std::mem::replace(&mut self.here, above))
    }
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}
