//! Images in files, and files as streams.

use super::{
    error::ReadError,
    node::Node,
    volume::{Source, Volume},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
};

/// An image in a file or on a device.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    size: u64,
}

impl ImageFile {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read or is a directory.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }

    /// Takes an open file.
    ///
    /// # Errors
    ///
    /// It cannot be asked for its size.
    pub fn new(file: File) -> io::Result<Self> {
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Devices have no length, but an end.
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(Self { file, size })
    }
}

impl Source for ImageFile {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl Source for [u8] {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Source for &[u8] {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        <[u8] as Source>::read_at(self, offset, buffer)
    }
}

impl From<ReadError<Self>> for io::Error {
    fn from(error: ReadError<Self>) -> Self {
        let kind = match error {
            ReadError::Source(error) => return error,
            ReadError::NotFound => io::ErrorKind::NotFound,
            ReadError::NotADirectory => io::ErrorKind::NotADirectory,
            ReadError::IsADirectory => io::ErrorKind::IsADirectory,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// A file of an image, to be read as a stream.
#[derive(Debug)]
pub struct FileReader<'v, S> {
    volume: &'v Volume<S>,
    node: Node,
    at: u64,
}

impl<S: Source<Error = io::Error>> Volume<S> {
    /// Opens a file by its path, following symbolic links.
    ///
    /// # Errors
    ///
    /// There is none, or it is no regular file.
    pub fn open_file(&self, path: &[u8]) -> Result<FileReader<'_, S>, ReadError<io::Error>> {
        let node = self.lookup(path)?;
        self.read_file(&node, 0, &mut [])?;
        Ok(FileReader { volume: self, node, at: 0 })
    }
}

impl<S> FileReader<'_, S> {
    /// What is known about it.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }
}

impl<S: Source<Error = io::Error>> Read for FileReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.volume.read_file(&self.node, self.at, buffer)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl<S> Seek for FileReader<'_, S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.node.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
