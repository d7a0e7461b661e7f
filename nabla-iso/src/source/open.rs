//! Opening contents again, and making sure that they are what was planned.

use super::{
    blob::{Blob, BlobSource, Identity},
    tree::Tree,
};
use crate::error::Error;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, Mode, OFlags},
    io::{self, Errno},
};
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether files can be opened with `O_NOATIME`. The kernel allows that to owners and to root.
static NO_ACCESS_TIME: AtomicBool = AtomicBool::new(true);

/// Opens contents. Keeps the directory of the last file open, since the next is most often there, too.
#[derive(Debug)]
pub struct Opener<'a> {
    tree: &'a Tree,
    directory: Option<(u32, OwnedFd)>,
}

/// Contents that can be read.
#[derive(Debug)]
pub enum Opened<'a> {
    /// A file, opened for this.
    File(OwnedFd),
    /// From this offset of a file that stays open.
    Part(BorrowedFd<'a>, u64),
    /// In memory.
    Bytes(&'a [u8]),
}

impl Opened<'_> {
    /// The file and where the contents begin in it, unless they are in memory.
    pub fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        match self {
            Self::File(fd) => Some((fd.as_fd(), 0)),
            Self::Part(fd, offset) => Some((*fd, *offset)),
            Self::Bytes(_) => None,
        }
    }
}

impl<'a> Opener<'a> {
    pub const fn new(tree: &'a Tree) -> Self {
        Self { tree, directory: None }
    }

    /// The host's path, for errors.
    pub fn path(&self, blob: &Blob) -> PathBuf {
        self.tree.sources.path(&self.tree.names, &blob.source)
    }

    /// Opens contents that are not empty.
    pub fn open(&mut self, blob: &Blob) -> Result<Opened<'a>, Error> {
        let sources = &self.tree.sources;
        match blob.source {
            BlobSource::Walked { directory, name, .. } => {
                if self.directory.as_ref().is_none_or(|(number, _)| *number != directory) {
                    let fd = sources.open_directory(&self.tree.names, directory)?;
                    self.directory = Some((directory, fd));
                }
                let Some((_, parent)) = &self.directory else { unreachable!("it was opened above") };
                let name = OsStr::from_bytes(self.tree.text(name));
                open(parent.as_fd(), name, OFlags::NOFOLLOW)
            }
            BlobSource::Path { path, .. } => {
                open(fs::CWD, sources.paths[path as usize].as_os_str(), OFlags::empty())
            }
            BlobSource::Bytes(number) => return Ok(Opened::Bytes(&sources.bytes[number as usize])),
            BlobSource::Part { file, offset } => {
                return Ok(Opened::Part(sources.files[file as usize].1.as_fd(), offset));
            }
            BlobSource::Same(_) => return Err(Error::TooMany),
        }
        .map(Opened::File)
        .map_err(|error| match error {
            Errno::NOENT => Error::Changed { path: self.path(blob), what: "it is gone" },
            // It has become a symbolic link.
            Errno::LOOP => Error::Changed { path: self.path(blob), what: "it is another file" },
            error => Error::io("open", self.path(blob), error),
        })
    }

    /// Makes sure that a file has not changed since the plan was made. Called after its bytes have been read, this
    /// covers the time until then.
    pub fn check(&self, blob: &Blob, opened: &Opened<'_>) -> Result<(), Error> {
        let (BlobSource::Walked { identity, .. } | BlobSource::Path { identity, .. }) = blob.source else {
            return Ok(());
        };
        let Opened::File(fd) = opened else { return Ok(()) };
        let stat = fs::fstat(fd).map_err(|error| Error::io("look at", self.path(blob), error))?;
        let now = Identity::of(&stat);
        let what = if now.inode != identity.inode {
            "it is another file"
        } else if u64::try_from(stat.st_size) != Ok(blob.size) {
            "its size is different"
        } else if now != identity {
            "it was written to"
        } else {
            return Ok(());
        };
        Err(Error::Changed { path: self.path(blob), what })
    }

    /// Reads bytes of the contents into all of `buffer`.
    pub fn read(
        &self,
        blob: &Blob,
        opened: &Opened<'_>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let Some((fd, base)) = opened.file() else {
            let Opened::Bytes(bytes) = opened else { return Ok(()) };
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            match bytes.get(start..).and_then(|rest| rest.get(..buffer.len())) {
                Some(part) => buffer.copy_from_slice(part),
                None => return Err(Error::Changed { path: self.path(blob), what: "its size is different" }),
            }
            return Ok(());
        };
        let (mut at, mut rest) = (base + offset, buffer);
        while !rest.is_empty() {
            match io::pread(fd, &mut *rest, at) {
                Ok(0) => return Err(Error::Changed { path: self.path(blob), what: "it is shorter" }),
                Ok(length) => {
                    at += length as u64;
                    rest = &mut rest[length..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("read", self.path(blob), error)),
            }
        }
        Ok(())
    }

    /// The next part of the contents, from `offset` on and before `end`, that is no hole.
    pub fn next_data(
        &self,
        blob: &Blob,
        opened: &Opened<'_>,
        offset: u64,
        end: u64,
    ) -> Result<Option<(u64, u64)>, Error> {
        if offset >= end {
            return Ok(None);
        }
        let Some((fd, base)) = opened.file().filter(|_| blob.sparse) else { return Ok(Some((offset, end))) };
        let failed = |error| Error::io("look for holes in", self.path(blob), error);
        let start = match fs::seek(fd, fs::SeekFrom::Data(base + offset)) {
            Ok(start) => start.saturating_sub(base).max(offset),
            // No data up to the file's end.
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL) => return Ok(Some((offset, end))),
            Err(error) => return Err(failed(error)),
        };
        if start >= end {
            return Ok(None);
        }
        let hole = fs::seek(fd, fs::SeekFrom::Hole(base + start)).map_err(failed)?;
        Ok(Some((start, hole.saturating_sub(base).clamp(start, end))))
    }
}

/// Opens a file for reading, without waiting for anybody should it have become a pipe.
fn open(at: BorrowedFd<'_>, name: &OsStr, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    if NO_ACCESS_TIME.load(Ordering::Relaxed) {
        match fs::openat(at, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => NO_ACCESS_TIME.store(false, Ordering::Relaxed),
            result => return result,
        }
    }
    fs::openat(at, name, flags, Mode::empty())
}
