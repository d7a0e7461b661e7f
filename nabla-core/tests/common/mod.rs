//! What the tests of this crate, its fuzz targets and their seeds share: an ELF builder, typical guests, and the
//! invariants that hold for every input.

// Each program that includes this uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

pub mod checks;
pub mod elf;
pub mod guests;
