//! Prints the file on its disk.
#![no_std]
#![no_main]

use nabla_guest::{Block, Error, args, console, println};

nabla_guest::entry!(main, block "storage");

fn main() -> Result<(), Error> {
    let disk = Block::acquire("storage")?;
    println!("cat: {} bytes of disk, arguments {:?}", disk.capacity(), args());

    let mut part = [0; 512];
    for offset in (0..disk.capacity()).step_by(part.len()) {
        disk.read_at(offset, &mut part)?;
        // The text ends before the zeros that fill the disk up to whole blocks.
        let text = part.split(|&byte| byte == 0).next().unwrap_or_default();
        console::write(text);
        if text.len() < part.len() {
            break;
        }
    }
    Ok(())
}
