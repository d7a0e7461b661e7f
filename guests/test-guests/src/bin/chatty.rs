//! Prints much: `chatty LINES [LENGTH]` prints as many numbered lines, each of LENGTH bytes with its newline, 64
//! without one. The last line is "end".
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use nabla_guest::{args, console, println};
use test_guests::number;

nabla_guest::entry!(main);

fn main() {
    let mut args = args();
    let lines: u64 = args.next().map_or(100, number);
    let length: usize = args.next().map_or(64, number);
    for line in 0..lines {
        console::write(format!("{line:.<width$}\n", width = length.saturating_sub(1)).as_bytes());
    }
    println!("end");
}
