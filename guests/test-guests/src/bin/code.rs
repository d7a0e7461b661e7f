//! Runs machine code: `code HEX` copies the bytes and a return to the heap, which must be executable, and calls
//! them. Prints "returned" and what is in rax.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::asm;

use alloc::vec::Vec;

use nabla_guest::{args, println};

nabla_guest::entry!(main);

fn main() {
    let hex = args().next().unwrap_or("");
    let digit = |at: usize| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let mut code: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| digit(at).expect("two hexadecimal digits")).collect();
    code.push(0xc3);
    println!("code at {:#x}", code.as_ptr() as usize);
    let result: u64;
    // SAFETY: what the code does is what the test is about. It keeps what callers rely on.
    unsafe { asm!("call {}", in(reg) code.as_ptr(), lateout("rax") result, clobber_abi("C")) };
    println!("returned {result:#x}");
}
