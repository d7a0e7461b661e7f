//! Where the bytes of an image come from.

use alloc::{string::String, vec, vec::Vec};
use thiserror::Error;

/// Random access to the bytes of an image.
///
/// A monitor implements this on an open file, so that only the headers and notes of an image are read, whatever
/// its size. `[u8]` implements it for images in memory.
pub trait ReadAt {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// When not every byte could be read; a file that ends early is an error too.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError>;
}

/// A read of the image failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot read {length} bytes at offset {offset:#x}: {reason}")]
pub struct SourceError {
    /// Where the read started.
    pub offset: u64,
    /// How many bytes were wanted.
    pub length: usize,
    /// Why it failed, in words.
    pub reason: String,
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or_else(|| SourceError { offset, length: buffer.len(), reason: "it ends before".into() })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        (**self).read_at(offset, buffer)
    }
}

/// Reads `length` bytes, which the caller has bounded.
pub(crate) fn read_vec(
    source: &(impl ReadAt + ?Sized),
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, SourceError> {
    let mut bytes = vec![0; length];
    source.read_at(offset, &mut bytes)?;
    Ok(bytes)
}
