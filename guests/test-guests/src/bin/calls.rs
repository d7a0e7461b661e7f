//! Makes the calls that guests make all the time: `calls N` reads the monotonic clock and polls without waiting,
//! N times each, and prints what one of each cost.
#![no_std]
#![no_main]

use nabla_guest::{args, poll, println, time::Instant};
use test_guests::number;

nabla_guest::entry!(main);

fn main() {
    let count: u32 = args().next().map_or(1000, number);
    let start = Instant::now();
    for _ in 0..count {
        let _ = Instant::now();
    }
    let clock = start.elapsed();
    let start = Instant::now();
    for _ in 0..count {
        let _ = poll();
    }
    let polls = start.elapsed();
    println!(
        "clock {} ns, poll {} ns",
        clock.as_nanos() / u128::from(count),
        polls.as_nanos() / u128::from(count)
    );
}
