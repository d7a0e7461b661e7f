//! Aborts.
#![no_std]
#![no_main]

nabla_guest::entry!(main);

fn main() {
    nabla_guest::println!("aborting");
    nabla_guest::abort();
}
