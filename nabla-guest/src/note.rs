//! What the file says about itself besides the manifest: its ABI, and that no host kernel is to execute it.
//!
//! [`entry!`](crate::entry!) puts these into sections of their own, in the program and not in this crate, so
//! that a host program that has this crate among its dependencies stays what it is.

use nabla_core::abi::{ABI1_NOTE_TYPE, Abi1Info, NoteHeader};

use crate::sys;

pub use nabla_core::abi::INTERP;

/// The note "ABI1" (`elf_abi.h`).
#[repr(C)]
#[derive(Debug)]
pub struct AbiNote {
    header: NoteHeader,
    info: Abi1Info,
}

/// The note by which OpenBSD knows its own executables (its `elf(5)`). With it OpenBSD honours `.interp` and,
/// like any other host, refuses to execute a guest.
#[repr(C)]
#[derive(Debug)]
pub struct OpenBsdNote {
    namesz: u32,
    descsz: u32,
    note_type: u32,
    name: [u8; 8],
    data: u32,
}

const ABI_INFO_SIZE: u32 = 16;
const ABI_VERSION: u32 = 2;

impl AbiNote {
    /// The note of the binding that is selected.
    pub const THIS: Self = Self {
        header: NoteHeader::new(ABI1_NOTE_TYPE, ABI_INFO_SIZE),
        info: Abi1Info { abi_target: sys::ABI_TARGET, abi_version: ABI_VERSION, reserved0: 0, reserved1: 0 },
    };
}

impl OpenBsdNote {
    /// The note, which is always the same.
    pub const THIS: Self = Self { namesz: 8, descsz: 4, note_type: 1, name: *b"OpenBSD\0", data: 0 };
}

const _: () = {
    assert!(size_of::<Abi1Info>() == ABI_INFO_SIZE as usize);
    assert!(size_of::<AbiNote>() == 36);
    assert!(size_of::<OpenBsdNote>() == 24);
};
