//! Any bytes as the content of a manifest note: parsed, filled in, encoded and parsed again.
#![no_main]

#[path = "../../nabla-core/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = common::checks::manifest(bytes);
});
