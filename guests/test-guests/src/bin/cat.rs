//! Prints its disk up to the first NUL.
#![no_std]
#![no_main]

use nabla_guest::{Block, Error, console};

nabla_guest::entry!(main, block "storage");

fn main() -> Result<(), Error> {
    let disk = Block::acquire("storage")?;
    let mut buffer = [0; 4096];
    let mut offset = 0;
    while offset < disk.capacity() {
        let left = usize::try_from(disk.capacity() - offset).unwrap_or(usize::MAX);
        let chunk = &mut buffer[..left.min(4096)];
        disk.read_at(offset, chunk)?;
        let text = chunk.split(|&byte| byte == 0).next().unwrap_or_default();
        console::write(text);
        if text.len() < chunk.len() {
            break;
        }
        offset += chunk.len() as u64;
    }
    Ok(())
}
