//! What can be wrong with the ELF file.

use super::{MAX_ADDRESS, MAX_PROGRAM_HEADERS};
use crate::{abi::GUEST_MIN_BASE, source::SourceError};
use alloc::{format, string::String, vec::Vec};
use thiserror::Error;

/// What can be wrong with the ELF file.
///
/// Fields are named after what they hold: `index` is that of the program header, counted from 0; addresses,
/// offsets and sizes are in bytes, as the file has them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It does not start with the ELF magic number.
    #[error("it is not an ELF file: it {what}", what = first_bytes(.start))]
    Magic {
        /// Its first bytes, at most four.
        start: Vec<u8>,
    },
    /// It is shorter than the ELF header.
    #[error("it has {size} bytes, and an ELF header alone needs 64")]
    TooShort {
        /// Size of the file.
        size: u64,
    },
    /// It is no 64-bit file.
    #[error("ELF class (EI_CLASS) is {class}, and must be 2 (64-bit)")]
    Class {
        /// `EI_CLASS`.
        class: u8,
    },
    /// It is not little-endian.
    #[error("ELF byte order (EI_DATA) is {data}, and must be 1 (little-endian)")]
    ByteOrder {
        /// `EI_DATA`.
        data: u8,
    },
    /// Its version is not 1.
    #[error("ELF version (e_version) is {version}, and must be 1")]
    Version {
        /// `e_version`.
        version: u32,
    },
    /// It is no executable at a fixed address.
    #[error(
        "ELF type (e_type) is {kind} ({name}), and must be 2 (ET_EXEC: a static executable that is not PIE)",
        name = type_name(*.kind)
    )]
    Type {
        /// `e_type`.
        kind: u16,
    },
    /// It is for another processor.
    #[error("ELF machine (e_machine) is {machine}, and must be 62 (x86-64)")]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// The header's size field is wrong.
    #[error("ELF header size (e_ehsize) is {size}, and must be 64")]
    HeaderSize {
        /// `e_ehsize`.
        size: u16,
    },
    /// The size field of program headers is wrong.
    #[error("program header size (e_phentsize) is {size}, and must be 56")]
    ProgramHeaderSize {
        /// `e_phentsize`.
        size: u16,
    },
    /// There are no program headers, or absurdly many.
    #[error("number of program headers (e_phnum) is {count}, and must be 1 to {max}", max = MAX_PROGRAM_HEADERS)]
    ProgramHeaderCount {
        /// `e_phnum`.
        count: u16,
    },
    /// The program headers lie outside of the file.
    #[error("program headers at offset {offset:#x} (e_phoff) reach past the end of the file ({size} bytes)")]
    ProgramHeadersOutside {
        /// `e_phoff`.
        offset: u64,
        /// Size of the file.
        size: u64,
    },
    /// A segment is smaller in memory than in the file.
    #[error("segment {index}: p_memsz {memory_size:#x} is smaller than p_filesz {file_size:#x}")]
    MemoryBelowFileSize {
        /// Index of the program header.
        index: u16,
        /// `p_memsz`.
        memory_size: u64,
        /// `p_filesz`.
        file_size: u64,
    },
    /// A segment's bytes lie outside of the file.
    #[error(
        "segment {index}: p_offset {offset:#x} + p_filesz {file_size:#x} is past the end of the file ({size} bytes)"
    )]
    SegmentOutsideFile {
        /// Index of the program header.
        index: u16,
        /// `p_offset`.
        offset: u64,
        /// `p_filesz`.
        file_size: u64,
        /// Size of the file.
        size: u64,
    },
    /// A segment lies below the lowest address of a guest.
    #[error(
        "segment {index}: p_vaddr {address:#x} is below {min:#x}, the lowest address of a guest",
        min = GUEST_MIN_BASE
    )]
    SegmentTooLow {
        /// Index of the program header.
        index: u16,
        /// `p_vaddr`.
        address: u64,
    },
    /// A segment ends above the highest address of a guest, or wraps around.
    #[error(
        "segment {index}: p_vaddr {address:#x} + p_memsz {memory_size:#x} is above {max:#x}, the highest address of a guest",
        max = MAX_ADDRESS
    )]
    SegmentTooHigh {
        /// Index of the program header.
        index: u16,
        /// `p_vaddr`.
        address: u64,
        /// `p_memsz`.
        memory_size: u64,
    },
    /// A segment's alignment is no power of two.
    #[error("segment {index}: p_align {align:#x} is not a power of two")]
    Alignment {
        /// Index of the program header.
        index: u16,
        /// `p_align`.
        align: u64,
    },
    /// The segments are not in ascending order.
    #[error(
        "segment {index}: p_vaddr {address:#x} is below the segment before it, which starts at {previous:#x}"
    )]
    Order {
        /// Index of the program header.
        index: u16,
        /// `p_vaddr`.
        address: u64,
        /// `p_vaddr` of the segment before it.
        previous: u64,
    },
    /// Two segments overlap.
    #[error(
        "segment {index}: p_vaddr {address:#x} overlaps the segment before it, which ends at {previous_end:#x}"
    )]
    Overlap {
        /// Index of the program header.
        index: u16,
        /// `p_vaddr`.
        address: u64,
        /// `p_vaddr` + `p_memsz` of the segment before it.
        previous_end: u64,
    },
    /// Segments share a page that would then be writable and executable, which none of them asked for.
    #[error(
        "segment {index}: it shares the page at {page:#x} with segments before it, which would make the page writable and executable"
    )]
    SharedPage {
        /// Index of the program header.
        index: u16,
        /// Address of the page.
        page: u64,
    },
    /// Nothing is loaded.
    #[error("it has no loadable segment (PT_LOAD) with any bytes")]
    NothingToLoad,
    /// The entry point is in no executable segment.
    #[error("the entry point (e_entry) {entry:#x} is not in an executable segment")]
    Entry {
        /// `e_entry`.
        entry: u64,
    },
}

fn first_bytes(start: &[u8]) -> String {
    let hex: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
    match start {
        [] => "is empty".into(),
        _ => format!("starts with {} ('{}'), and not with 7f 45 4c 46", hex.join(" "), start.escape_ascii()),
    }
}

fn type_name(kind: u16) -> &'static str {
    match kind {
        0 => "ET_NONE",
        1 => "ET_REL: an object file",
        3 => "ET_DYN: a shared object or a PIE",
        4 => "ET_CORE: a core dump",
        _ => "unknown",
    }
}
