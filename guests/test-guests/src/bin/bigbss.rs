//! Has 64 MiB of bss, which must be zero, and uses a little of it.
#![no_std]
#![no_main]

use nabla_guest::{memory, println};

nabla_guest::entry!(main);

const SIZE: usize = 64 << 20;

static mut BSS: [u8; SIZE] = [0; SIZE];

fn main() {
    // SAFETY: there is one thread, and this is the only reference.
    let bss = unsafe { core::slice::from_raw_parts_mut::<u8>((&raw mut BSS).cast(), SIZE) };
    for byte in bss.iter_mut().step_by(1 << 16) {
        assert_eq!(*byte, 0);
        *byte = 1;
    }
    let sum: u32 = bss.iter().step_by(1 << 15).map(|&byte| u32::from(byte)).sum();
    assert!(memory().image_end >= bss.as_ptr_range().end as usize, "the monitor has not counted the bss");
    println!("{} MiB of bss, sum {sum}", SIZE >> 20);
}
