//! For debuggers: functions and variables with names that they can find. What it prints depends on `SHARE`, which
//! a debugger may change; with the argument `abort` it aborts in the innermost function, with `loop` it stays there
//! until `SHARE` is 0.
#![no_std]
#![no_main]

use core::{
    hint::{black_box, spin_loop},
    ptr::{read_volatile, write_volatile},
};
use nabla_guest::{args, println};

nabla_guest::entry!(main);

/// What every call of `inner` adds.
#[unsafe(no_mangle)]
static mut SHARE: u32 = 7;
/// The sum so far.
#[unsafe(no_mangle)]
static mut TOTAL: u32 = 0;

fn load(from: *const u32) -> u32 {
    // SAFETY: one of the two variables, which live as long as the guest; there is one thread.
    unsafe { read_volatile(from) }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inner(times: u32) {
    let sum = load(&raw const TOTAL) + load(&raw const SHARE) * black_box(times);
    // SAFETY: as above.
    unsafe { write_volatile(&raw mut TOTAL, sum) };
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn innermost(abort: bool) {
    if black_box(abort) {
        nabla_guest::abort();
    }
    while load(&raw const SHARE) != 0 {
        spin_loop();
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outer(times: u32) -> u32 {
    for round in 1..=times {
        inner(round);
    }
    load(&raw const TOTAL)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_badly(abort: bool) -> u32 {
    innermost(abort);
    // Not a tail call, so that this function is in backtraces.
    black_box(load(&raw const TOTAL))
}

fn main() -> i32 {
    let argument = args().next();
    println!("total {}", outer(3));
    match argument {
        Some("abort") => println!("not aborted: {}", end_badly(true)),
        Some("loop") => println!("left the loop: {}", end_badly(false)),
        _ => {}
    }
    0
}
