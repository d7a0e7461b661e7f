//! ISO 9660 images with Rock Ridge.
//!
//! An image is described, planned, and written:
//!
//! ```
//! # fn main() -> Result<(), nabla_iso::Error> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let (rootfs, image) = (directory.path(), directory.path().join("rootfs.iso"));
//! let plan = nabla_iso::ImageBuilder::new().directory(rootfs).plan()?;
//! println!("{} entries, {} bytes", plan.entries(), plan.size());
//! plan.write_file(&image)?;
//! # Ok(())
//! # }
//! ```
//!
//! The [plan](Plan) knows the place of every byte. It can [write](Plan::write_file) the image to a file, sharing blocks
//! with the sources where the file system can do that; [stream](Plan::write_to) it; or [read](Plan::read_at) any range of
//! it without an image ever being written. The same input gives the same bytes, on every machine and by any number of
//! threads.
//!
//! Images are read by the [reader], which trusts nothing in them.
//!
//! Without the feature `std`, what is there needs neither an operating system nor an allocator: the structures of the
//! [format](mod@format), and the core of the reader.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

#[cfg(feature = "std")]
mod builder;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
mod extract;
pub mod format;
#[cfg(feature = "std")]
mod host;
#[cfg(feature = "std")]
mod plan;
#[cfg(feature = "std")]
mod progress;
pub mod reader;
#[cfg(feature = "std")]
mod source;
#[cfg(feature = "std")]
mod verify;
#[cfg(feature = "std")]
mod write;

#[cfg(feature = "std")]
pub use self::{
    builder::ImageBuilder,
    error::{Error, Warning, WarningKind},
    extract::{ExtractSummary, Extractor},
    plan::Plan,
    progress::{Phase, Progress},
    source::entry::Entry,
    verify::{Problem, Verification},
};
pub use format::Timestamp;
