//! Reads tar streams: those of V7, ustar, star, pax, GNU, BSD, and what programs make of them.
//!
//! Like GNU tar and libarchive it believes what is unambiguous, whatever the letter of the standard says, and it is
//! strict where bytes would go astray: checksums, sizes and maps of sparse files. What it holds in memory is limited:
//! an extended header has up to 1 MiB, a path up to 4095 bytes, and the map of a sparse file up to 2^20 parts.

mod archive;
mod block;
mod field;
mod header;
mod input;
mod pax;
mod sparse;

pub use archive::{Archive, Broken, Member};
pub use header::Kind;
pub use input::Input;
pub use sparse::Sparse;
