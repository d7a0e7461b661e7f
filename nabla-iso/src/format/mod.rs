//! The structures of an image, byte by byte, for reading and for writing. Without allocation and without `unsafe`.
//!
//! References are to ECMA-119 (ISO 9660), 4th edition; "SUSP" is IEEE P1281 (System Use Sharing Protocol 1.12),
//! "RRIP" is IEEE P1282 (Rock Ridge Interchange Protocol 1.12).

pub mod directory_record;
pub mod int;
pub mod joliet;
pub mod path_table;
pub mod rock_ridge;
pub mod susp;
pub mod time;
pub mod volume;

pub use time::Timestamp;

/// Size of a logical sector, and of a logical block in the images that are written here (ECMA-119, 7.1.1, 7.2.1).
pub const SECTOR: usize = 2048;
/// The same for offsets.
pub const SECTOR_SIZE: u64 = SECTOR as u64;
/// The sector of the first volume descriptor; those before are the system area (ECMA-119, 7.2.1).
pub const FIRST_DESCRIPTOR: u64 = 16;
/// The longest name that Linux allows, in bytes.
pub const NAME_MAX: usize = 255;
/// The longest symbolic link that Linux allows, in bytes, without the terminating NUL.
pub const SYMLINK_MAX: usize = 4095;
/// How many levels of directories there may be, the root being the first (ECMA-119, 7.8.2).
pub const MAX_LEVELS: usize = 8;

/// A structure of the image is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatError(&'static str);

impl FormatError {
    /// With what is wrong.
    #[must_use]
    pub const fn new(what: &'static str) -> Self {
        Self(what)
    }

    /// What is wrong, in words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        self.0
    }
}

impl core::fmt::Display for FormatError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for FormatError {}
