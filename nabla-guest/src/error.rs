//! One error for all.

use core::fmt;

use crate::{block::BlockError, boot::AcquireError, net::NetError};

/// Any error of this crate, for a `main` that uses `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A device could not be acquired.
    Acquire(AcquireError),
    /// A block device could not be read or written.
    Block(BlockError),
    /// A network device could not be read or written.
    Net(NetError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire(error) => error.fmt(f),
            Self::Block(error) => error.fmt(f),
            Self::Net(error) => error.fmt(f),
        }
    }
}

// The messages above are those of the inner errors, which therefore are no sources.
impl core::error::Error for Error {}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        Self::Acquire(error)
    }
}

impl From<BlockError> for Error {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

impl From<NetError> for Error {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}
