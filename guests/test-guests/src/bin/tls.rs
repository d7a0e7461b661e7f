//! Sets the thread pointer twice and reads through it.
#![no_std]
#![no_main]

use core::arch::asm;

use nabla_guest::{println, set_tls_base};

nabla_guest::entry!(main);

/// What thread pointers point to: first its own address, as the x86-64 ABI wants it.
#[repr(C)]
struct Block {
    own: *mut Block,
    value: u64,
}

fn main() {
    for value in [0x1234_5678_9abc_def0, 42] {
        let mut block = Block { own: core::ptr::null_mut(), value };
        block.own = &raw mut block;
        // SAFETY: nothing but `read` uses FS, and what it reads is in `block`.
        let (own, found) = unsafe {
            set_tls_base(block.own.cast());
            read()
        };
        assert_eq!((own, found), (block.own, value));
        println!("fs:8 = {found:#x}");
    }
}

/// # Safety
///
/// The thread pointer points to a block.
#[inline(never)]
unsafe fn read() -> (*mut Block, u64) {
    let (own, value);
    // SAFETY: the caller vouches for FS.
    unsafe {
        asm!("mov {}, fs:[0]", "mov {}, fs:[8]", out(reg) own, out(reg) value, options(nostack, readonly));
    }
    (own, value)
}
