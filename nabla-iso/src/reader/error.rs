//! What can go wrong when an image is read.

use super::node::Encoding;
use crate::format::{FormatError, SECTOR_SIZE};
use core::{error::Error, fmt};

/// Why something of an image cannot be read. The source's or the format's error is the `source()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError<E> {
    /// The source could not be read.
    Source(E),
    /// The image is broken.
    Broken {
        /// The sector, of 2048 bytes, that says what cannot be.
        sector: u32,
        /// What is wrong.
        error: FormatError,
    },
    /// There is no file of this name.
    NotFound,
    /// Something on the way is no directory, or was to be listed and is none.
    NotADirectory,
    /// A directory was to be read as a file.
    IsADirectory,
    /// The file is recorded in a form that is not supported.
    Encoded(Encoding),
    /// There are no bytes to read: it is a device, a link or a pipe.
    NotAFile,
    /// There are more than 40 symbolic links on the way.
    TooManyLinks,
    /// With its symbolic links, a path is longer than 4095 bytes.
    PathTooLong,
}

impl<E> fmt::Display for ReadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(_) => f.write_str("the image cannot be read"),
            Self::Broken { sector, .. } => write!(f, "the image is broken in sector {sector}"),
            Self::NotFound => f.write_str("there is no such file"),
            Self::NotADirectory => f.write_str("it is no directory"),
            Self::IsADirectory => f.write_str("it is a directory"),
            Self::Encoded(Encoding::Zisofs) => {
                f.write_str("the file is compressed (zisofs), which is not supported")
            }
            Self::Encoded(_) => f.write_str("the file is interleaved, which is not supported"),
            Self::NotAFile => f.write_str("it is no regular file"),
            Self::TooManyLinks => f.write_str("there are more than 40 symbolic links on the way"),
            Self::PathTooLong => f.write_str("the path is longer than 4095 bytes"),
        }
    }
}

impl<E: Error + 'static> Error for ReadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Source(error) => Some(error),
            Self::Broken { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What is recorded at `at`, an offset in bytes, is wrong.
pub(crate) fn broken<E>(at: u64, error: FormatError) -> ReadError<E> {
    ReadError::Broken { sector: u32::try_from(at / SECTOR_SIZE).unwrap_or(u32::MAX), error }
}
