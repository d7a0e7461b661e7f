//! What a stream is read from.

use super::block::cut_off;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read},
};

/// A regular file, in which contents can be skipped, or any stream.
pub struct Input {
    source: Source,
    /// Bytes from the beginning.
    position: u64,
}

enum Source {
    File { file: BufReader<File>, size: u64 },
    Stream(BufReader<Box<dyn Read + Send>>),
}

impl Input {
    /// A regular file, from its current position on, of `size` bytes from there.
    pub fn file(file: File, size: u64) -> Self {
        Self { source: Source::File { file: BufReader::with_capacity(64 << 10, file), size }, position: 0 }
    }

    pub fn stream(stream: Box<dyn Read + Send>) -> Self {
        Self { source: Source::Stream(BufReader::with_capacity(64 << 10, stream)), position: 0 }
    }

    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Makes sure that so many bytes follow, if that can be known.
    pub fn expect(&self, bytes: u64) -> io::Result<()> {
        match self.source {
            Source::File { size, .. } if self.position.checked_add(bytes).is_none_or(|end| end > size) => {
                Err(cut_off())
            }
            _ => Ok(()),
        }
    }

    /// Fills as much of `buffer` as there is.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Fills `buffer`.
    pub fn read_all(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.read_some(buffer)? == buffer.len() { Ok(()) } else { Err(cut_off()) }
    }

    /// Skips bytes that must be there.
    pub fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.expect(bytes)?;
        if let Source::File { file, .. } = &mut self.source {
            file.seek_relative(i64::try_from(bytes).map_err(|_| cut_off())?)?;
            self.position += bytes;
            return Ok(());
        }
        let skipped = self.discard(bytes)?;
        if skipped == bytes { Ok(()) } else { Err(cut_off()) }
    }

    /// Reads up to so many bytes for nothing.
    pub fn discard(&mut self, bytes: u64) -> io::Result<u64> {
        let mut left = bytes;
        while left > 0 {
            let there = match &mut self.source {
                Source::File { file, .. } => file.fill_buf(),
                Source::Stream(stream) => stream.fill_buf(),
            };
            let length = match there {
                Ok([]) => break,
                Ok(there) => there.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match &mut self.source {
                Source::File { file, .. } => file.consume(length),
                Source::Stream(stream) => stream.consume(length),
            }
            left -= length as u64;
            self.position += length as u64;
        }
        Ok(bytes - left)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.source {
            Source::File { file, .. } => file.read(buffer)?,
            Source::Stream(stream) => stream.read(buffer)?,
        };
        self.position += length as u64;
        Ok(length)
    }
}
