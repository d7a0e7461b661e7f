//! The headers as the file has them.

use super::{ElfError, MAX_PROGRAM_HEADERS, SectionTable};
use crate::source::{ReadAt, read_vec};
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// `Elf64_Ehdr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
struct FileHeader {
    magic: [u8; 4],
    class: u8,
    data: u8,
    ident_version: u8,
    os_abi: u8,
    padding: [u8; 8],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    program_headers_offset: u64,
    section_headers_offset: u64,
    flags: u32,
    header_size: u16,
    program_header_size: u16,
    program_header_count: u16,
    section_header_size: u16,
    section_header_count: u16,
    section_names_index: u16,
}

/// `Elf64_Phdr`: one program header as the file has it. Sizes and offsets are in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
pub struct ProgramHeader {
    /// `p_type`: `PT_*`.
    pub kind: u32,
    /// `p_flags`: read 4, write 2, execute 1.
    pub flags: u32,
    /// `p_offset`: where its bytes start in the file.
    pub offset: u64,
    /// `p_vaddr`: where they go.
    pub address: u64,
    /// `p_paddr`: ignored, as by Solo5's tenders.
    pub physical_address: u64,
    /// `p_filesz`: bytes in the file.
    pub file_size: u64,
    /// `p_memsz`: bytes in memory; the rest is zero.
    pub memory_size: u64,
    /// `p_align`.
    pub align: u64,
}

/// The entry point and the program headers of a file of `size` bytes, and where its section headers are said to be.
pub(super) fn read_headers<S: ReadAt + ?Sized>(
    source: &S,
    size: u64,
) -> Result<(u64, Vec<ProgramHeader>, SectionTable), ElfError> {
    const HEADER_SIZE: usize = size_of::<FileHeader>();
    const ENTRY_SIZE: usize = size_of::<ProgramHeader>();

    let start = read_vec(source, 0, HEADER_SIZE.min(usize::try_from(size).unwrap_or(HEADER_SIZE)))?;
    if !start.starts_with(b"\x7fELF") {
        return Err(ElfError::Magic { start: start[..start.len().min(4)].to_vec() });
    }
    let Ok(header) = FileHeader::read_from_bytes(&start) else {
        return Err(ElfError::TooShort { size });
    };
    check_file_header(&header)?;
    let FileHeader { entry, program_headers_offset: offset, program_header_count: count, .. } = header;
    let length = usize::from(count) * ENTRY_SIZE;
    if offset.checked_add(length as u64).is_none_or(|end| end > size) {
        return Err(ElfError::ProgramHeadersOutside { offset, size });
    }
    let bytes = read_vec(source, offset, length)?;
    let headers = bytes
        .chunks_exact(ENTRY_SIZE)
        .filter_map(|chunk| ProgramHeader::read_from_bytes(chunk).ok())
        .collect();
    let sections = SectionTable {
        offset: header.section_headers_offset,
        entry_size: header.section_header_size,
        count: header.section_header_count,
    };
    Ok((entry, headers, sections))
}

/// Checks what Solo5's tenders check. Like them it does not look at `EI_OSABI`, which toolchains fill in as they
/// please, nor at anything about sections.
fn check_file_header(header: &FileHeader) -> Result<(), ElfError> {
    match *header {
        FileHeader { class, .. } if class != 2 => Err(ElfError::Class { class }),
        FileHeader { data, .. } if data != 1 => Err(ElfError::ByteOrder { data }),
        FileHeader { version, .. } if version != 1 => Err(ElfError::Version { version }),
        FileHeader { kind, .. } if kind != 2 => Err(ElfError::Type { kind }),
        FileHeader { machine, .. } if machine != 62 => Err(ElfError::Machine { machine }),
        FileHeader { header_size: size, .. } if size != 64 => Err(ElfError::HeaderSize { size }),
        FileHeader { program_header_size: size, .. } if size != 56 => {
            Err(ElfError::ProgramHeaderSize { size })
        }
        FileHeader { program_header_count: count, .. } if !(1..=MAX_PROGRAM_HEADERS).contains(&count) => {
            Err(ElfError::ProgramHeaderCount { count })
        }
        _ => Ok(()),
    }
}
