//! Prints a greeting and its arguments.
#![no_std]
#![no_main]

use nabla_guest::{args, print, println};

nabla_guest::entry!(main);

fn main() {
    print!("Hello, World");
    for arg in args() {
        print!(" {arg}");
    }
    println!();
}
