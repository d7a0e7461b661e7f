//! Prints "ready", waits for as many milliseconds as its first argument says, prints "done" and exits with 0.
//! Without an argument it waits for ever.
#![no_std]
#![no_main]

use core::time::Duration;

use nabla_guest::{args, println, time, yield_forever};

nabla_guest::entry!(main);

fn main() {
    println!("ready");
    match args().next() {
        Some(millis) => {
            time::sleep(Duration::from_millis(millis.parse().expect("the time is a number")));
            println!("done");
        }
        None => loop {
            let _ = yield_forever();
        },
    }
}
