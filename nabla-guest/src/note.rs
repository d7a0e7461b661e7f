//! What the file says about itself besides the manifest: its ABI, that no host kernel is to execute it, and whether it
//! takes its addresses from its arguments.
//!
//! [`entry!`](crate::entry!) puts the first two into sections of their own, in the program and not in this crate, so
//! that a host program that has this crate among its dependencies stays what it is.

#[cfg(feature = "tcpip")]
use nabla_core::abi::net1;
use nabla_core::abi::{ABI1_NOTE_TYPE, Abi1Info, NOTE_NAME, NoteHeader};

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
        header: NoteHeader::new(NOTE_NAME, ABI1_NOTE_TYPE, ABI_INFO_SIZE),
        info: Abi1Info { abi_target: sys::ABI_TARGET, abi_version: ABI_VERSION, reserved0: 0, reserved1: 0 },
    };
}

impl OpenBsdNote {
    /// The note, which is always the same.
    pub const THIS: Self = Self { namesz: 8, descsz: 4, note_type: 1, name: *b"OpenBSD\0", data: 0 };
}

/// The note "NET1".
#[cfg(feature = "tcpip")]
#[repr(C)]
#[derive(Debug)]
pub struct NetNote {
    header: NoteHeader,
    info: net1::Info,
}

#[cfg(feature = "tcpip")]
impl NetNote {
    /// The note of the arguments that [`Settings`](crate::tcpip::Settings) knows.
    pub const THIS: Self = Self {
        header: NoteHeader::new(net1::NOTE_NAME, net1::NOTE_TYPE, 4),
        info: net1::Info { version: net1::VERSION },
    };
}

const _: () = {
    #[cfg(feature = "tcpip")]
    assert!(size_of::<NetNote>() == 24);
    assert!(size_of::<Abi1Info>() == ABI_INFO_SIZE as usize);
    assert!(size_of::<AbiNote>() == 36);
    assert!(size_of::<OpenBsdNote>() == 24);
};
