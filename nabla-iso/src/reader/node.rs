//! What is known about a file.

use super::{ReadError, Source, Volume, broken};
use crate::format::{
    FormatError, SECTOR, SECTOR_SIZE, Timestamp,
    directory_record::{DirectoryRecord, FLAG_MULTI_EXTENT},
    rock_ridge as rr,
};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    pub(crate) const fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & rr::S_IFMT {
            rr::S_IFREG => Self::File,
            rr::S_IFDIR => Self::Directory,
            rr::S_IFLNK => Self::Symlink,
            rr::S_IFCHR => Self::CharacterDevice,
            rr::S_IFBLK => Self::BlockDevice,
            rr::S_IFIFO => Self::Fifo,
            rr::S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }
}

/// A file of an image: what is recorded about it, and where its bytes are. Small, and of use with its own
/// [`Volume`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Kind and permissions, as `st_mode` has them.
    pub mode: u32,
    /// Names that it says it has.
    pub links: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Its serial number, the same for all its names, if the image has such numbers.
    pub serial: Option<u32>,
    /// When it was modified last.
    pub time: Option<Timestamp>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// The first block of its first section.
    pub extent: u32,
    /// How many sections it has.
    pub sections: u32,
    /// Where its record is: sector and offset in it.
    pub(crate) record: (u32, u32),
    /// The first sector behind the directory with its record.
    pub(crate) record_end: u32,
}

impl Node {
    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

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
            let behind = start + u64::from(bytes);
            let (from, to) = (start.max(offset), behind.min(end));
            if from < to {
                let range =
                    usize::try_from(from - offset).unwrap_or(0)..usize::try_from(to - offset).unwrap_or(0);
                self.read_extent(extent, from - start, &mut buffer[range])?;
            }
            start = behind;
            Ok(start < end)
        })?;
        Ok(length)
    }

    /// Reads from an extent that was checked when the node was made.
    fn read_extent(&self, extent: u32, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError<S::Error>> {
        self.source.read_at(u64::from(extent) * SECTOR_SIZE + offset, buffer).map_err(ReadError::Source)
    }

    /// Calls `each` with the first block and the bytes of every section of a file, as long as it returns true.
    pub(crate) fn sections(
        &self,
        node: &Node,
        mut each: impl FnMut(u32, u32) -> Result<bool, ReadError<S::Error>>,
    ) -> Result<(), ReadError<S::Error>> {
        let (mut at, mut offset) = node.record;
        let mut sector = [0; SECTOR];
        self.read_sector(at, &mut sector)?;
        loop {
            let record =
                DirectoryRecord::parse(&sector, offset as usize).map_err(|error| broken(at, error))?;
            let Some(record) = record else {
                at += 1;
                if at >= node.record_end {
                    return Err(broken(at - 1, FormatError::new("a file's last section is missing")));
                }
                offset = 0;
                self.read_sector(at, &mut sector)?;
                continue;
            };
            self.check_extent(record.fields.extent, record.fields.length.into(), at)?;
            let more = record.fields.flags & FLAG_MULTI_EXTENT != 0;
            if !each(record.fields.extent, record.fields.length)? || !more {
                return Ok(());
            }
            offset += u32::try_from(record.length).unwrap_or(u32::MAX);
        }
    }
}
