//! Prints the size of device "storage" and the CRC-32 of its content, the one that gzip and zlib have.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use nabla_guest::{Block, Error, println};

nabla_guest::entry!(main, block "storage");

static TABLE: [u32; 256] = table();

fn main() -> Result<(), Error> {
    let disk = Block::acquire("storage")?;
    let mut buffer = vec![0; 64 << 10];
    let (mut offset, mut crc) = (0, !0_u32);
    while offset < disk.capacity() {
        let left = usize::try_from(disk.capacity() - offset).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        disk.read(offset, &mut buffer[..len])?;
        crc = buffer[..len]
            .iter()
            .fold(crc, |crc, &byte| (crc >> 8) ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)]);
        offset += len as u64;
    }
    println!("{offset} bytes, crc32 {:08x}", !crc);
    Ok(())
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let (mut value, mut bit) = (byte, 0);
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[byte as usize] = value;
        byte += 1;
    }
    table
}
