//! The command lines of Solo5's tools, for scripts and test suites that were written for them.

pub mod elftool;
mod json;
mod manifest_source;
mod notes;
pub mod tender;
mod tender_options;

use crate::output;

/// The program that makes the source of manifests and tells what is in images.
pub const ELFTOOL: &str = "solo5-elftool";
/// What both call their version.
const VERSION: &str = concat!("nabla-", env!("CARGO_PKG_VERSION"));

/// Prints a message as Solo5's tools do.
fn warn(program: &str, message: &str) {
    output::complain(&format!("{program}: {}", output::one_line(message)));
}

/// The text of a system error, as C programs print it: without Rust's number after it.
fn strerror(error: &std::io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_owned(),
        None => text,
    }
}
