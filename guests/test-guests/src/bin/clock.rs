//! Checks the clocks: the monotonic one goes forward, the wall clock is in this decade, 50 ms last as long as
//! they should, and waiting for a time in the past does not wait.
#![no_std]
#![no_main]

use core::time::Duration;

use nabla_guest::{
    poll, println,
    time::{Instant, sleep, sleep_until, wall_clock},
    yield_until,
};

nabla_guest::entry!(main);

const SLEEP: Duration = Duration::from_millis(50);
/// What a busy host may add.
const PATIENCE: Duration = Duration::from_secs(5);
/// 2020-01-01 in seconds since 1970.
const YEAR_2020: Duration = Duration::from_secs(1_577_836_800);

fn main() {
    let mut last = Instant::now();
    for _ in 0..10_000 {
        let now = Instant::now();
        assert!(now >= last, "the clock went back from {last:?} to {now:?}");
        last = now;
    }
    println!("monotonic");

    let wall = wall_clock();
    assert!(wall > YEAR_2020, "the wall clock says {wall:?}");
    println!("wall");

    let start = Instant::now();
    sleep(SLEEP);
    let slept = start.elapsed();
    assert!(slept >= SLEEP && slept < SLEEP + PATIENCE, "slept {slept:?} instead of {SLEEP:?}");
    let passed = wall_clock().saturating_sub(wall);
    assert!(passed + Duration::from_millis(10) >= SLEEP, "the wall clock went {passed:?} in {slept:?}");
    println!("sleep");

    // The timer has expired and stays ready; none of these must take that for a device, nor wait for it.
    let start = Instant::now();
    for deadline in [Instant::from_nanos(0), Instant::from_nanos(1), start - SLEEP, start] {
        assert!(yield_until(deadline).is_empty());
        sleep_until(deadline);
        assert!(poll().is_empty());
    }
    assert!(start.elapsed() < PATIENCE);
    // And it can be used again, for a later time and for an earlier one.
    for _ in 0..3 {
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(yield_until(deadline).is_empty());
        assert!(Instant::now() >= deadline);
    }
    println!("yield");
}
