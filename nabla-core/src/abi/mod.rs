//! The structures and constants that guests and monitors share.
//!
//! Source: Solo5's public headers `elf_abi.h`, `mft_abi.h`, `spt_abi.h`, `hvt_abi.h` and `hvt_ring.h`,
//! releases 0.6 to 0.12; [`net1`] is Nabla's own. Every structure is `repr(C)` with explicit padding; layout tests stand beside each.

pub mod hvt;
pub mod mft;
pub mod net1;
pub mod ring;
pub mod spt;

/// Lowest address at which a guest may be loaded, in every ABI (`*_GUEST_MIN_BASE`).
pub const GUEST_MIN_BASE: u64 = 0x10_0000;

/// Size in bytes of a page of guest memory.
pub const PAGE_SIZE: u64 = 0x1000;

/// Largest guest command line in bytes, including its terminating NUL.
pub const CMDLINE_SIZE: usize = 8192;

/// Exit status with which bindings report `solo5_abort` (`SOLO5_EXIT_ABORT`).
pub const EXIT_ABORT: i32 = 255;

/// Name of every ELF note owned by Solo5, with its NUL.
pub const NOTE_NAME: [u8; 6] = *b"Solo5\0";
/// Type of the ELF note that names the ABI: "ABI1".
pub const ABI1_NOTE_TYPE: u32 = 0x3149_4241;
/// Alignment in bytes of [`Abi1Info`] inside its note, counted from the note's header.
pub const ABI1_NOTE_ALIGN: usize = 4;
/// Type of the ELF note that holds the manifest: "MFT1".
pub const MFT1_NOTE_TYPE: u32 = 0x3154_464d;
/// Alignment in bytes of the manifest inside its note, counted from the note's header.
pub const MFT1_NOTE_ALIGN: usize = 8;
/// Size in bytes of a note's header with the name `Solo5` padded to 4 bytes.
pub const NOTE_HEADER_SIZE: usize = 20;

/// `.interp` of a guest: a path that cannot exist, so that the host kernel refuses to execute the file.
pub const INTERP: &[u8; 20] = b"/nonexistent/solo5/\0";

/// `abi_target` of an `hvt` guest.
pub const TARGET_HVT: u32 = 1;
/// `abi_target` of an `spt` guest.
pub const TARGET_SPT: u32 = 2;
/// `abi_target` of a virtio guest; not run by this project.
pub const TARGET_VIRTIO: u32 = 3;
/// `abi_target` of a Muen guest; not run by this project.
pub const TARGET_MUEN: u32 = 4;
/// `abi_target` of a Genode guest; not run by this project.
pub const TARGET_GENODE: u32 = 5;
/// `abi_target` of a Xen guest; not run by this project.
pub const TARGET_XEN: u32 = 6;

/// Content of the ABI1 note.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Abi1Info {
    /// One of the `TARGET_*` constants.
    pub abi_target: u32,
    /// Version of that target's ABI.
    pub abi_version: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved1: u32,
}

/// Header and name of an ELF note whose owner's name has 5 letters, as Solo5 and [Nabla](net1).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteHeader {
    /// Length of the name with its NUL: 6.
    pub namesz: u32,
    /// Length of what follows the name's padding, including the content's own alignment.
    pub descsz: u32,
    /// [`ABI1_NOTE_TYPE`], [`MFT1_NOTE_TYPE`] or [`net1::NOTE_TYPE`].
    pub note_type: u32,
    /// The owner's name, padded with NULs to 8 bytes.
    pub name: [u8; 8],
}

impl NoteHeader {
    /// A header for a note of `owner`, with its NUL, and `note_type` whose descriptor has `descsz` bytes.
    #[must_use]
    pub const fn new(owner: [u8; 6], note_type: u32, descsz: u32) -> Self {
        let [a, b, c, d, e, nul] = owner;
        Self { namesz: 6, descsz, note_type, name: [a, b, c, d, e, nul, 0, 0] }
    }
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Abi1Info>() == 16);
    assert!(offset_of!(Abi1Info, abi_version) == 4);
    assert!(size_of::<NoteHeader>() == NOTE_HEADER_SIZE);
};
