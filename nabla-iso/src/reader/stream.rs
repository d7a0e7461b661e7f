//! Images in files, and files as streams.

use super::{
    error::ReadError,
    node::Node,
    volume::{Source, Volume},
};
use rustix::fs::OFlags;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
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
    /// There is none, or it cannot be read, or is a directory, a pipe or a socket. It does not wait for somebody who opens
    /// the other end of a pipe.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?)
    }

    /// Takes an open file.
    ///
    /// # Errors
    ///
    /// It cannot be asked for its size.
    pub fn new(file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if kind.is_fifo() || kind.is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file and no block device"));
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

    fn next_data(&self, offset: u64, end: u64) -> Option<(u64, u64)> {
        use rustix::{fs::SeekFrom, io::Errno};
        if offset >= end {
            return None;
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) if start < end => start,
            Ok(_) | Err(Errno::NXIO) => return None,
            // A device, or a file system without holes.
            Err(_) => return Some((offset, end)),
        };
        let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(end);
        Some((start, hole.clamp(start + 1, end)))
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
    /// Where each section begins in the file, and its first block. Finding them anew for each read would take time with
    /// the square of their number.
    sections: Vec<(u64, u32)>,
}

impl<S: Source<Error = io::Error>> Volume<S> {
    /// Opens a file by its path, following symbolic links.
    ///
    /// # Errors
    ///
    /// There is none, or it is no regular file.
    pub fn open_file(&self, path: &[u8]) -> Result<FileReader<'_, S>, ReadError<io::Error>> {
        self.open_node(&self.lookup(path)?)
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// It is no regular file, or its sections cannot be found.
    pub fn open_node(&self, node: &Node) -> Result<FileReader<'_, S>, ReadError<io::Error>> {
        self.read_file(node, 0, &mut [])?;
        let mut sections = Vec::new();
        if node.sections == 1 {
            sections.push((0, node.extent));
        } else {
            let mut start = 0;
            self.sections(node, |extent, bytes| {
                sections.push((start, extent));
                start += u64::from(bytes);
                Ok(true)
            })?;
        }
        Ok(FileReader { volume: self, node: *node, at: 0, sections })
    }
}

impl<S> FileReader<'_, S> {
    /// What is known about it.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }
}

impl<S: Source<Error = io::Error>> FileReader<'_, S> {
    /// Where the section begins in which the next byte is, its first block, and where it ends.
    fn section(&self) -> (u64, u32, u64) {
        let number = self.sections.partition_point(|(start, _)| *start <= self.at).saturating_sub(1);
        let (start, extent) = self.sections.get(number).copied().unwrap_or_default();
        let end = self.sections.get(number + 1).map_or(self.node.size, |(next, _)| *next);
        (start, extent, end)
    }

    /// Moves to the next byte that is not known to be zero; false if there is none. Returns how many bytes from there on
    /// are worth reading.
    pub(crate) fn skip_holes(&mut self) -> Option<u64> {
        while self.at < self.node.size {
            let (start, extent, end) = self.section();
            let base = self.volume.offset(extent);
            match self.volume.source().next_data(base + self.at - start, base + end - start) {
                Some((from, to)) => {
                    self.at = from - base + start;
                    return Some(to - from);
                }
                None => self.at = end,
            }
        }
        None
    }

    /// Where the next byte is read.
    pub(crate) const fn position(&self) -> u64 {
        self.at
    }
}

impl<S: Source<Error = io::Error>> Read for FileReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        // Sections may be small, so one call reads from several.
        while filled < buffer.len() && self.at < self.node.size {
            let (start, extent, end) = self.section();
            let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            let part = left.min(buffer.len() - filled);
            self.volume.read_extent(extent, self.at - start, &mut buffer[filled..filled + part])?;
            (filled, self.at) = (filled + part, self.at + part as u64);
        }
        Ok(filled)
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
