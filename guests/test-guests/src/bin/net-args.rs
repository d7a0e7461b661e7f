//! Prints its command line as it is. Has a network device, which it does not use, and nothing that says how it is told
//! its addresses.
#![no_std]
#![no_main]

use nabla_guest::{command_line, console, println};

nabla_guest::entry!(main, net "service0");

fn main() {
    console::write(command_line());
    println!();
}
