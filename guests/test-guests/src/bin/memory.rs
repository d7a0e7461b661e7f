//! Touches memory: `memory MIB` allocates as many MiB, writes to every page, and prints the sum of what it reads
//! back. Exits with 1 when there is not enough. Without an argument it prints how memory is divided.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use nabla_guest::{args, memory, println};
use test_guests::number;

nabla_guest::entry!(main);

const PAGE: usize = 4096;

fn main() -> i32 {
    let Some(mib) = args().next() else {
        println!("{:#x?}", memory());
        return 0;
    };
    let pages = number::<usize>(mib) * (1 << 20) / PAGE;
    let mut bytes: Vec<u8> = Vec::new();
    if let Err(error) = bytes.try_reserve_exact(pages * PAGE) {
        println!("out of memory: {error}");
        return 1;
    }
    bytes.resize(pages * PAGE, 0);
    for (i, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        page[i % PAGE] = 1 + i.to_le_bytes()[0] % 7;
    }
    let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
    println!("{pages} pages, sum {sum}");
    0
}
