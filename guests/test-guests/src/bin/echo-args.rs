//! Prints its command line as it is, then every argument on a line of its own in brackets.
#![no_std]
#![no_main]

use nabla_guest::{args, command_line, console, println};

nabla_guest::entry!(main);

fn main() {
    console::write(command_line());
    println!();
    for arg in args() {
        println!("[{arg}]");
    }
}
