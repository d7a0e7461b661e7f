//! Stresses the heap through `alloc`: `heap [ROUNDS [SEED]]`. Checks all content, and that everything is free in
//! the end.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};

use nabla_guest::{args, heap, println};
use test_guests::{Random, number};

nabla_guest::entry!(main);

fn main() {
    let mut args = args();
    let rounds: usize = args.next().map_or(20_000, number);
    let mut random = Random(args.next().map_or(1, number));
    stress(rounds, &mut random);
    let stats = heap::stats();
    assert_eq!(stats.used, 0, "{stats:?}");
    println!("{rounds} rounds, peak {} KiB of {} KiB", stats.peak >> 10, stats.capacity >> 10);
}

fn stress(rounds: usize, random: &mut Random) {
    let mut texts: BTreeMap<u64, String> = BTreeMap::new();
    let mut arrays: Vec<Vec<u64>> = Vec::new();
    for _ in 0..rounds {
        let key = random.bits() % 500;
        match random.below(6) {
            0..=1 => {
                texts.insert(key, format!("{key:>width$}", width = random.below(300)));
            }
            2 => {
                if let Some(text) = texts.remove(&key) {
                    assert_eq!(text.trim_start(), format!("{key}"));
                }
            }
            3 if arrays.len() < 100 => {
                let zeros = vec![0_u64; random.below(2000)];
                assert!(zeros.iter().all(|&value| value == 0));
                arrays.push(zeros.into_iter().map(|_| key).collect());
            }
            4 if !arrays.is_empty() => {
                let i = random.below(arrays.len());
                let array = arrays.swap_remove(i);
                assert!(array.windows(2).all(|pair| pair[0] == pair[1]));
            }
            _ if !arrays.is_empty() => {
                let i = random.below(arrays.len());
                let value = arrays[i].first().copied().unwrap_or(key);
                let extra = random.below(500);
                arrays[i].extend((0..extra).map(|_| value));
                if random.below(4) == 0 {
                    arrays[i].truncate(10);
                    arrays[i].shrink_to_fit();
                }
            }
            _ => {}
        }
    }
}
