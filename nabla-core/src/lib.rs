//! What a Nabla guest is.
//!
//! A guest is an ELF file that was linked with its own library operating system. This crate knows the
//! formats such a file is made of and the structures that a monitor shares with it, and nothing else: it does
//! no I/O, has no `unsafe` code and works without `std`.
//!
//! * [`abi`]: every structure and constant of the Solo5 `hvt` and `spt` ABIs, byte for byte. Available without
//!   default features and without any dependency, so that guests can share the definitions with the monitor.
//! * [`Image`]: what is in a file: which ABI, which devices, which segments, what is unusual about it.
//! * [`Manifest`]: the devices a guest declares; parsed, validated, filled in and encoded.
//! * [`CommandLine`] and [`layout`]: what the monitor puts into a guest's memory before it starts.
//!
//! ```
//! # #[cfg(feature = "std")] {
//! use nabla_core::{ElfError, Image, ImageError};
//!
//! let error = Image::parse(&b"#!/bin/sh"[..]).unwrap_err();
//! assert!(matches!(error, ImageError::Elf(ElfError::Magic { .. })));
//! # }
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "image"),
    allow(rustdoc::broken_intra_doc_links, reason = "the overview names what that feature adds")
)]

#[cfg(target_endian = "big")]
compile_error!("every guest ABI is little-endian, and this crate reads them in host order");

#[cfg(feature = "image")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod abi;
#[cfg(feature = "image")]
mod cmdline;
#[cfg(feature = "image")]
pub mod elf;
#[cfg(feature = "image")]
mod image;
#[cfg(feature = "image")]
pub mod layout;
#[cfg(feature = "image")]
pub mod legacy;
#[cfg(feature = "image")]
mod mac;
#[cfg(feature = "image")]
mod manifest;
#[cfg(feature = "image")]
mod note;
#[cfg(feature = "image")]
mod size;
#[cfg(feature = "image")]
mod source;
#[cfg(feature = "image")]
mod target;

#[cfg(feature = "image")]
pub use crate::{
    cmdline::{CommandLine, CommandLineError},
    elf::{ElfError, Permissions, Segment},
    image::{AbiSource, Image, ImageError, Warning},
    mac::{MacAddress, ParseMacError},
    manifest::{Attachment, Device, DeviceKind, DeviceName, Manifest, ManifestError, block_size_is_valid},
    note::NoteError,
    size::{ByteSize, ParseByteSizeError},
    source::{ReadAt, SourceError},
    target::{Abi, ParseAbiError, target_name},
};

/// The README's example.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;
