//! Damaged images: an error or a guest that ends, never more.

use crate::backend::{Backend, each_backend};
use nabla_monitor::{ByteSize, Console, Runtime};
use std::{fs, time::Duration};

each_backend! {
    truncating_an_image_anywhere_ends_well,
    flipping_any_bit_of_the_headers_ends_well,
}

/// Starts what can be started and ends it.
fn try_image(backend: &Backend, runtime: &Runtime, path: &std::path::Path, bytes: &[u8]) -> bool {
    fs::write(path, bytes).unwrap();
    let started = runtime
        .guest(path)
        .memory(ByteSize::mib(4))
        .console(Console::null())
        .supervision(backend.supervisions[0])
        .start();
    let Ok(running) = started else { return false };
    // A damaged guest may run for ever.
    if running.wait_timeout(Duration::from_millis(50)).unwrap().is_none() {
        running.kill().unwrap();
        running.wait().unwrap();
    }
    true
}

fn truncating_an_image_anywhere_ends_well(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let bytes = fs::read((backend.image)("hello")).unwrap();
    // Only what is loaded matters, and the table of program headers; section headers and symbols lie behind.
    let loaded = 64.max(loaded_end(&bytes));
    let step = (loaded / 1500).max(1);
    for length in (0..loaded).step_by(step).chain(0..512) {
        assert!(!try_image(backend, &runtime, &path, &bytes[..length]), "{length} of {loaded} bytes started");
    }
    assert!(try_image(backend, &runtime, &path, &bytes[..loaded]));
}

fn loaded_end(bytes: &[u8]) -> usize {
    let word =
        |at: usize| usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    let count = usize::from(u16::from_le_bytes(bytes[56..58].try_into().unwrap()));
    let headers = (0..count).map(|i| word(32) + i * 56);
    headers
        .filter(|&at| bytes[at] == 1 && bytes[at + 1] == 0)
        .map(|at| word(at + 8) + word(at + 32))
        .max()
        .unwrap()
}

fn flipping_any_bit_of_the_headers_ends_well(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let bytes = fs::read((backend.image)("hello")).unwrap();
    let count = usize::from(u16::from_le_bytes(bytes[56..58].try_into().unwrap()));
    // A virtual machine takes its time, so fewer of them, at every place in a byte.
    let step = if backend.is_process() { 1 } else { 7 };
    for bit in (0..(64 + count * 56) * 8).step_by(step) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        try_image(backend, &runtime, &path, &damaged);
    }
}
