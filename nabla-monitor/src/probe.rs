//! The smallest guest: one instruction sequence that exits. For finding out whether guests can run at all.

use crate::elf_writer::{self, ProgramHeader};
use nabla_core::{
    Manifest, abi,
    elf::{PT_LOAD, PT_NOTE},
};

/// What the guest exits with: not 0, which too many other things end with.
pub(crate) const EXIT_STATUS: u8 = 42;

/// An `spt` v2 image of two pages that calls `exit_group(42)`.
pub(crate) fn image() -> Vec<u8> {
    // mov edi, 42; mov eax, 231; syscall; ud2
    const CODE: [u8; 14] = [0xbf, EXIT_STATUS, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b];
    build(abi::TARGET_SPT, &CODE)
}

/// An `hvt` v2 image that halts with 42.
pub(crate) fn hvt_image() -> Vec<u8> {
    // push 42; push 0; mov eax, esp; mov dx, 0x508; out dx, eax; ud2: the structure is no cookie and the status.
    const CODE: [u8; 13] = [0x6a, EXIT_STATUS, 0x6a, 0, 0x89, 0xe0, 0x66, 0xba, 0x08, 0x05, 0xef, 0x0f, 0x0b];
    build(abi::TARGET_HVT, &CODE)
}

fn build(target: u32, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = abi::GUEST_MIN_BASE;
    const NOTES_OFFSET: usize = elf_writer::size(3);
    const CODE_OFFSET: usize = 0x1000;
    let abi_note = note(abi::ABI1_NOTE_TYPE, 0, &words(&[target, 2, 0, 0]));
    let manifest = Manifest::new([]).map(|manifest| manifest.encode()).unwrap_or_default();
    let manifest_note = note(abi::MFT1_NOTE_TYPE, 4, &manifest);
    let header = |kind, flags, offset: usize, address, size: usize| ProgramHeader {
        kind,
        flags,
        offset: offset as u64,
        address,
        size: size as u64,
        align: abi::PAGE_SIZE,
    };
    let mut bytes = elf_writer::executable(
        BASE,
        &[
            header(PT_LOAD, 5, CODE_OFFSET, BASE, code.len()),
            header(PT_NOTE, 4, NOTES_OFFSET, 0, abi_note.len()),
            header(PT_NOTE, 4, NOTES_OFFSET + abi_note.len(), 0, manifest_note.len()),
        ],
    );
    bytes.extend_from_slice(&abi_note);
    bytes.extend_from_slice(&manifest_note);
    bytes.resize(CODE_OFFSET, 0);
    bytes.extend_from_slice(code);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn note(kind: u32, padding: usize, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(padding + content.len()).unwrap_or(u32::MAX);
    let mut bytes = words(&[6, size, kind]);
    bytes.extend_from_slice(b"Solo5\0\0\0");
    bytes.resize(bytes.len() + padding, 0);
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use nabla_core::{Abi, Image};

    #[test]
    fn image_is_valid() {
        let image = Image::parse(&image()[..]).unwrap();
        assert_eq!((image.abi(), image.entry()), (Abi::SptV2, abi::GUEST_MIN_BASE));
        let image = Image::parse(&hvt_image()[..]).unwrap();
        assert_eq!((image.abi(), image.entry()), (Abi::HvtV2, abi::GUEST_MIN_BASE));
    }
}
