//! Serves the files on its disk over HTTP/1.1.
//!
//! The disk "storage" is an image that `nabla iso build DIRECTORY -o rootfs.iso` has made, the network device
//! "service0" has the addresses that `nabla run --net new` passes as arguments, or those that a DHCP server gives out.
//!
//! Arguments: those of `nabla_guest::tcpip::Settings`, and `--port=N` (80 unless set).
#![no_std]
#![no_main]

extern crate alloc;

mod connection;
mod failure;
mod root;
mod server;

use alloc::{boxed::Box, format};

use nabla_guest::{
    Block, Net,
    fs::FileSystem,
    tcpip::{Settings, Stack},
};

use crate::{failure::Failure, root::Root, server::Server};

nabla_guest::entry!(main, block "storage", net "service0");

const PORT: u16 = 80;

fn main() -> Result<core::convert::Infallible, Failure> {
    let (settings, rest) = Settings::from_args()?;
    let mut port = PORT;
    for word in rest {
        let value = word.strip_prefix("--port=").and_then(|value| value.parse().ok());
        port = value.filter(|&port| port > 0).ok_or_else(|| Failure(format!("'{word}' is not --port=N")))?;
    }
    let files = Root(Box::leak(Box::new(FileSystem::mount(Block::acquire("storage")?)?)));
    let stack = Stack::new(Net::acquire("service0")?, &settings);
    Server::new(stack, files, port).run()
}
