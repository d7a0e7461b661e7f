//! Any bytes as an image of a file system, read as far as it can be.
#![no_main]

#[path = "../../nabla-iso/tests/it/checks.rs"]
#[allow(dead_code, reason = "each target uses its part")]
mod checks;

libfuzzer_sys::fuzz_target!(|image: &[u8]| {
    checks::image(image);
});
