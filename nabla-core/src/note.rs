//! The ELF notes of a guest.

use crate::{
    abi::{
        ABI1_NOTE_ALIGN, ABI1_NOTE_TYPE, Abi1Info, MFT1_NOTE_ALIGN, MFT1_NOTE_TYPE, NOTE_HEADER_SIZE,
        NOTE_NAME, mft, net1,
    },
    elf::FileRange,
    source::{ReadAt, SourceError, read_vec},
};
use alloc::vec::Vec;
use thiserror::Error;
use zerocopy::FromBytes;

/// Most bytes of a PT_NOTE that are looked at; a manifest of 64 entries needs under 7 KiB, and Solo5 puts each of
/// its notes into a program header of its own.
const MAX_NOTES_SIZE: u64 = 64 << 10;
/// Largest descriptor of a manifest note, with the padding before it.
const MAX_MANIFEST_SIZE: usize = MFT1_NOTE_ALIGN - NOTE_HEADER_SIZE % MFT1_NOTE_ALIGN
    + size_of::<mft::Header>()
    + mft::MAX_ENTRIES as usize * size_of::<mft::Entry>();

/// What can be wrong with a note of Solo5 or Nabla.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A note reaches past the end of its program header or of the file.
    #[error(
        "a note of type {note_type:#x} in program header {index} has {size} bytes (n_descsz), and only {available} are there"
    )]
    Truncated {
        /// Index of the program header.
        index: u16,
        /// Type of the note (`n_type`).
        note_type: u32,
        /// Bytes that it claims to have (`n_descsz`).
        size: u32,
        /// Bytes that are there.
        available: usize,
    },
    /// The ABI note has the wrong size.
    #[error("the ABI note (ABI1) has {size} bytes (n_descsz), and must have 16")]
    AbiSize {
        /// Its size in bytes (`n_descsz`).
        size: usize,
    },
    /// The manifest note has an impossible size.
    #[error("the manifest note (MFT1) has {size} bytes (n_descsz), and must have 12 to {max}", max = MAX_MANIFEST_SIZE)]
    ManifestSize {
        /// Its size in bytes (`n_descsz`), with the padding before the manifest.
        size: usize,
    },
    /// The note about network arguments is too small.
    #[error("the note about network arguments (NET1) has {size} bytes (n_descsz), and must have at least 4")]
    NetSize {
        /// Its size in bytes (`n_descsz`).
        size: usize,
    },
}

/// The notes that matter, as found.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub abi: Option<Abi1Info>,
    /// Content of the manifest note, without the padding before it.
    pub manifest: Option<Vec<u8>>,
    pub net: Option<net1::Info>,
    /// A second note of a type was there and ignored.
    pub duplicate: bool,
}

impl Notes {
    pub(crate) fn read<S: ReadAt + ?Sized>(source: &S, ranges: &[FileRange]) -> Result<Self, NoteError> {
        let mut notes = Self::default();
        for &FileRange { index, offset, size } in ranges {
            let length = usize::try_from(size.min(MAX_NOTES_SIZE)).unwrap_or(0);
            notes.scan(index, &read_vec(source, offset, length)?)?;
        }
        Ok(notes)
    }

    fn scan(&mut self, index: u16, mut bytes: &[u8]) -> Result<(), NoteError> {
        while let Ok(([namesz, descsz, note_type], rest)) = <[u32; 3]>::read_from_prefix(bytes) {
            let name_end = padded(namesz).filter(|&end| end <= rest.len());
            let Some((name, rest)) = name_end.map(|end| rest.split_at(end)) else {
                // Not ours, or nothing is left of it: ours has a name of 8 bytes.
                return Ok(());
            };
            let is_owner = |owner: &[u8; 6]| namesz as usize == owner.len() && name.starts_with(owner);
            let owner = [NOTE_NAME, net1::NOTE_NAME].into_iter().find(is_owner);
            let Some(descriptor) = rest.get(..descsz as usize) else {
                return if owner.is_some() {
                    Err(NoteError::Truncated { index, note_type, size: descsz, available: rest.len() })
                } else {
                    Ok(())
                };
            };
            if let Some(owner) = owner {
                self.add(owner, note_type, descriptor)?;
            }
            bytes = padded(descsz).and_then(|end| rest.get(end..)).unwrap_or_default();
        }
        Ok(())
    }

    fn add(&mut self, owner: [u8; 6], note_type: u32, descriptor: &[u8]) -> Result<(), NoteError> {
        const ABI_PADDING: usize = NOTE_HEADER_SIZE.next_multiple_of(ABI1_NOTE_ALIGN) - NOTE_HEADER_SIZE;
        const MANIFEST_PADDING: usize = NOTE_HEADER_SIZE.next_multiple_of(MFT1_NOTE_ALIGN) - NOTE_HEADER_SIZE;
        let size = descriptor.len();
        match (owner, note_type) {
            (NOTE_NAME, ABI1_NOTE_TYPE) => {
                let info = descriptor.get(ABI_PADDING..).and_then(|d| Abi1Info::read_from_bytes(d).ok());
                let info = info.ok_or(NoteError::AbiSize { size })?;
                self.duplicate |= self.abi.is_some();
                self.abi.get_or_insert(info);
            }
            (NOTE_NAME, MFT1_NOTE_TYPE) => {
                let content = descriptor.get(MANIFEST_PADDING..).unwrap_or_default();
                if content.len() < size_of::<mft::Header>() || size > MAX_MANIFEST_SIZE {
                    return Err(NoteError::ManifestSize { size });
                }
                self.duplicate |= self.manifest.is_some();
                self.manifest.get_or_insert_with(|| content.to_vec());
            }
            (net1::NOTE_NAME, net1::NOTE_TYPE) => {
                let (info, _) =
                    net1::Info::read_from_prefix(descriptor).map_err(|_| NoteError::NetSize { size })?;
                self.duplicate |= self.net.is_some();
                self.net.get_or_insert(info);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Sizes in notes are padded to 4 bytes.
fn padded(size: u32) -> Option<usize> {
    (size as usize).checked_next_multiple_of(4)
}
