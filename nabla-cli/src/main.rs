//! The `nabla` command: runs unikernels as confined processes or in virtual machines, and tells what is in them and what a host can do.
//!
//! Called as `solo5-spt`, `solo5-hvt` or `solo5-elftool`, it takes those programs' command lines.

#![cfg_attr(not(test), no_main)]

mod accounts;
mod cli;
mod completions;
mod doctor;
mod error;
mod inspect;
mod iso;
mod logging;
mod man;
mod net;
mod output;
mod pending;
mod run;
mod solo5;
mod system;

use std::{ffi::OsString, path::Path};

/// What the C runtime calls.
///
/// Rust's own start-up would add 7 % to the time in which `nabla run` starts a guest: it looks up the stack's
/// bounds in `/proc/self/maps` and sets up a second stack for reporting overflows of the first. What else it does
/// is done by [`system::start`].
#[cfg(not(test))]
// SAFETY: nothing else in the program is called `main`, and this has the signature that C gives it.
#[unsafe(no_mangle)]
extern "C" fn main(count: std::ffi::c_int, words: *const *const std::ffi::c_char) -> std::ffi::c_int {
    // SAFETY: these are the arguments that the C runtime passes.
    let args = unsafe { system::start(count, words) };
    dispatch(&args).into()
}

/// Does what the command line says, as the program that it calls, and returns the exit status.
#[cfg_attr(test, expect(dead_code, reason = "tests have a main of their own"))]
fn dispatch(args: &[OsString]) -> u8 {
    let name = args.first().and_then(|path| Path::new(path).file_name()?.to_str());
    match name {
        Some("solo5-spt") => solo5::tender::main(&solo5::tender::SPT, args),
        Some("solo5-hvt") => solo5::tender::main(&solo5::tender::HVT, args),
        Some("solo5-hvt-debug") => solo5::tender::main(&solo5::tender::HVT_DEBUG, args),
        Some(solo5::ELFTOOL) => solo5::elftool::main(args),
        _ => cli::main(args),
    }
}
