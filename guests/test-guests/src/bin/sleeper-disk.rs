//! `sleeper` with a disk: prints "ready" and waits for ever.
#![no_std]
#![no_main]

use nabla_guest::{println, yield_forever};

nabla_guest::entry!(main, block "storage");

fn main() {
    println!("ready");
    loop {
        let _ = yield_forever();
    }
}
