//! rust-vmm's linux-loader as a second opinion: for a valid image it puts the same bytes into memory.
//!
//! It loads by `p_paddr`, which the images here have equal to `p_vaddr`, as real guests do. It checks far less, so
//! that it says nothing about images that are not valid.

use crate::common::{
    elf::{ElfBuilder, PT_NOTE},
    guests::{TEXT, abi1, mft1, spt_v2, two_devices},
};
use linux_loader::loader::{Elf as LinuxLoader, KernelLoader};
use nabla_core::{Image, elf::page_up};
use proptest::prelude::*;
use std::io::Cursor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Loads `file` both ways and compares memory and entry point.
pub fn compare(file: &[u8]) {
    let image = Image::parse(file).unwrap();
    let start = image.segments()[0].pages().start;
    let size = usize::try_from(image.end() - start).unwrap();

    let mut ours = vec![0; size];
    for segment in image.segments() {
        let at = usize::try_from(segment.address - start).unwrap();
        let from = usize::try_from(segment.file_offset).unwrap();
        let length = usize::try_from(segment.file_size).unwrap();
        ours[at..at + length].copy_from_slice(&file[from..from + length]);
    }

    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(start), size)]).unwrap();
    let theirs = LinuxLoader::load(&memory, None, &mut Cursor::new(file), None).unwrap();
    assert_eq!(theirs.kernel_load.0, image.entry());
    // They leave out segments without bytes in the file, since those change nothing in zeroed memory.
    let last = image.segments().iter().rfind(|segment| segment.file_size > 0).unwrap();
    assert_eq!(theirs.kernel_end, last.end());
    assert!(page_up(theirs.kernel_end) <= image.end());
    let mut loaded = vec![0; size];
    memory.read_slice(&mut loaded, GuestAddress(start)).unwrap();
    assert!(loaded == ours, "different bytes in memory");
}

#[test]
fn typical_guest_is_loaded_the_same() {
    compare(&spt_v2());
}

/// A segment: distance from the one before it in bytes, its bytes, how many zeros follow, and whether it is data.
type Shape = (u64, Vec<u8>, u64, bool);

fn shape() -> impl Strategy<Value = Shape> {
    let bytes = prop::collection::vec(any::<u8>(), 0..9000);
    (prop_oneof![Just(0), 1_u64..0x3000], bytes, prop_oneof![Just(0), 0_u64..0x3000], any::<bool>())
}

/// An image of these segments, which enters the first one. Segments of different kinds start on different pages.
fn build(first: u64, code: &[u8], shapes: &[Shape], congruent: bool) -> Vec<u8> {
    let mut builder = ElfBuilder::new(first).load(5, first, code, code.len() as u64);
    let mut end = first + code.len() as u64;
    let mut was_data = false;
    for (distance, bytes, zeros, is_data) in shapes {
        let address = if *is_data == was_data { end + distance } else { page_up(end) + distance };
        let memory_size = bytes.len() as u64 + zeros;
        builder = builder.load(if *is_data { 6 } else { 5 }, address, bytes, memory_size);
        if memory_size > 0 {
            (end, was_data) = (address + memory_size, *is_data);
        }
    }
    if congruent {
        builder = builder.congruent();
    }
    builder.unloaded(PT_NOTE, &abi1(2, 2)).unloaded(PT_NOTE, &mft1(&two_devices().encode())).build()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn any_valid_image_is_loaded_the_same(
        first in TEXT..TEXT + 0x4000,
        code in prop::collection::vec(any::<u8>(), 1..9000),
        shapes in prop::collection::vec(shape(), 0..6),
        congruent: bool,
    ) {
        compare(&build(first, &code, &shapes, congruent));
    }
}
