//! Typical guests, in the shapes that real toolchains give them.

use super::elf::{ElfBuilder, PT_INTERP, PT_NOTE, PT_TLS, Part, R, RW, RX, note};
use nabla_core::{
    Device, DeviceKind, Manifest,
    abi::{self, INTERP},
};

pub const TEXT: u64 = 0x10_0000;
/// `xor edi, edi; mov eax, 231; syscall`, and nops to see a size.
pub const CODE: &[u8] = b"\x31\xff\xb8\xe7\0\0\0\x0f\x05\x90\x90\x90\x90\x90\x90\x90";

/// An ABI1 note.
pub fn abi1(target: u32, version: u32) -> Vec<u8> {
    let mut descriptor = Vec::new();
    for word in [target, version, 0, 0] {
        descriptor.extend_from_slice(&word.to_le_bytes());
    }
    note(&abi::NOTE_NAME, abi::ABI1_NOTE_TYPE, &descriptor)
}

/// An MFT1 note around the content of a manifest.
pub fn mft1(content: &[u8]) -> Vec<u8> {
    let mut descriptor = vec![0; 4];
    descriptor.extend_from_slice(content);
    note(&abi::NOTE_NAME, abi::MFT1_NOTE_TYPE, &descriptor)
}

/// The note about network arguments, of this version.
pub fn net1(version: u32) -> Vec<u8> {
    note(&abi::net1::NOTE_NAME, abi::net1::NOTE_TYPE, &version.to_le_bytes())
}

pub fn manifest(devices: &[(DeviceKind, &str)]) -> Manifest {
    Manifest::new(devices.iter().copied()).unwrap()
}

/// A manifest with one disk and one network device.
pub fn two_devices() -> Manifest {
    manifest(&[(DeviceKind::Block, "storage"), (DeviceKind::Net, "service0")])
}

/// The devices as pairs of index and name.
pub fn names(devices: impl Iterator<Item = Device>) -> Vec<(usize, String)> {
    devices.map(|device| (device.index, device.name.to_string())).collect()
}

/// The note that OpenBSD wants to see; it comes first in guests of Solo5.
pub fn not_openbsd() -> Vec<u8> {
    note(b"OpenBSD\0", 1, &[0; 4])
}

/// Segments as the linker script of Solo5 0.12 makes them for `spt`, without notes: text with the constants, data,
/// an empty segment at address 0 for absent thread-local data, and a segment for `.bss` alone.
pub fn segments() -> ElfBuilder {
    ElfBuilder::new(TEXT)
        .unloaded(PT_INTERP, INTERP)
        .load(RX, TEXT, CODE, CODE.len() as u64)
        .load(RW, TEXT + 0x1000, b"data", 4)
        .load(R, 0, b"", 0)
        .part(Part { kind: PT_TLS, flags: R, address: 0, bytes: vec![], memory_size: 8, align: 8 })
        .load(RW, TEXT + 0x2000, b"", 0x58)
}

/// A whole guest: [`segments`], and each note in a program header of its own.
pub fn guest(target: u32, version: u32, manifest: &Manifest) -> ElfBuilder {
    segments()
        .unloaded(PT_NOTE, &not_openbsd())
        .unloaded(PT_NOTE, &abi1(target, version))
        .unloaded(PT_NOTE, &mft1(&manifest.encode()))
}

/// Indices of the program headers of [`guest`].
pub mod index {
    pub const INTERP: usize = 0;
    pub const TEXT: usize = 1;
    pub const DATA: usize = 2;
    pub const EMPTY: usize = 3;
    pub const BSS: usize = 5;
    pub const ABI1: usize = 7;
    pub const MFT1: usize = 8;
}

/// The same for `spt` version 2.
pub fn spt_v2() -> Vec<u8> {
    guest(abi::TARGET_SPT, 2, &two_devices()).build()
}

/// Code of a guest without a note: each sequence followed by a return, after some padding.
pub fn legacy_code(sequences: &[&[u8]]) -> Vec<u8> {
    let mut code = vec![0x90; 16];
    for sequence in sequences {
        code.extend_from_slice(sequence);
        code.extend_from_slice(&[0xc3, 0x90, 0x90]);
    }
    code
}

/// A guest without a note that has this code.
pub fn legacy(code: &[u8]) -> Vec<u8> {
    ElfBuilder::new(TEXT)
        .load(RX, TEXT, code, code.len() as u64)
        .load(RW, TEXT + 0x10_0000, b"data", 0x2000)
        .build()
}

/// `mov edx, port; mov eax, esi; out dx, eax`
pub fn out(port: u16) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0xba, low, high, 0, 0, 0x89, 0xf0, 0xef]
}

/// `call [0x10000]`
pub const CALL_POINTER: &[u8] = &[0xff, 0x14, 0x25, 0, 0, 1, 0];
/// `xor r10d, r10d; xor r8d, r8d; mov eax, 271; syscall`
pub const PPOLL: &[u8] = &[0x45, 0x31, 0xd2, 0x45, 0x31, 0xc0, 0xb8, 0x0f, 1, 0, 0, 0x0f, 0x05];
/// `mov eax, 231; syscall; jmp .`
pub const EXIT: &[u8] = &[0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xfe];
