//! Reads images, without an allocator and without trust.
//!
//! A [`Volume`] is opened on a [`Source`] and gives [`Node`]s: by path, or as the entries of a directory. Every place and
//! length in an image is checked before it is used; errors name the sector. Work and memory of one call are bounded by
//! what is read. A program that walks a whole tree must detect circles itself, as [`Walk`] does.

mod directory;
mod error;
mod file;
mod lookup;
mod node;
mod record;
#[cfg(feature = "std")]
mod stream;
mod volume;
#[cfg(feature = "std")]
mod walk;

pub use directory::{Entry, Name, ReadDir};
pub use error::ReadError;
pub use node::{Encoding, Kind, Node};
#[cfg(feature = "std")]
pub use stream::{FileReader, ImageFile};
pub use volume::{Naming, Source, Volume};
#[cfg(feature = "std")]
pub use walk::{Walk, WalkEntry};
