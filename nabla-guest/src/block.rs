//! Block devices.

use core::fmt;

use nabla_core::abi::mft::{Entry, TYPE_BLOCK};

use crate::{
    boot::{self, AcquireError},
    sys,
};

/// A block device.
///
/// Offsets are in bytes from the device's start. A handle is nothing but a reference to the device, so there
/// can be several for one.
#[derive(Clone, Copy)]
pub struct Block {
    index: usize,
    entry: &'static Entry,
}

/// Reading or writing a block device failed. Nothing was transferred unless it is [`BlockError::Io`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The offset or the length is not a multiple of the block size.
    Misaligned {
        /// The offset that was asked for, in bytes.
        offset: u64,
        /// The length that was asked for, in bytes.
        len: usize,
        /// The block size in bytes.
        block_size: usize,
    },
    /// The range does not lie within the device.
    OutOfRange {
        /// The offset that was asked for, in bytes.
        offset: u64,
        /// The length that was asked for, in bytes.
        len: usize,
        /// The capacity of the device in bytes.
        capacity: u64,
    },
    /// The host could not do it; a part may have been transferred. Hosts do not say why: among the reasons
    /// are a disk that is read-only or has become shorter, and a defect of the medium.
    Io {
        /// The offset that was asked for, in bytes.
        offset: u64,
        /// The length that was asked for, in bytes.
        len: usize,
    },
}

impl Block {
    /// The block device that the guest's [`entry!`](crate::entry!) declares as `name`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] when there is no block device of this name.
    pub fn acquire(name: &str) -> Result<Self, AcquireError> {
        boot::device(name, TYPE_BLOCK).map(|(index, entry)| Self { index, entry })
    }

    /// The size of the device in bytes, a multiple of the block size and at least one block.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.entry.capacity()
    }

    /// The size of a block in bytes, a power of two from 512 to 32768.
    #[must_use]
    pub fn block_size(&self) -> usize {
        usize::from(self.entry.block_size())
    }

    /// Reads `buffer.len()` bytes at `offset`, both multiples of the block size.
    ///
    /// # Errors
    ///
    /// [`BlockError`]; `buffer` has changed at most if it is [`BlockError::Io`].
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        self.check_alignment(offset, buffer.len())?;
        self.check_bounds(offset, buffer.len())?;
        let len = buffer.len();
        sys::block_read(self.index, self.entry, offset, buffer).map_err(|_| BlockError::Io { offset, len })
    }

    /// Writes `data` at `offset`; its length and `offset` are multiples of the block size.
    ///
    /// # Errors
    ///
    /// [`BlockError`]; the device has changed at most if it is [`BlockError::Io`].
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        self.check_alignment(offset, data.len())?;
        self.check_bounds(offset, data.len())?;
        sys::block_write(self.index, self.entry, offset, data)
            .map_err(|_| BlockError::Io { offset, len: data.len() })
    }

    /// Reads `buffer.len()` bytes at `offset`, wherever blocks begin and end.
    ///
    /// Whole blocks go straight to `buffer`; the blocks at its ends go through the stack, of which this takes
    /// a little more than one block.
    ///
    /// # Errors
    ///
    /// [`BlockError`], but never [`BlockError::Misaligned`]; `buffer` has changed at most if it is
    /// [`BlockError::Io`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        self.check_bounds(offset, buffer.len())?;
        // A function for each size, so that small blocks do not take the stack that large ones do.
        match self.block_size() {
            ..=512 => self.read_unaligned::<512>(offset, buffer),
            513..=4096 => self.read_unaligned::<4096>(offset, buffer),
            _ => self.read_unaligned::<32768>(offset, buffer),
        }
    }

    /// Reads any range within the capacity; `SCRATCH` is at least the block size.
    #[inline(never)]
    fn read_unaligned<const SCRATCH: usize>(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BlockError> {
        let mut scratch = [0; SCRATCH];
        let block = &mut scratch[..self.block_size()];
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let within = self.within_block(offset);
            let take = if within == 0 && rest.len() >= block.len() {
                let whole = rest.len() - rest.len() % block.len();
                self.read(offset, &mut rest[..whole])?;
                whole
            } else {
                let take = rest.len().min(block.len() - within);
                self.read(offset - within as u64, block)?;
                rest[..take].copy_from_slice(&block[within..within + take]);
                take
            };
            offset += take as u64;
            rest = &mut rest[take..];
        }
        Ok(())
    }

    /// How far after the start of its block `offset` is.
    fn within_block(&self, offset: u64) -> usize {
        sys::word(offset % u64::from(self.entry.block_size()))
    }

    fn check_alignment(&self, offset: u64, len: usize) -> Result<(), BlockError> {
        let block_size = self.block_size();
        if self.within_block(offset) == 0 && len.is_multiple_of(block_size) {
            Ok(())
        } else {
            Err(BlockError::Misaligned { offset, len, block_size })
        }
    }

    fn check_bounds(&self, offset: u64, len: usize) -> Result<(), BlockError> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.capacity() => Ok(()),
            _ => Err(BlockError::OutOfRange { offset, len, capacity: self.capacity() }),
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("index", &self.index)
            .field("capacity", &self.capacity())
            .field("block_size", &self.block_size())
            .finish()
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { offset, len, block_size } => {
                write!(f, "{len} bytes at {offset} are not whole blocks of {block_size} bytes")
            }
            Self::OutOfRange { offset, len, capacity } => {
                write!(f, "{len} bytes at {offset} are beyond the {capacity} bytes of the device")
            }
            Self::Io { offset, len } => write!(f, "the host failed to transfer {len} bytes at {offset}"),
        }
    }
}

impl core::error::Error for BlockError {}
