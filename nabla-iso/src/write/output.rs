//! A file that appears under its name when it is complete.

use crate::{
    error::Error,
    host::partial::{directory_of, free_name, remove_stale},
};
use rustix::{
    fd::AsFd,
    fs::{self, AtFlags, CWD, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    fs::File,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// What an image is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
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
    kind: TargetKind,
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
            let kind =
                if there.file_type().is_block_device() { TargetKind::Device } else { TargetKind::Stream };
            return Ok(Self { path, file, kind, temporary: None });
        }
        let Some(name) = path.file_name() else { return Err(Error::io("write", &path, Errno::ISDIR)) };
        let directory = directory_of(&path);
        remove_stale(directory, name);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        let failed = |error: Errno| Error::io("make a file in", directory, error);
        // A file without a name can get one through /proc only.
        let unnamed = if Path::new("/proc/self/fd").exists() {
            fs::open(directory, flags | OFlags::TMPFILE, mode)
        } else {
            Err(Errno::OPNOTSUPP)
        };
        match unnamed {
            Ok(file) => Ok(Self { path, file: file.into(), kind: TargetKind::File, temporary: None }),
            // The file system has no files without names.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let (file, temporary) = free_name(directory, name, |temporary| {
                    fs::open(temporary, flags | OFlags::CREATE | OFlags::EXCL, mode)
                })
                .map_err(failed)?;
                // So that it is not taken for a stale one. No other program has it open.
                let _ = fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
                Ok(Self { path, file: file.into(), kind: TargetKind::File, temporary: Some(temporary) })
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub const fn kind(&self) -> TargetKind {
        self.kind
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
        if self.kind != TargetKind::File {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsString, io::Write};

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
