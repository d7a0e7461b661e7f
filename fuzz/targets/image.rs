//! Any bytes as an image: parsed, parsed as an ABI that the last byte chooses, and laid out in memory.
#![no_main]

#[path = "../../nabla-core/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let _ = common::checks::image(file);
});
