//! A file that appears under its name when it is complete.

use crate::error::Error;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::FileTypeExt,
    },
    path::{Path, PathBuf},
    process,
};

/// How the names of files end that are not complete.
pub const PARTIAL: &[u8] = b".partial";
/// What an incomplete file's name has between that of the image and a number.
const MARK: &[u8] = b".nabla-iso-";

/// What an image is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A file that is new.
    File,
    /// A device, which has something on it.
    Device,
    /// What can only be written from front to back.
    Stream,
}

/// See the module. What is not finished is gone when this is dropped.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    place: Place,
    /// The name that the file has meanwhile, if any.
    temporary: Option<PathBuf>,
}

impl Output {
    /// Begins a file, or opens the device or the pipe at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Through a symbolic link, what it leads to is written.
        let path = match std::fs::symlink_metadata(path) {
            Ok(there) if there.is_symlink() => {
                std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
            }
            _ => path.to_owned(),
        };
        if let Ok(there) = std::fs::metadata(&path)
            && !there.is_file()
        {
            if there.is_dir() {
                return Err(Error::io("write", &path, Errno::ISDIR));
            }
            let file = fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty());
            let file = file.map_err(|error| Error::io("open", &path, error))?.into();
            let place = if there.file_type().is_block_device() { Place::Device } else { Place::Stream };
            return Ok(Self { path, file, place, temporary: None });
        }
        let Some(name) = path.file_name() else { return Err(Error::io("write", &path, Errno::ISDIR)) };
        let directory = directory_of(&path);
        remove_leftovers(directory, name);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let failed = |error: Errno| Error::io("make a file in", directory, error);
        match fs::open(directory, flags | OFlags::TMPFILE, mode) {
            Ok(file) => Ok(Self { path, file: file.into(), place: Place::File, temporary: None }),
            // The file system has no files without names.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let (file, temporary) = free_name(directory, name, |temporary| {
                    fs::open(temporary, flags | OFlags::CREATE | OFlags::EXCL, mode)
                })
                .map_err(failed)?;
                // So that nobody takes it for a leftover. Nobody else has it open.
                let _ = fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
                Ok(Self { path, file: file.into(), place: Place::File, temporary: Some(temporary) })
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub const fn place(&self) -> Place {
        self.place
    }

    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn set_length(&self, length: u64) -> Result<(), Error> {
        fs::ftruncate(&self.file, length).map_err(|error| Error::io("write", &self.path, error))
    }

    /// The file is complete, and gets its name.
    pub fn finish(mut self, sync: bool) -> Result<(), Error> {
        let failed = |path: &Path, error: Errno| Error::io("write", path, error);
        if sync {
            fs::fsync(&self.file).map_err(|error| failed(&self.path, error))?;
        }
        if self.place != Place::File {
            return Ok(());
        }
        if self.temporary.is_none() {
            match link(&self.file, &self.path) {
                Ok(()) => return self.named(sync),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(&self.path, error)),
            }
            // Something has the name: it can only be replaced by a file that has one, too.
            let _ = fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive);
            let name = self.path.file_name().unwrap_or_default();
            let linked = free_name(directory_of(&self.path), name, |temporary| link(&self.file, temporary));
            let ((), temporary) = linked.map_err(|error| failed(&self.path, error))?;
            self.temporary = Some(temporary);
        }
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(|error| failed(&self.path, error))?;
        }
        self.temporary = None;
        self.named(sync)
    }

    fn named(&self, sync: bool) -> Result<(), Error> {
        if !sync {
            return Ok(());
        }
        let directory = directory_of(&self.path);
        let open = fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        open.and_then(fs::fsync).map_err(|error| Error::io("write", directory, error))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::unlink(temporary);
        }
    }
}

/// Gives a file without a name one.
fn link(file: &File, path: &Path) -> Result<(), Errno> {
    // With AT_EMPTY_PATH this would take a capability.
    let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file.as_fd()));
    fs::linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Calls `make` with names for an incomplete file until one is free.
fn free_name<T>(
    directory: &Path,
    name: &OsStr,
    make: impl Fn(&Path) -> Result<T, Errno>,
) -> Result<(T, PathBuf), Errno> {
    let mut attempt = 0_u32;
    loop {
        let mut temporary = prefix(name);
        temporary.extend_from_slice(format!("{}-{attempt}", process::id()).as_bytes());
        temporary.extend_from_slice(PARTIAL);
        let temporary = directory.join(OsString::from_vec(temporary));
        match make(&temporary) {
            Err(Errno::EXIST) if attempt < u32::MAX => attempt += 1,
            result => return result.map(|made| (made, temporary)),
        }
    }
}

/// How the name of something incomplete begins. A long name is cut, so that there is room for the rest.
pub fn prefix(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let mut prefix = b".".to_vec();
    prefix.extend_from_slice(&name[..name.len().min(200)]);
    prefix.extend_from_slice(MARK);
    prefix
}

/// Removes incomplete files and directories for this name that nobody writes any more.
pub fn remove_leftovers(directory: &Path, name: &OsStr) {
    let prefix = prefix(name);
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(&prefix) || !name.as_bytes().ends_with(PARTIAL) {
            continue;
        }
        let path = directory.join(&name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        if let Ok(file) = fs::open(&path, flags, Mode::empty())
            && fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = match file_type(&file) {
                FileType::Directory => std::fs::remove_dir_all(&path),
                _ => std::fs::remove_file(&path),
            };
        }
    }
}

fn file_type(file: &OwnedFd) -> FileType {
    fs::fstat(file).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_when_they_are_finished_and_replace_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.iso");
        for contents in ["first", "second"] {
            let output = Output::open(&path).unwrap();
            output.file().write_all(contents.as_bytes()).unwrap();
            output.finish(true).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
        }
        let output = Output::open(&path).unwrap();
        output.file().write_all(b"never").unwrap();
        drop(output);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(names(directory.path()), ["x.iso"]);
    }

    #[test]
    fn links_are_written_through_and_directories_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let output = Output::open(&link).unwrap();
        output.file().write_all(b"new").unwrap();
        output.finish(false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(Output::open(directory.path()).is_err());
        assert!(Output::open(Path::new("/nonexistent/x")).is_err());
    }

    #[test]
    fn leftovers_are_removed_unless_somebody_writes_them() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in
            [".x.iso.nabla-iso-1-0.partial", ".y.iso.nabla-iso-1-0.partial", ".x.iso.nabla-iso-2-0.partial"]
        {
            std::fs::write(at(name), "").unwrap();
        }
        let busy = File::open(at(".x.iso.nabla-iso-2-0.partial")).unwrap();
        fs::flock(&busy, FlockOperation::LockExclusive).unwrap();
        drop(Output::open(&at("x.iso")).unwrap());
        assert_eq!(names(directory.path()), [".x.iso.nabla-iso-2-0.partial", ".y.iso.nabla-iso-1-0.partial"]);
    }
}
