//! Writes to device "storage", reads it back, and checks that bad requests are refused. Destroys what is there.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{vec, vec::Vec};

use nabla_guest::{AcquireError, Block, BlockError, Error, Net, println};

nabla_guest::entry!(main, block "storage");

fn main() -> Result<(), Error> {
    let disk = Block::acquire("storage")?;
    let (size, capacity) = (disk.block_size(), disk.capacity());
    println!("{capacity} bytes in blocks of {size}");
    assert_eq!(Block::acquire("nothing").err(), Some(AcquireError::NotDeclared));
    assert_eq!(Net::acquire("storage").err(), Some(AcquireError::WrongKind));

    for block in 0..capacity / size as u64 {
        disk.write(block * size as u64, &pattern(block, size))?;
    }
    let mut buffer = vec![0; size];
    for block in (0..capacity / size as u64).rev() {
        disk.read(block * size as u64, &mut buffer)?;
        assert!(buffer == pattern(block, size), "block {block} is not what was written");
    }
    println!("single blocks");

    let blocks = usize::try_from(capacity / size as u64).map_or(8, |blocks| blocks.min(8));
    let expected: Vec<u8> = (0..blocks as u64).flat_map(|block| pattern(block, size)).collect();
    let mut buffer = vec![0; expected.len()];
    disk.read(0, &mut buffer)?;
    assert!(buffer == expected);
    let reversed: Vec<u8> = expected.iter().rev().copied().collect();
    disk.write(0, &reversed)?;
    disk.read(0, &mut buffer)?;
    assert!(buffer == reversed);
    println!("several blocks");

    for (start, len) in [(0, 1), (1, 1), (size - 1, 2), (3, size), (0, 0), (size / 2, buffer.len() - size)] {
        if start + len <= reversed.len() {
            let part = &mut buffer[..len];
            disk.read_at(start as u64, part)?;
            assert!(*part == reversed[start..start + len], "{len} bytes at {start}");
        }
    }
    println!("unaligned");

    let block = &mut pattern(0, size);
    let misaligned = |offset, len| BlockError::Misaligned { offset, len, block_size: size };
    let out_of_range = |offset, len| BlockError::OutOfRange { offset, len, capacity };
    let last = u64::MAX - (size as u64 - 1);
    assert_eq!(disk.read(1, block), Err(misaligned(1, size)));
    assert_eq!(disk.read(0, &mut block[1..]), Err(misaligned(0, size - 1)));
    assert_eq!(disk.write(size as u64 / 2, block), Err(misaligned(size as u64 / 2, size)));
    assert_eq!(disk.read(capacity, block), Err(out_of_range(capacity, size)));
    assert_eq!(disk.write(capacity, block), Err(out_of_range(capacity, size)));
    assert_eq!(disk.write(last, block), Err(out_of_range(last, size)));
    assert_eq!(disk.read_at(capacity - 1, &mut block[..2]), Err(out_of_range(capacity - 1, 2)));
    assert_eq!(disk.read_at(u64::MAX, &mut block[..1]), Err(out_of_range(u64::MAX, 1)));
    println!("errors");
    Ok(())
}

fn pattern(block: u64, size: usize) -> Vec<u8> {
    (0..size).map(|i| (block.wrapping_mul(31) + i as u64 * 7).to_le_bytes()[0]).collect()
}
