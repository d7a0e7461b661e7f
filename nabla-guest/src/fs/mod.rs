//! A read-only file system on a block device: ISO 9660 images with Rock Ridge, as `nabla iso build` makes them.
//!
//! ```ignore
//! let root = FileSystem::mount(Block::acquire("storage")?)?;
//! for entry in root.read_dir("/etc")? {
//!     println!("{}", entry?.name().escape_ascii());
//! }
//! let motd = root.read_to_string("/etc/motd")?;
//! ```

mod cache;

use alloc::{string::String, vec::Vec};
use core::fmt;

use nabla_iso::reader::{ReadDir as Entries, Volume};
pub use nabla_iso::{
    format::Timestamp,
    reader::{Entry, Kind, Node as Metadata, ReadError},
};

use self::cache::Cached;
use crate::{Block, BlockError};

/// A file system could not be mounted, or something of it not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsError {
    /// See there.
    Read(ReadError<BlockError>),
    /// A file that was to be read as text is not UTF-8.
    NotUtf8,
    /// There is not enough memory for a whole file.
    OutOfMemory,
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::NotUtf8 => f.write_str("the file is not UTF-8"),
            Self::OutOfMemory => f.write_str("the file is larger than the memory that is left"),
        }
    }
}

impl core::error::Error for FsError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Read(error) => error.source(),
            Self::NotUtf8 | Self::OutOfMemory => None,
        }
    }
}

impl From<ReadError<BlockError>> for FsError {
    fn from(error: ReadError<BlockError>) -> Self {
        Self::Read(error)
    }
}

/// A file system that is mounted. Small pieces that were read are kept, 64 KiB of them.
#[derive(Debug)]
pub struct FileSystem(Volume<Cached>);

impl FileSystem {
    /// Reads what is needed to find files.
    ///
    /// # Errors
    ///
    /// The device cannot be read, or there is no such file system on it.
    pub fn mount(device: Block) -> Result<Self, FsError> {
        Ok(Self(Volume::open(Cached::new(device))?))
    }

    /// What is known about the file at a path. Symbolic links are followed.
    ///
    /// # Errors
    ///
    /// There is no such file, or it cannot be read.
    pub fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata, FsError> {
        Ok(self.0.lookup(path.as_ref())?)
    }

    /// The same without following a symbolic link that the whole path is the name of.
    ///
    /// # Errors
    ///
    /// There is no such file, or it cannot be read.
    pub fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Metadata, FsError> {
        Ok(self.0.lookup_link(path.as_ref())?)
    }

    /// The entries of a directory, in the order of the image.
    ///
    /// # Errors
    ///
    /// There is no such directory, or it cannot be read.
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<ReadDir<'_>, FsError> {
        Ok(ReadDir(self.0.read_dir(&self.0.lookup(path.as_ref())?)?))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, FsError> {
        let node = self.0.lookup_link(path.as_ref())?;
        let mut buffer = [0; nabla_iso::format::SYMLINK_MAX];
        Ok(self.0.read_link(&node, &mut buffer)?.to_vec())
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// There is no such file, or it cannot be read.
    pub fn open(&self, path: impl AsRef<[u8]>) -> Result<File<'_>, FsError> {
        let metadata = self.0.lookup(path.as_ref())?;
        // Tells directories and the like from files.
        self.0.read_file(&metadata, 0, &mut [])?;
        Ok(File { system: self, metadata, at: 0 })
    }

    /// All bytes of a file.
    ///
    /// # Errors
    ///
    /// There is no such file, it cannot be read, or there is not enough memory.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, FsError> {
        let file = self.open(path)?;
        let size = usize::try_from(file.metadata.size).map_err(|_| FsError::OutOfMemory)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| FsError::OutOfMemory)?;
        bytes.resize(size, 0);
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// A whole file as text.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], or it is not UTF-8.
    pub fn read_to_string(&self, path: impl AsRef<[u8]>) -> Result<String, FsError> {
        String::from_utf8(self.read(path)?).map_err(|_| FsError::NotUtf8)
    }
}

/// The entries of a directory. Ends after an error.
#[derive(Debug)]
pub struct ReadDir<'f>(Entries<'f, Cached>);

impl Iterator for ReadDir<'_> {
    type Item = Result<Entry, FsError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map_err(FsError::Read))
    }
}

/// A file that is open for reading.
#[derive(Debug, Clone)]
pub struct File<'f> {
    system: &'f FileSystem,
    metadata: Metadata,
    at: u64,
}

impl File<'_> {
    /// What is known about it.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Reads the next bytes. Returns how many there were: fewer than asked for at the end only.
    ///
    /// # Errors
    ///
    /// The device cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FsError> {
        let length = self.read_at(self.at, buffer)?;
        self.at += length as u64;
        Ok(length)
    }

    /// Reads bytes at an offset, without moving on.
    ///
    /// # Errors
    ///
    /// The device cannot be read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, FsError> {
        Ok(self.system.0.read_file(&self.metadata, offset, buffer)?)
    }

    /// The next read begins here.
    pub const fn seek(&mut self, offset: u64) {
        self.at = offset;
    }
}
