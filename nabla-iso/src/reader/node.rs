//! What is known about a file.

use crate::format::{Timestamp, rock_ridge as rr};

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

/// How a file's bytes are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// As they are.
    #[default]
    Plain,
    /// Compressed, as zisofs does it (an entry `ZF` of the system use area).
    Zisofs,
    /// In pieces with gaps between them (ECMA-119, 9.1.7 and 9.1.8).
    Interleaved,
}

/// A file of an image: what is recorded about it, and where its bytes are. Small, and of use with its own
/// [`Volume`](super::Volume) only.
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
    /// How they are recorded. Only what is plain can be read.
    pub encoding: Encoding,
    /// The first block of its first section.
    pub extent: u32,
    /// How many sections it has.
    pub sections: u32,
    /// Where its record is: the place of a sector in the image, in bytes, and the offset in it.
    pub(crate) record: (u64, usize),
    /// Where the directory with its record ends.
    pub(crate) record_end: u64,
}

impl Node {
    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}
