//! The contents of files.

use super::{
    error::{ReadError, broken},
    node::{Encoding, Kind, Node},
    volume::{Source, Volume},
};
use crate::format::{
    FormatError, SECTOR, SECTOR_SIZE,
    directory_record::{DirectoryRecord, FLAG_MULTI_EXTENT},
};

impl<S: Source> Volume<S> {
    /// Reads bytes of a file at `offset`. Returns how many there were: fewer than asked for at its end only.
    ///
    /// # Errors
    ///
    /// It is no regular file, or cannot be read.
    pub fn read_file(
        &self,
        node: &Node,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, ReadError<S::Error>> {
        match node.kind {
            Kind::File => {}
            Kind::Directory => return Err(ReadError::IsADirectory),
            _ => return Err(ReadError::NotAFile),
        }
        if node.encoding != Encoding::Plain {
            return Err(ReadError::Encoded(node.encoding));
        }
        let left = usize::try_from(node.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let buffer = &mut buffer[..length];
        if length == 0 {
            return Ok(0);
        }
        if node.sections == 1 {
            self.read_extent(node.extent, offset, buffer)?;
            return Ok(length);
        }
        let end = offset + length as u64;
        let mut start = 0;
        self.sections(node, |extent, bytes| {
            let after = start + u64::from(bytes);
            let (from, to) = (start.max(offset), after.min(end));
            if from < to {
                let range =
                    usize::try_from(from - offset).unwrap_or(0)..usize::try_from(to - offset).unwrap_or(0);
                self.read_extent(extent, from - start, &mut buffer[range])?;
            }
            start = after;
            Ok(start < end)
        })?;
        Ok(length)
    }

    /// Reads from an extent that was checked when the node was made.
    pub(super) fn read_extent(
        &self,
        extent: u32,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), ReadError<S::Error>> {
        self.source.read_at(self.offset(extent) + offset, buffer).map_err(ReadError::Source)
    }

    /// Calls `each` with the first block and the bytes of every section of a file, as long as it returns true.
    pub(crate) fn sections(
        &self,
        node: &Node,
        mut each: impl FnMut(u32, u32) -> Result<bool, ReadError<S::Error>>,
    ) -> Result<(), ReadError<S::Error>> {
        let (mut at, mut offset) = node.record;
        let mut sector = [0; SECTOR];
        self.read_sector(at, node.record_end, &mut sector)?;
        loop {
            let record = DirectoryRecord::parse(&sector, offset).map_err(|error| broken(at, error))?;
            let Some(record) = record else {
                (at, offset) = (at + SECTOR_SIZE, 0);
                if at >= node.record_end {
                    return Err(broken(at, FormatError::new("a file's last section is missing")));
                }
                self.read_sector(at, node.record_end, &mut sector)?;
                continue;
            };
            self.check_extent(record.fields.extent, record.fields.length.into(), at)?;
            let more = record.fields.flags & FLAG_MULTI_EXTENT != 0;
            if !each(record.fields.extent, record.fields.length)? || !more {
                return Ok(());
            }
            offset += record.length;
        }
    }
}
