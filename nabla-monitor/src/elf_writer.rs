//! The headers of small executables that this crate makes itself.

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgramHeader {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub size: u64,
    pub align: u64,
}

/// Bytes of an ELF header and `count` program headers.
pub(crate) const fn size(count: usize) -> usize {
    64 + count * 56
}

/// The ELF header and program headers of a static x86-64 executable (ET_EXEC) without sections.
pub(crate) fn executable(entry: u64, headers: &[ProgramHeader]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size(headers.len()));
    // Magic number, 64-bit, little-endian, version 1; ET_EXEC, x86-64, version 1.
    bytes.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    // Entry, program headers at 64, no section headers.
    for word in [entry, 64, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    // Flags; sizes and numbers of headers.
    let count = u8::try_from(headers.len()).unwrap_or(u8::MAX);
    bytes.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, count, 0, 0, 0, 0, 0, 0, 0]);
    for &ProgramHeader { kind, flags, offset, address, size, align } in headers {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        for word in [offset, address, address, size, size, align] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use nabla_core::elf::{Elf, PT_LOAD};

    #[test]
    fn what_is_written_is_read_back() {
        let load = ProgramHeader {
            kind: PT_LOAD,
            flags: 5,
            offset: 0,
            address: 0x10_0000,
            size: 120,
            align: 0x1000,
        };
        let bytes = executable(0x10_0042, &[load]);
        assert_eq!(bytes.len(), size(1));
        let elf = Elf::parse(&bytes[..]).unwrap();
        assert_eq!(
            (elf.entry, elf.segments[0].address, elf.segments[0].file_size),
            (0x10_0042, 0x10_0000, 120)
        );
    }
}
