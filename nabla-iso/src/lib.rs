//! ISO 9660 images with Rock Ridge: a fast, deterministic writer, and a strict reader.
//!
//! # Making an image
//!
//! An image is described with an [`ImageBuilder`], planned, and written:
//!
//! ```
//! use nabla_iso::{Entry, ImageBuilder};
//!
//! # fn main() -> Result<(), nabla_iso::Error> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let (rootfs, image) = (directory.path(), directory.path().join("rootfs.iso"));
//! let plan = ImageBuilder::new()
//!     .directory(rootfs)
//!     .entry("/etc/hosts", Entry::bytes(*b"127.0.0.1 localhost\n"))
//!     .plan()?;
//! println!("{} entries, {} bytes", plan.entries(), plan.size());
//! for warning in plan.warnings() {
//!     eprintln!("{warning}");
//! }
//! plan.write_file(&image)?;
//! # Ok(())
//! # }
//! ```
//!
//! Sources are laid over each other in their order: directories of the host, tar streams as layers of container images
//! (with whiteouts), and entries that a program adds. Directories are merged; of other files with the same path, the last
//! one stays.
//!
//! A [`Plan`] is made of names and attributes alone, and knows the place of every byte. It can
//! [write](Plan::write_file) the image to a file, sharing blocks with the sources where the file system can do that;
//! [stream](Plan::write_to) it; or [read](Plan::read_at) any range without an image ever being written, so that a program
//! can serve a directory as a disk. Files that change between the plan and the reading of their bytes are errors with
//! their path. The same input gives the same bytes, on every machine and with any number of threads.
//!
//! ```
//! # use nabla_iso::{Entry, ImageBuilder};
//! # fn main() -> Result<(), nabla_iso::Error> {
//! let plan = ImageBuilder::new().entry("/file", Entry::bytes(*b"contents")).plan()?;
//! let mut descriptor = [0; 6];
//! plan.read_at(16 * 2048, &mut descriptor)?;
//! assert_eq!(&descriptor, b"\x01CD001");
//! # Ok(())
//! # }
//! ```
//!
//! # Reading one
//!
//! The [reader] trusts nothing: every place and length is checked before it is used. A [`Volume`](reader::Volume) is
//! opened on a [`Source`](reader::Source): an [`ImageFile`](reader::ImageFile), bytes in memory, or a plan.
//!
//! ```
//! # use nabla_iso::{Entry, ImageBuilder};
//! use nabla_iso::reader::Volume;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let plan = ImageBuilder::new().entry("/etc/hosts", Entry::bytes(*b"127.0.0.1 localhost\n")).plan()?;
//! let volume = Volume::open(plan)?;
//! let node = volume.lookup(b"/etc/hosts")?;
//! assert_eq!(node.size, 20);
//! let text = std::io::read_to_string(volume.open_file(b"/etc/hosts")?)?;
//! assert_eq!(text, "127.0.0.1 localhost\n");
//! assert_eq!(volume.verify().problems, []);
//! # Ok(())
//! # }
//! ```
//!
//! An [`Extractor`] unpacks an image into a directory. It can be given a limit, and does not leave the directory whatever
//! the image says.
//!
//! # Without `std`
//!
//! Without the feature `std` (on by default) there are the structures of the [format](mod@format) and the core of the
//! reader. Both need neither an operating system nor an allocator.
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
mod tar;
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

/// The programs in the README are tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
