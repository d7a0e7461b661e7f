//! Errors that more than one module has.

use core::fmt;

use crate::{BlockError, NetError};

/// A device cannot be had by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// The guest's [`entry!`](crate::entry!) declares no device with this name.
    NotDeclared,
    /// There is a device with this name, but of another kind.
    WrongKind,
    /// The device is declared but the monitor has attached nothing to it. Monitors refuse to start such a
    /// guest, so this is not to be expected.
    NotAttached,
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDeclared => "no device with this name is declared in the guest's entry!",
            Self::WrongKind => "the device with this name is of another kind",
            Self::NotAttached => "nothing is attached to the device with this name",
        })
    }
}

impl core::error::Error for AcquireError {}

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
