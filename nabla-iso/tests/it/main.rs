//! The tests of images, in one program.

mod archive;
mod checks;
mod common;
mod cost;
mod determinism;
mod failures;
mod foreign;
mod hostile;
mod mutations;
mod reflink;
mod round_trip;
mod tar;
