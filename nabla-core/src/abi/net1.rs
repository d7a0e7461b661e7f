//! The ELF note "NET1": the guest takes its addresses from its arguments. Nabla's own; Solo5 has no such note.
//!
//! `nabla-guest` puts it into every guest that is linked with its parser of these arguments. A monitor that finds it
//! passes them in front of the guest's own arguments, separated by spaces:
//!
//! `--ipv4=IP/PREFIX`, `--ipv6=IP/PREFIX` and `--dns=IP`, each any number of times; `--ipv4-gateway=IP`,
//! `--ipv6-gateway=IP` and `--hostname=NAME`, each at most once.
//!
//! The note may follow others in a `PT_NOTE`.

/// Name of the note's owner, with its NUL.
pub const NOTE_NAME: [u8; 6] = *b"Nabla\0";
/// Type of the note: "NET1".
pub const NOTE_TYPE: u32 = u32::from_le_bytes(*b"NET1");
/// The version of the arguments that is described here.
pub const VERSION: u32 = 1;

/// Start of the note's descriptor, aligned to 4 bytes. Later versions may append to it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Info {
    /// Version of the arguments: [`VERSION`]. A monitor that does not know a version tells the guest nothing.
    pub version: u32,
}

const _: () = assert!(size_of::<Info>() == 4);
