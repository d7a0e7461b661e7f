//! Sends what no wire carries on device "service0": frames of every wrong length, full of garbage, and more than any host takes
//! at once. Prints how many were refused, and reads what has come meanwhile.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use nabla_guest::{Error, Net, println};

nabla_guest::entry!(main, net "service0");

const LENGTHS: [usize; 12] = [0, 1, 13, 14, 15, 60, 1514, 1515, 2049, 9014, 65_550, 1 << 20];
const ROUNDS: usize = 50;

fn main() -> Result<(), Error> {
    let net = Net::acquire("service0")?;
    let mut number = 1_u32;
    let garbage: Vec<u8> = (0..1 << 20)
        .map(|_| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            number.to_be_bytes()[0]
        })
        .collect();
    let mut refused = 0;
    for round in 0..ROUNDS {
        for length in LENGTHS {
            let start = if length < garbage.len() { round % 64 } else { 0 };
            let end = (start + length).min(garbage.len());
            refused += u32::from(net.write(&garbage[start..end]).is_err());
        }
    }
    let mut frame = [0; 64];
    while let Ok(Some(_)) = net.read(&mut frame) {}
    println!("refused {refused}");
    Ok(())
}
