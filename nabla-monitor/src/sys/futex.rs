//! Waiting for a word of memory to change, without libc: futex(2).

use super::raw::{nr, syscall};
use linux_raw_sys::general::{FUTEX_WAIT, FUTEX_WAIT_PRIVATE, FUTEX_WAKE, FUTEX_WAKE_PRIVATE};
use std::{ptr, sync::atomic::AtomicU32};

/// Blocks while `word` has the value `expected`. May return early.
pub fn wait(word: &AtomicU32, expected: u32) {
    // SAFETY: `word` is an aligned 32-bit integer that lives through the call; no timeout.
    unsafe { syscall!(nr::FUTEX, word, FUTEX_WAIT_PRIVATE, expected, 0) };
}

/// Wakes everybody who waits on `word` with [`wait`].
pub fn wake(word: &AtomicU32) {
    // SAFETY: the kernel only uses the address as a key; it need not even be mapped.
    unsafe { syscall!(nr::FUTEX, ptr::from_ref(word), FUTEX_WAKE_PRIVATE, i32::MAX) };
}

/// Blocks while `word`, which the kernel clears when a process ends, has the value `expected`, and for `nanoseconds`
/// at most (under a second). May return early.
pub fn wait_shared(word: &AtomicU32, expected: u32, nanoseconds: u64) {
    let timeout = [0, nanoseconds];
    // SAFETY: as for `wait`; the timeout is a timespec.
    unsafe { syscall!(nr::FUTEX, word, FUTEX_WAIT, expected, &timeout) };
}

/// Wakes everybody who waits on `word` with [`wait_shared`].
pub fn wake_shared(word: &AtomicU32) {
    // SAFETY: as for `wake`.
    unsafe { syscall!(nr::FUTEX, word, FUTEX_WAKE, i32::MAX) };
}
