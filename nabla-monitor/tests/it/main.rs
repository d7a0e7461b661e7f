//! Tests of the whole crate through its public API, as one program.
//!
//! What every backend promises is one test that runs for each ([`backend::each_backend`]): `lifecycle::process::NAME`
//! and `lifecycle::kvm::NAME`. What only one backend has is in the module of its name. A test that counts, or changes,
//! what the whole program has runs in a process of its own ([`child::alone`]).

mod backend;
mod child;
mod common;

mod console;
mod cores;
mod debugging;
mod devices;
mod errors;
mod faults;
mod host_death;
mod host_program;
mod hostile_images;
mod kvm;
mod lifecycle;
mod process;
mod scale;
mod waits;
