//! What happens on a panic.

use core::{
    panic::PanicInfo,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{console, start::abort};

/// Prints the message and its location and aborts the guest.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    // What is printed may itself panic.
    if !PANICKING.swap(true, Ordering::Relaxed) {
        console::print(format_args!("{info}\n"));
    }
    abort()
}
