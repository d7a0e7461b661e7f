//! What of a file is loaded, and how it may be used.

use super::{page_down, page_up};
use core::{fmt, ops::Range};

const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// What a guest may do with a range of its memory.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// Load from it.
    pub read: bool,
    /// Store to it.
    pub write: bool,
    /// Run code in it.
    pub execute: bool,
}

impl Permissions {
    /// Read and write: heap and stack.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };

    /// What `p_flags` of a program header allows.
    pub(super) const fn from_flags(flags: u32) -> Self {
        Self { read: flags & PF_R != 0, write: flags & PF_W != 0, execute: flags & PF_X != 0 }
    }

    /// Everything that either allows.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            write: self.write || other.write,
            execute: self.execute || other.execute,
        }
    }

    /// Whether what can be written can be executed.
    #[must_use]
    pub const fn is_writable_and_executable(self) -> bool {
        self.write && self.execute
    }
}

impl fmt::Display for Permissions {
    /// Three letters, as in `/proc/PID/maps`: `r-x`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |on: bool, letter: char| if on { letter } else { '-' };
        write!(f, "{}{}{}", letter(self.read, 'r'), letter(self.write, 'w'), letter(self.execute, 'x'))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A part of the file that is loaded. Validated: see [`ElfError`](super::ElfError) for what cannot occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Index of its program header.
    pub index: u16,
    /// Address of its first byte.
    pub address: u64,
    /// Bytes in memory, at least `file_size` and at least 1; those after `file_size` are zero.
    pub memory_size: u64,
    /// Where its bytes start in the file; 0 when there are none.
    pub file_offset: u64,
    /// Bytes in the file; 0 for a segment that is all zero.
    pub file_size: u64,
    /// What the guest may do with it.
    pub permissions: Permissions,
}

impl Segment {
    /// Address after its last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_size)
    }

    /// The pages it touches: page-aligned addresses.
    #[must_use]
    pub const fn pages(&self) -> Range<u64> {
        page_down(self.address)..page_up(self.end())
    }
}

/// A run of pages that have the same permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRange {
    /// Page-aligned addresses.
    pub pages: Range<u64>,
    /// What the guest may do with them.
    pub permissions: Permissions,
}

/// A range of bytes in the file. Validated: it lies inside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange {
    /// Index of the program header.
    pub index: u16,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

/// A program header that is not loaded and looks odd: it reaches past the end of the file, or claims more bytes in
/// the file than in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OddHeader {
    /// Index of the program header.
    pub index: u16,
    /// Its `p_type`.
    pub kind: u32,
    /// Its `p_filesz`, in bytes.
    pub file_size: u64,
    /// Its `p_memsz`, in bytes.
    pub memory_size: u64,
}
