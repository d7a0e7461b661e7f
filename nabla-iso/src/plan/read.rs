//! Reads a planned image that was not written.

use super::{Plan, render::Part, system_use::SystemUse};
use crate::{
    error::Error,
    format::SECTOR_SIZE,
    reader::Source,
    source::open::{Opened, Opener},
};
use std::{
    io,
    sync::{Mutex, PoisonError},
};

/// What the last reads have needed and the next ones may need again.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Option<(Part, Vec<u8>)>>);

impl Plan {
    /// Reads from the image at `offset` bytes, as if it had been written. Returns how many bytes there were: fewer than
    /// asked for at the end of the image only.
    ///
    /// Any number of threads may read at a time.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is not any more what it was when the plan was made.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let buffer = &mut buffer[..length];
        buffer.fill(0);
        let end = offset.saturating_add(length as u64);
        let metadata_end = self.metadata_size().min(end);
        let mut at = offset;
        while at < metadata_end {
            let start = usize::try_from(at - offset).unwrap_or(usize::MAX);
            let wanted = usize::try_from(metadata_end - offset).unwrap_or(usize::MAX);
            at += self.read_metadata(at, &mut buffer[start..wanted]) as u64;
        }
        if at < end {
            self.read_files(offset, buffer)?;
        }
        Ok(length)
    }

    /// Reads from the part in which `offset` is, at least a byte.
    fn read_metadata(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let part = self.part_at(u32::try_from(offset / SECTOR_SIZE).unwrap_or(u32::MAX));
        let mut cached = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_none_or(|(cached, _)| *cached != part) {
            let mut bytes = Vec::new();
            self.render(part, &mut SystemUse::default(), &mut bytes);
            *cached = Some((part, bytes));
        }
        let bytes = cached.as_ref().map(|(_, bytes)| &bytes[..]).unwrap_or_default();
        let start = usize::try_from(offset - self.part_offset(part)).unwrap_or(usize::MAX);
        let available = bytes.get(start..).unwrap_or_default();
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        // Parts leave no room between them.
        length.max(1)
    }

    /// Reads what of files lies in the range; the rest of the buffer is zero.
    fn read_files(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let end = offset + buffer.len() as u64;
        let blob = |index: usize| &self.tree.blobs[self.files[index] as usize];
        let start = |index: usize| u64::from(blob(index).extent) * SECTOR_SIZE;
        let files = 0..self.files.len();
        // The last file that begins at or before the range, if any, is the first that can lie in it.
        let after = self.files.partition_point(|&file| {
            u64::from(self.tree.blobs[file as usize].extent) * SECTOR_SIZE <= offset
        });
        let mut opener = Opener::new(&self.tree);
        for index in files.skip(after.saturating_sub(1)) {
            let (blob, start) = (blob(index), start(index));
            if start >= end {
                break;
            }
            let (from, to) = (start.max(offset), (start + blob.size).min(end));
            if from >= to {
                continue;
            }
            let opened: Opened<'_> = opener.open(blob)?;
            let range =
                usize::try_from(from - offset).unwrap_or(0)..usize::try_from(to - offset).unwrap_or(0);
            opener.read(blob, &opened, from - start, &mut buffer[range])?;
            opener.check(blob, &opened)?;
        }
        Ok(())
    }
}

/// An image that was not written.
impl Source for Plan {
    type Error = io::Error;

    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match Self::read_at(self, offset, buffer).map_err(io::Error::other)? {
            length if length == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
