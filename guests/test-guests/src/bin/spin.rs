//! Prints "ready" and never ends, using all the time there is.
#![no_std]
#![no_main]

nabla_guest::entry!(main);

fn main() {
    nabla_guest::println!("ready");
    loop {
        core::hint::spin_loop();
    }
}
