//! Opening directories of the host without following symbolic links.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// Flags for opening directories.
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the directory at a relative path below another one. No symbolic link is followed, whatever happens in the
/// tree meanwhile.
pub fn open_beneath(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    /// Below `PATH_MAX`, with room for a name.
    const STEP: usize = 3800;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |at: BorrowedFd<'_>, path: &[u8]| {
        let path = if path.is_empty() { b"." } else { path };
        loop {
            match fs::openat2(at, OsStr::from_bytes(path), DIRECTORY, Mode::empty(), resolve) {
                // The kernel asks to try again when the tree is being renamed.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => break result,
            }
        }
    };
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    while rest.len() > STEP {
        let end = rest[..STEP].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        at = Some(match &at {
            None => open(root.as_fd(), &rest[..end])?,
            Some(at) => open(at.as_fd(), &rest[..end])?,
        });
        rest = &rest[end + 1..];
    }
    match &at {
        None => open(root.as_fd(), rest),
        Some(at) => open(at.as_fd(), rest),
    }
}
