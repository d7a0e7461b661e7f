//! The file system on the guest's disk as where files come from.

use httpd::{Entry, File, Files};
use nabla_guest::fs::{self, FileSystem, FsError, ReadError};

/// A file system that is mounted as long as the guest runs.
#[derive(Debug, Clone, Copy)]
pub struct Root(pub &'static FileSystem);

/// A file of it.
#[derive(Debug, Clone)]
pub struct RootFile(fs::File<'static>);

impl Files for Root {
    type File = RootFile;
    type Error = FsError;

    fn open(&self, path: &str) -> Result<Entry<RootFile>, FsError> {
        match self.0.open(path) {
            Ok(file) => Ok(Entry::File(RootFile(file))),
            Err(FsError::Read(ReadError::IsADirectory)) => Ok(Entry::Directory),
            // Devices and the like have nothing to send, and a link that leads nowhere is nothing.
            Err(FsError::Read(
                ReadError::NotFound
                | ReadError::NotADirectory
                | ReadError::NotAFile
                | ReadError::TooManyLinks
                | ReadError::PathTooLong,
            )) => Ok(Entry::Missing),
            Err(error) => Err(error),
        }
    }
}

impl File for RootFile {
    type Error = FsError;

    fn size(&self) -> u64 {
        self.0.metadata().size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FsError> {
        self.0.read_at(offset, buffer).map(drop)
    }
}
