//! Opening directories of the host without following symbolic links.

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::atomic::{AtomicBool, Ordering},
};

/// Flags for opening directories.
pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Whether `openat2` works: old kernels do not have it, and filters of container engines may deny it.
static HAS_OPENAT2: AtomicBool = AtomicBool::new(true);

/// Opens the directory at a relative path below another one. No symbolic link is followed, whatever happens in the
/// tree meanwhile.
pub fn open_beneath(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    /// Below `PATH_MAX`, with room for a name.
    const STEP: usize = 3800;
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    while rest.len() > STEP {
        let end = rest[..STEP].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        at = Some(open_part(at.as_ref().map_or(root.as_fd(), AsFd::as_fd), &rest[..end])?);
        rest = &rest[end + 1..];
    }
    open_part(at.as_ref().map_or(root.as_fd(), AsFd::as_fd), rest)
}

fn open_part(at: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    while HAS_OPENAT2.load(Ordering::Relaxed) {
        match fs::openat2(at, OsStr::from_bytes(path), DIRECTORY, Mode::empty(), resolve) {
            // The kernel asks to try again when the tree is being renamed.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // For directories, the kernel itself never says that it is not permitted.
            Err(Errno::NOSYS | Errno::PERM) => HAS_OPENAT2.store(false, Ordering::Relaxed),
            result => return result,
        }
    }
    open_by_names(at, path)
}

/// The same name by name. There is no `..` in a path from a walk.
fn open_by_names(at: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut here: Option<OwnedFd> = None;
    for name in path.split(|&byte| byte == b'/') {
        let at = here.as_ref().map_or(at, AsFd::as_fd);
        here = Some(fs::openat(at, OsStr::from_bytes(name), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?);
    }
    here.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_opening_find_directories_and_follow_no_link() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
        let root = std::fs::File::open(directory.path()).unwrap();
        let inode = |fd: OwnedFd| fs::fstat(fd).unwrap().st_ino;
        let expected = inode(open_beneath(&root, b"a/b").unwrap());
        assert_eq!(inode(open_by_names(root.as_fd(), b"a/b").unwrap()), expected);
        assert_eq!(
            inode(open_by_names(root.as_fd(), b".").unwrap()),
            inode(open_beneath(&root, b"").unwrap())
        );
        for path in [&b"link/b"[..], b"a/c"] {
            assert!(open_beneath(&root, path).is_err());
            assert!(open_by_names(root.as_fd(), path).is_err());
        }
    }
}
