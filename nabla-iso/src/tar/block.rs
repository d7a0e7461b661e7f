//! Blocks, and what is wrong with them.

use std::io::{self, ErrorKind};

/// Bytes of a block, the unit of everything in a tar stream.
pub const BLOCK: usize = 512;
/// The same for offsets.
pub const BLOCK_SIZE: u64 = BLOCK as u64;

/// Bytes from the end of `size` bytes to the next block.
pub const fn padding(size: u64) -> u64 {
    (BLOCK_SIZE - size % BLOCK_SIZE) % BLOCK_SIZE
}

/// A stream that ends too early.
pub fn cut_off() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "it is cut off")
}

/// What is wrong with a stream.
pub fn broken(why: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.into())
}
