//! Copies the first block of device "a" to the start of device "b".
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use nabla_guest::{Block, Error, println};

nabla_guest::entry!(main, block "a", block "b");

fn main() -> Result<(), Error> {
    let (from, to) = (Block::acquire("a")?, Block::acquire("b")?);
    let mut buffer = vec![0; from.block_size().max(to.block_size())];
    from.read(0, &mut buffer)?;
    to.write(0, &buffer)?;
    println!("copied {} bytes from {} to {}", buffer.len(), from.capacity(), to.capacity());
    Ok(())
}
