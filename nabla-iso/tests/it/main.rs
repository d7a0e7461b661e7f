//! The tests of images, in one program.

mod checks;
mod common;
mod determinism;
mod failures;
mod hostile;
mod mutations;
mod reflink;
mod round_trip;
