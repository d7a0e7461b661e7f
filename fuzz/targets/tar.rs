//! Any bytes as a tar stream, laid over an empty image.
#![no_main]

#[path = "../../nabla-iso/tests/it/checks.rs"]
#[allow(dead_code, reason = "each target uses its part")]
mod checks;

libfuzzer_sys::fuzz_target!(|stream: &[u8]| {
    checks::tar(stream);
});
