//! Files that were damaged or made to do damage: an error or an image whose invariants hold, never a panic.

use crate::common::{
    checks,
    elf::{ElfBuilder, PT_NOTE, ehdr, phdr},
    guests::{CALL_POINTER, TEXT, guest, legacy, legacy_code, out, segments, spt_v2, two_devices},
};
use nabla_core::abi;
use proptest::prelude::*;
use std::time::{Duration, Instant};

#[test]
fn truncating_an_image_anywhere_returns_error() {
    let file = guest(abi::TARGET_HVT, 1, &two_devices()).congruent().build();
    for size in 0..file.len() {
        assert!(checks::image(&file[..size]).is_err(), "{size} of {} bytes", file.len());
    }
    checks::image(&file).unwrap();
}

#[test]
fn flipping_any_bit_of_an_image_keeps_the_invariants() {
    let file = spt_v2();
    let (mut good, mut bad) = (0, 0);
    for bit in 0..file.len() * 8 {
        let mut file = file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        match checks::image(&file) {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} {bad}");
}

#[test]
fn flipping_any_bit_of_a_guest_without_note_keeps_the_invariants() {
    let file = legacy(&legacy_code(&[&out(0x502), &out(0x50a), CALL_POINTER]));
    for bit in 0..file.len() * 8 {
        let mut file = file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        let _ = checks::image(&file);
    }
}

#[test]
fn truncating_a_manifest_anywhere_returns_error_and_flipping_any_bit_keeps_the_invariants() {
    let good = two_devices().encode();
    for size in 0..good.len() {
        assert!(checks::manifest(&good[..size]).is_err());
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = checks::manifest(&bytes);
    }
}

#[test]
fn every_field_at_its_edges_keeps_the_invariants() {
    let file = spt_v2();
    let headers = usize::from(u16::from_le_bytes([file[ehdr::PHNUM], file[ehdr::PHNUM + 1]]));
    let size = file.len() as u64;
    for value in
        [0, 1, 0xfff, 0x1000, TEXT - 1, TEXT, size - 1, size, 1 << 31, 1 << 32, 1 << 46, 1 << 63, !0xfff, !0]
    {
        let value = value.to_le_bytes();
        for at in (0..ehdr::SIZE + headers * phdr::SIZE).step_by(4) {
            for width in [4, 8] {
                let mut file = file.clone();
                file[at..at + width].copy_from_slice(&value[..width]);
                let _ = checks::image(&file);
            }
        }
    }
}

#[test]
fn file_that_repeats_its_parts_costs_no_more_than_they_are_large() {
    // Every header that there can be, each with all of the file as code or as notes, and nothing that identifies it:
    // the code is searched to the end.
    let code = [0x45, 0x31, 0xd2, 0x45].repeat(64 << 10);
    let mut file = ElfBuilder::new(TEXT).load(5, TEXT, &code, code.len() as u64).build();
    let builder = (1..127_u64).fold(ElfBuilder::new(TEXT).load(5, TEXT, b"", 16), |builder, i| {
        if i % 2 == 0 {
            builder.load(5, TEXT + i * (1 << 20), b"", 1 << 20)
        } else {
            builder.unloaded(PT_NOTE, b"")
        }
    });
    let headers = builder.build();
    file[..headers.len()].copy_from_slice(&headers);
    let size = file.len() as u64;
    for i in 0..builder.next_index() {
        let at = ehdr::SIZE + i * phdr::SIZE;
        file[at + phdr::OFFSET..][..8].copy_from_slice(&0_u64.to_le_bytes());
        file[at + phdr::FILESZ..][..8].copy_from_slice(&(if i == 0 { 16 } else { size }).to_le_bytes());
    }
    let start = Instant::now();
    checks::image(&file).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn overwriting_any_bytes_keeps_the_invariants(
        patches in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 1_usize..=8), 1..6),
    ) {
        let mut file = spt_v2();
        for (at, value, width) in patches {
            let at = at.index(file.len() - 8);
            file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        let _ = checks::image(&file);
    }

    #[test]
    fn any_program_headers_keep_the_invariants(
        headers in prop::collection::vec(
            (0_u32..5, 0_u32..8, 0_u64..0x800, 0xf_ff00_u64..0x10_4000, 0_u64..0x200, 0_u64..0x2000),
            1..12,
        ),
    ) {
        let mut file = headers.iter().fold(segments(), |b, _| b.unloaded(0, b"")).build();
        let first = segments().next_index();
        for (i, &(kind, flags, offset, address, file_size, memory_size)) in headers.iter().enumerate() {
            let at = ehdr::SIZE + (first + i) * phdr::SIZE;
            let words = [u64::from(kind) | u64::from(flags) << 32, offset, address, 0, file_size, memory_size, 1];
            for (j, word) in words.iter().enumerate() {
                file[at + 8 * j..][..8].copy_from_slice(&word.to_le_bytes());
            }
        }
        let _ = checks::image(&file);
    }
}
