//! Reads images, without an allocator and without trust.
//!
//! A [`Volume`] is opened on a [`Source`] and gives [`Node`]s: by path, or as the entries of a directory. Every place and
//! length in an image is checked before it is used; what is wrong is told with the sector. Work and memory
//! for one call are bounded by what is read; whoever walks a whole tree has to see to it that he is not led in
//! circles, as [`Walk`] does.

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
pub use node::{Kind, Node};
#[cfg(feature = "std")]
pub use stream::{FileReader, ImageFile};
pub use volume::{Naming, Source, Volume};
#[cfg(feature = "std")]
pub use walk::{Walk, WalkEntry};
