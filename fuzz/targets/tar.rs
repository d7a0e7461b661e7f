//! Any bytes as a tar stream, laid over an empty image.
#![no_main]

#[path = "../../nabla-iso/tests/it/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|stream: &[u8]| {
    checks::tar(stream);
});
