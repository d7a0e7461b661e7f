//! Symbol tables: what is found, and what of hostile ones is believed.

use crate::common::{
    checks,
    elf::{GLOBAL_FUNC, Symbol, ehdr, poke, shdr, with_symbol_table, with_symbols},
    guests::spt_v2,
};
use nabla_core::{
    Image, ReadAt, SourceError,
    elf::{MAX_NAMES_SIZE, MAX_SYMBOLS_SIZE},
};
use std::cell::Cell;

const NAMES: [&str; 3] = ["rump_init", "caml_startup", "absent"];

fn find(file: &[u8]) -> [bool; 3] {
    checks::image(file).unwrap().find_symbols(file, NAMES).unwrap()
}

/// Offset of a field of the section header at `index` of [`with_symbol_table`].
fn field(file: &[u8], index: usize, field: usize) -> usize {
    file.len() - (3 - index) * shdr::SIZE + field
}

#[test]
fn defined_names_are_found() {
    assert_eq!(find(&spt_v2()), [false; 3]);
    assert_eq!(find(&with_symbols(&spt_v2(), &[])), [false; 3]);
    assert_eq!(find(&with_symbols(&spt_v2(), &["x", "caml_startup"])), [false, true, false]);
    assert_eq!(find(&with_symbols(&spt_v2(), &["rump_init", "caml_startup"])), [true, true, false]);
    assert_eq!(find(&with_symbols(&spt_v2(), &["rump_init2", "xcaml_startup", ""])), [false; 3]);
}

#[test]
fn only_definitions_of_code_and_data_count() {
    let strings = b"\0rump_init\0xxcaml_startup\0";
    let table = |kind, section| {
        let symbols = [Symbol { name: 1, kind, section }, Symbol { name: 13, kind, section }];
        find(&with_symbol_table(&spt_v2(), &symbols, strings))
    };
    // The second is the end of a longer name, as linkers let them share it.
    for kind in [GLOBAL_FUNC, 0x11, 0x10, 0x22, 0x02] {
        assert_eq!(table(kind, 1), [true, true, false], "{kind:#x}");
        assert_eq!(table(kind, 0xfff1), [true, true, false], "absolute");
        assert_eq!(table(kind, 0), [false; 3], "undefined");
    }
    for kind in [0x03, 0x04, 0x06] {
        assert_eq!(table(kind, 1), [false; 3], "a section, a file, thread-local: {kind:#x}");
    }
}

#[test]
fn names_without_symbol_do_not_count() {
    let strings = b"\0rump_init\0caml_startup\0";
    let symbol = |name| Symbol { name, kind: GLOBAL_FUNC, section: 1 };
    for name in [0, 2, 10, 24, 1000, u32::MAX] {
        assert_eq!(find(&with_symbol_table(&spt_v2(), &[symbol(name)], strings)), [false; 3], "{name}");
    }
    // No NUL after it.
    assert_eq!(find(&with_symbol_table(&spt_v2(), &[symbol(1)], b"\0rump_init")), [false; 3]);
}

#[test]
fn names_and_symbols_are_found_across_the_parts_in_which_they_are_read() {
    let mut strings = vec![b'x'; 600_000];
    // At every place of a boundary, whatever the size of a part is: each name starts one byte after a multiple.
    let part = 24 * 8192;
    for distance in 0..=10 {
        let at = part - distance;
        let mut strings = strings.clone();
        strings[at..at + 10].copy_from_slice(b"rump_init\0");
        let symbols = vec![Symbol { name: 0, kind: 0, section: 0 }; 8192 - distance];
        let last = Symbol { name: at as u32, kind: GLOBAL_FUNC, section: 1 };
        let file = with_symbol_table(&spt_v2(), &[symbols, vec![last]].concat(), &strings);
        assert_eq!(find(&file), [true, false, false], "{distance}");
    }
    strings[599_987..].copy_from_slice(b"caml_startup\0");
    let last = Symbol { name: 599_987, kind: GLOBAL_FUNC, section: 1 };
    assert_eq!(find(&with_symbol_table(&spt_v2(), &[last], &strings)), [false, true, false]);
}

#[test]
fn tables_that_make_no_sense_are_none() {
    let good = with_symbols(&spt_v2(), &["rump_init"]);
    assert_eq!(find(&good), [true, false, false]);
    let size = good.len() as u64;
    let broken = |at: usize, value: &[u8]| {
        let mut file = good.clone();
        file[at..at + value.len()].copy_from_slice(value);
        find(&file)
    };
    for value in [0, 1, 3, 63, 65, u16::MAX] {
        assert_eq!(broken(ehdr::SHENTSIZE, &value.to_le_bytes()), [false; 3]);
    }
    for value in [0, 1, 4, 4097, u16::MAX] {
        assert_eq!(broken(ehdr::SHNUM, &value.to_le_bytes()), [false; 3], "{value} sections");
    }
    for value in [0, size - 191, size, u64::MAX, u64::MAX - 64] {
        assert_eq!(broken(ehdr::SHOFF, &value.to_le_bytes()), [false; 3]);
    }
    for (index, name, values) in [
        (1, shdr::OFFSET, &[size, size - 1, u64::MAX][..]),
        (1, shdr::LENGTH, &[0, 23, 24, size, u64::MAX]),
        (1, shdr::ENTRY_SIZE, &[0, 16, 25]),
        (1, shdr::LINK, &[0, 1, 3, u32::MAX as u64]),
        (2, shdr::OFFSET, &[size, u64::MAX]),
        (2, shdr::LENGTH, &[0, 1, 10, size, u64::MAX]),
    ] {
        for value in values {
            let width = if name == shdr::LINK { 4 } else { 8 };
            let at = field(&good, index, name);
            assert_eq!(broken(at, &value.to_le_bytes()[..width]), [false; 3], "{index} {name} {value:#x}");
        }
    }
    for index in [1, 2] {
        assert_eq!(broken(field(&good, index, shdr::TYPE), &8_u32.to_le_bytes()), [false; 3]);
    }
}

#[test]
fn flipping_any_bit_of_a_symbol_table_keeps_the_invariants() {
    let start = spt_v2().len();
    let file = with_symbols(&spt_v2(), &["rump_init", "caml_startup"]);
    let (mut same, mut other) = (0, 0);
    for bit in (ehdr::SHOFF * 8..ehdr::SIZE * 8).chain(start * 8..file.len() * 8) {
        let mut file = file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        match checks::image(&file) {
            Ok(image) if image.find_symbols(file.as_slice(), NAMES).unwrap() == [true, true, false] => {
                same += 1;
            }
            _ => other += 1,
        }
    }
    assert!(same > 100 && other > 100, "{same} {other}");
}

/// A file as large as it says, of which only the start is there; the rest is `fill`.
struct Vast<'a> {
    start: &'a [u8],
    size: u64,
    fill: u8,
    read: Cell<u64>,
}

impl ReadAt for Vast<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        assert!(offset + buffer.len() as u64 <= self.size && buffer.len() <= 256 << 10);
        self.read.set(self.read.get() + buffer.len() as u64);
        buffer.fill(self.fill);
        if let Some(there) = usize::try_from(offset).ok().and_then(|offset| self.start.get(offset..)) {
            let length = there.len().min(buffer.len());
            buffer[..length].copy_from_slice(&there[..length]);
        }
        Ok(())
    }
}

#[test]
fn tables_of_any_size_cost_no_more_than_the_limits() {
    let mut file = with_symbols(&spt_v2(), &["rump_init"]);
    let size = 1 << 50;
    let start = field(&file, 1, shdr::OFFSET);
    poke(&mut file, start, 0_u64);
    let lengths = [field(&file, 1, shdr::LENGTH), field(&file, 2, shdr::LENGTH)];
    for at in lengths {
        poke(&mut file, at, size / 2);
    }
    poke(&mut file, ehdr::SHNUM, u16::MAX);
    let image = Image::parse(file.as_slice()).unwrap();
    let source = Vast { start: &file, size, fill: b'x', read: Cell::new(0) };
    image.find_symbols(&source, NAMES).unwrap();
    let limit = MAX_NAMES_SIZE + MAX_SYMBOLS_SIZE + (1 << 20);
    assert!((32 << 20..=limit).contains(&source.read.get()), "{}", source.read.get());

    // A table of nothing but the name: the search ends early, and the first ones count.
    let strings = b"rump_init\0".repeat(100_000);
    let symbol = Symbol { name: 10, kind: GLOBAL_FUNC, section: 1 };
    assert_eq!(find(&with_symbol_table(&spt_v2(), &[symbol], &strings)), [true, false, false]);
}

#[test]
fn table_that_cannot_be_read_is_an_error() {
    let file = with_symbols(&spt_v2(), &["rump_init"]);
    let image = Image::parse(file.as_slice()).unwrap();
    struct Broken(u64);
    impl ReadAt for Broken {
        fn size(&self) -> u64 {
            self.0
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
            Err(SourceError { offset, length: buffer.len(), reason: "input/output error".into() })
        }
    }
    assert!(image.find_symbols(&Broken(file.len() as u64), NAMES).is_err());
    // Another file than the one that was parsed: a shorter one has no such table.
    assert_eq!(image.find_symbols(&file[..100], NAMES), Ok([false; 3]));
}
