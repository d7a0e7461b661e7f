//! Files that appear whole or not at all, and what is written in place because it is no regular file.

use crate::system;
use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, ffi::OsStringExt},
    },
    path::{Path, PathBuf},
    process,
};

/// What an incomplete file's name has between that of the file and a number, and at its end: a later run removes what a
/// killed one has left.
const MARK: &[u8] = b".nabla-";
const PARTIAL: &[u8] = b".partial";

/// A file that is written under another name and gets its own when it is complete.
///
/// What exists and is no regular file (a pipe, a device), and what is behind a symbolic link, is written in place: neither is
/// ever replaced.
#[derive(Debug)]
pub struct PendingFile {
    file: File,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The name that it has for now and the one that it gets.
    Named { temporary: PathBuf, path: PathBuf },
    /// A regular file behind a link: what it has goes when it is written.
    Linked,
    /// Anything else: it is written as it is.
    Open,
}

impl PendingFile {
    /// Starts writing the file at `path`. Fails here if it will not be possible. Waits for the reader of a FIFO.
    pub fn create(path: &Path) -> io::Result<Self> {
        if let Some(descriptor) = inherited(path) {
            let file = File::from(descriptor?);
            let mode = rustix::fs::fcntl_getfl(&file)? & OFlags::ACCMODE;
            return if mode == OFlags::RDONLY { Err(Errno::BADF.into()) } else { Ok(Self::in_place(file)) };
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        match fs::symlink_metadata(path) {
            // The kernel follows the link, since it refuses those that others have planted in shared directories.
            Ok(metadata) if metadata.is_symlink() => {
                let file = File::from(rustix::fs::open(path, flags | OFlags::CREATE, Mode::from(0o666))?);
                let is_regular = file.metadata()?.is_file();
                Ok(Self { file, place: if is_regular { Place::Linked } else { Place::Open } })
            }
            Ok(metadata) if !metadata.is_file() => {
                Ok(Self::in_place(rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty())?.into()))
            }
            _ => {
                let (file, temporary) = create_beside(path)?;
                Ok(Self { file, place: Place::Named { temporary, path: path.to_owned() } })
            }
        }
    }

    fn in_place(file: File) -> Self {
        Self { file, place: Place::Open }
    }

    /// Writes `contents` and gives the file its name.
    pub fn finish(mut self, contents: &[u8]) -> io::Result<()> {
        if let Place::Linked = self.place {
            self.file.set_len(0)?;
        }
        self.file.write_all(contents)?;
        if let Place::Named { temporary, path } = &self.place {
            fs::rename(temporary, path)?;
            self.place = Place::Open;
        }
        Ok(())
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Place::Named { temporary, .. } = &self.place {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// A copy of the descriptor that a path such as `/dev/fd/3` or `/dev/stderr` stands for, directly or through links; nothing for
/// other paths. Opening such a path instead would write over what the descriptor's file has, and fail for sockets.
pub fn inherited(path: &Path) -> Option<io::Result<OwnedFd>> {
    let mut path = path.to_owned();
    // As many links as the kernel follows.
    for _ in 0..40 {
        if let Some(number) = descriptor_number(&path) {
            return Some(system::inherited_descriptor(number));
        }
        let target = fs::read_link(&path).ok()?;
        path = path.parent()?.join(target);
    }
    None
}

fn descriptor_number(path: &Path) -> Option<RawFd> {
    let own = format!("/proc/{}/fd", process::id());
    match path.to_str()? {
        "/dev/stdin" => Some(0),
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        _ if ["/dev/fd", "/proc/self/fd", &own]
            .iter()
            .any(|&directory| path.parent() == Some(directory.as_ref())) =>
        {
            path.file_name()?.to_str()?.parse().ok()
        }
        _ => None,
    }
}

/// Creates a file in the directory of `path`, under a name that no other file has, and removes what killed runs have left there.
/// The file is locked as long as it is open, so that other runs know that it is being written.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::IsADirectory))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    remove_stale(directory, name);
    for attempt in 0_u32.. {
        let suffix = format!("{}-{attempt}", process::id());
        let temporary =
            directory.join(OsString::from_vec([&prefix(name), suffix.as_bytes(), PARTIAL].concat()));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        match rustix::fs::open(&temporary, flags, Mode::from(0o666)) {
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
            Ok(file) => {
                // A file system without locks has no stale files that can be told from others, either.
                let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
                // Another run may have taken it for a stale one before it was locked.
                if is_at(&file, &temporary) {
                    return Ok((file.into(), temporary));
                }
            }
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// How the name of an incomplete file begins. A long name is cut, so that there is room for the rest.
fn prefix(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    [b".", &name[..name.len().min(200)], MARK].concat()
}

/// Removes incomplete files of this user for this name that no running program holds.
fn remove_stale(directory: &Path, name: &OsStr) {
    let prefix = prefix(name);
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(&prefix) || !name.as_bytes().ends_with(PARTIAL) {
            continue;
        }
        let path = directory.join(&name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        if let Ok(file) = rustix::fs::open(&path, flags, Mode::empty())
            && is_own_file(file.as_fd())
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_at(&file, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

fn is_own_file(file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_uid == rustix::process::geteuid().as_raw()
    })
}

/// Whether a path leads to this file and through no link.
fn is_at(file: impl AsFd, path: &Path) -> bool {
    let at_path = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    match (rustix::fs::fstat(file), at_path) {
        (Ok(file), Ok(path)) => (file.st_dev, file.st_ino) == (path.st_dev, path.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn pending_file_appears_when_it_is_finished_and_leaves_nothing_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        fs::write(&path, "old").unwrap();

        drop(PendingFile::create(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let pending = PendingFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        pending.finish(b"new").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn pending_file_in_a_missing_directory_fails_at_once() {
        assert!(PendingFile::create(Path::new("/nonexistent/report.json")).is_err());
        assert!(PendingFile::create(Path::new("/")).is_err());
    }

    #[test]
    fn devices_are_written_in_place() {
        PendingFile::create(Path::new("/dev/null")).unwrap().finish(b"x").unwrap();
        assert!(PendingFile::create(Path::new("/dev/full")).unwrap().finish(b"x").is_err());
    }

    #[test]
    fn what_a_link_leads_to_is_written_and_the_link_stays() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        fs::write(at("file"), "old contents").unwrap();
        for (link, target) in [("link", "file"), ("dangling", "new"), ("device", "/dev/null")] {
            symlink(target, at(link)).unwrap();
            PendingFile::create(&at(link)).unwrap().finish(b"x").unwrap();
            assert_eq!(fs::read_link(at(link)).unwrap(), Path::new(target));
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"x");
        assert_eq!(fs::read(at("new")).unwrap(), b"x");
        assert_eq!(names(directory.path()), ["dangling", "device", "file", "link", "new"]);
    }

    #[test]
    fn descriptor_paths_are_known_by_their_numbers() {
        for (path, number) in [
            ("/dev/stdin", Some(0)),
            ("/dev/stdout", Some(1)),
            ("/dev/stderr", Some(2)),
            ("/dev/fd/3", Some(3)),
            ("/proc/self/fd/12", Some(12)),
            ("/dev/fd/x", None),
            ("/dev/fd", None),
            ("/dev/fd/3/4", None),
            ("report.json", None),
        ] {
            assert_eq!(descriptor_number(Path::new(path)), number, "{path}");
        }
        let directory = tempfile::tempdir().unwrap();
        symlink("/dev/fd/99999", directory.path().join("link")).unwrap();
        assert!(inherited(&directory.path().join("link")).unwrap().is_err(), "it is not open");
    }

    #[test]
    fn stale_files_of_this_name_are_removed_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in [".r.json.nabla-1-0.partial", ".s.json.nabla-1-0.partial", ".r.json.nabla-2-0.partial"] {
            fs::write(at(name), "").unwrap();
        }
        symlink("/etc/passwd", at(".r.json.nabla-3-0.partial")).unwrap();
        let busy = File::open(at(".r.json.nabla-2-0.partial")).unwrap();
        rustix::fs::flock(&busy, FlockOperation::LockShared).unwrap();

        let pending = PendingFile::create(&at("r.json")).unwrap();
        let second = PendingFile::create(&at("r.json")).unwrap();
        pending.finish(b"1").unwrap();
        second.finish(b"2").unwrap();
        let left =
            [".r.json.nabla-2-0.partial", ".r.json.nabla-3-0.partial", ".s.json.nabla-1-0.partial", "r.json"];
        assert_eq!(names(directory.path()), left);
    }

    #[test]
    fn stale_files_of_others_stay() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".r.json.nabla-1-0.partial");
        fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        drop(PendingFile::create(&directory.path().join("r.json")).unwrap());
        assert_eq!(names(directory.path()), [".r.json.nabla-1-0.partial"]);
    }
}
