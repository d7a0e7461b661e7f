//! Panics with its command line as the message.
#![no_std]
#![no_main]

nabla_guest::entry!(main);

fn main() {
    panic!("{}", nabla_guest::command_line().escape_ascii());
}
