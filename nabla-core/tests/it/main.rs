//! Tests of the whole crate through its public API, as one program.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../common/mod.rs"]
mod common;

mod elf;
mod fuzz_corpus;
mod hostile;
mod image;
mod legacy;
mod linux_loader;
mod memory;
mod note;
mod real_guests;
mod symbols;
