//! Does one thing many times and prints how long that took, in nanoseconds: `measure WHAT COUNT`, where WHAT is
//! `sum` (adds the numbers up to COUNT), `calls` (reads the monotonic clock three times and polls) or `wall` (reads the wall clock).
//!
//! Executes no SSE instruction, so that it also runs where a monitor has its guests interpreted.
#![no_std]
#![no_main]

use core::arch::asm;

use nabla_guest::{
    args, println,
    time::{Instant, wall_clock},
};
use test_guests::number;

nabla_guest::entry!(main);

fn main() {
    let mut args = args();
    let (what, count): (_, u64) = (args.next().unwrap_or("sum"), args.next().map_or(1, number));
    let start = Instant::now().as_nanos();
    match what {
        "sum" => sum(count),
        "calls" => (0..count).for_each(|_| {
            // A wait for a deadline reads the clock before and after it, and so does the code that sets the deadline.
            let _ = (Instant::now(), Instant::now(), Instant::now());
            poll_once();
        }),
        "wall" => (0..count).for_each(|_| {
            let _ = wall_clock();
        }),
        _ => panic!("it is sum, calls or wall"),
    }
    println!("{}", Instant::now().as_nanos() - start);
}

#[cfg(not(feature = "hvt"))]
fn poll_once() {
    let _ = nabla_guest::poll();
}

/// As the SDK does it, but for the 16 bytes of zeros that it stores at once.
#[cfg(feature = "hvt")]
fn poll_once() {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use nabla_core::abi::hvt::Hypercall;
    static POLL: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    POLL[0].store(0, Relaxed);
    #[expect(clippy::cast_possible_truncation, reason = "guest memory ends at 4 GiB")]
    let address = &raw const POLL as usize as u32;
    // SAFETY: the monitor writes to the structure, which is as large as it takes it to be.
    unsafe { asm!("out dx, eax", in("dx") Hypercall::Poll.port(), in("eax") address, options(nostack)) };
}

/// The same instructions as in the program that this is compared with.
fn sum(count: u64) {
    // SAFETY: registers only.
    unsafe {
        asm!(
            "2:",
            "add {sum}, {count}",
            "dec {count}",
            "jnz 2b",
            sum = inout(reg) 0_u64 => _,
            count = inout(reg) count.max(1) => _,
            options(nomem, nostack),
        );
    }
}
