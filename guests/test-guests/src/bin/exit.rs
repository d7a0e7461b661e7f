//! Exits with the status that its first argument says, 0 without one.
#![no_std]
#![no_main]

use nabla_guest::args;

nabla_guest::entry!(main);

fn main() -> i32 {
    args().next().map_or(0, |status| status.parse().expect("the status is a number"))
}
