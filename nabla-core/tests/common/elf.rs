//! A small ELF builder.

pub const R: u32 = 4;
pub const RW: u32 = 6;
pub const RX: u32 = 5;
pub const RWX: u32 = 7;

pub const PT_NULL: u32 = 0;
pub const PT_LOAD: u32 = 1;
pub const PT_INTERP: u32 = 3;
pub const PT_NOTE: u32 = 4;
pub const PT_TLS: u32 = 7;

/// Offsets of the fields of the ELF header.
pub mod ehdr {
    pub const CLASS: usize = 4;
    pub const DATA: usize = 5;
    pub const TYPE: usize = 16;
    pub const MACHINE: usize = 18;
    pub const VERSION: usize = 20;
    pub const ENTRY: usize = 24;
    pub const PHOFF: usize = 32;
    pub const SHOFF: usize = 40;
    pub const EHSIZE: usize = 52;
    pub const PHENTSIZE: usize = 54;
    pub const PHNUM: usize = 56;
    pub const SHENTSIZE: usize = 58;
    pub const SHNUM: usize = 60;
    pub const SIZE: usize = 64;
}

/// Offsets of the fields of a program header.
pub mod phdr {
    pub const TYPE: usize = 0;
    pub const FLAGS: usize = 4;
    pub const OFFSET: usize = 8;
    pub const VADDR: usize = 16;
    pub const FILESZ: usize = 32;
    pub const MEMSZ: usize = 40;
    pub const ALIGN: usize = 48;
    pub const SIZE: usize = 56;
}

/// Offsets of the fields of a section header.
pub mod shdr {
    pub const TYPE: usize = 4;
    pub const OFFSET: usize = 24;
    pub const ENTRY_SIZE: usize = 56;
    pub const LENGTH: usize = 32;
    pub const LINK: usize = 40;
    pub const SIZE: usize = 64;
}

/// Where program header `index` has the field at `field`.
pub fn in_phdr(index: usize, field: usize) -> usize {
    ehdr::SIZE + index * phdr::SIZE + field
}

/// Overwrites a field.
pub fn poke(file: &mut [u8], offset: usize, value: impl Into<Field>) {
    let value = value.into().0;
    file[offset..offset + value.len()].copy_from_slice(&value);
}

/// A little-endian number.
#[derive(Debug)]
pub struct Field(Vec<u8>);

macro_rules! fields {
    ($($t:ty),*) => {$(impl From<$t> for Field { fn from(n: $t) -> Self { Self(n.to_le_bytes().to_vec()) } })*};
}
fields!(u8, u16, u32, u64);

/// A program header and the bytes that it describes.
#[derive(Debug, Clone)]
pub struct Part {
    pub kind: u32,
    pub flags: u32,
    pub address: u64,
    pub bytes: Vec<u8>,
    pub memory_size: u64,
    pub align: u64,
}

/// An ELF file in the making: the header, the program headers in order, then each one's bytes.
#[derive(Debug, Clone, Default)]
pub struct ElfBuilder {
    entry: u64,
    parts: Vec<Part>,
    congruent: bool,
}

impl ElfBuilder {
    pub fn new(entry: u64) -> Self {
        Self { entry, ..Self::default() }
    }

    /// Puts each segment at an offset that equals its address modulo 4096, as linkers do, and not as densely as
    /// possible.
    pub fn congruent(mut self) -> Self {
        self.congruent = true;
        self
    }

    pub fn part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    pub fn load(self, flags: u32, address: u64, bytes: &[u8], memory_size: u64) -> Self {
        let bytes = bytes.to_vec();
        self.part(Part { kind: PT_LOAD, flags, address, bytes, memory_size, align: 0x1000 })
    }

    pub fn unloaded(self, kind: u32, bytes: &[u8]) -> Self {
        let (bytes, memory_size) = (bytes.to_vec(), bytes.len() as u64);
        self.part(Part { kind, flags: R, address: 0, bytes, memory_size, align: 4 })
    }

    /// Index of the next program header.
    pub fn next_index(&self) -> usize {
        self.parts.len()
    }

    pub fn build(&self) -> Vec<u8> {
        let count = u16::try_from(self.parts.len()).unwrap();
        let mut file = vec![0; ehdr::SIZE + usize::from(count) * phdr::SIZE];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        poke(&mut file, ehdr::TYPE, 2_u16);
        poke(&mut file, ehdr::MACHINE, 62_u16);
        poke(&mut file, ehdr::VERSION, 1_u32);
        poke(&mut file, ehdr::ENTRY, self.entry);
        poke(&mut file, ehdr::PHOFF, ehdr::SIZE as u64);
        poke(&mut file, ehdr::EHSIZE, 64_u16);
        poke(&mut file, ehdr::PHENTSIZE, 56_u16);
        poke(&mut file, ehdr::PHNUM, count);
        for (index, part) in self.parts.iter().enumerate() {
            file.resize(file.len().next_multiple_of(8), 0);
            if self.congruent && part.kind == PT_LOAD {
                let offset = usize::try_from(part.address % 0x1000).unwrap();
                let page = file.len().next_multiple_of(0x1000);
                file.resize(if part.bytes.is_empty() { file.len() } else { page + offset }, 0);
            }
            let offset = if part.bytes.is_empty() { 0 } else { file.len() as u64 };
            let mut at = |field, value: Field| poke(&mut file, in_phdr(index, field), value);
            at(phdr::TYPE, part.kind.into());
            at(phdr::FLAGS, part.flags.into());
            at(phdr::OFFSET, offset.into());
            at(phdr::VADDR, part.address.into());
            at(phdr::VADDR + 8, part.address.into());
            at(phdr::FILESZ, (part.bytes.len() as u64).into());
            at(phdr::MEMSZ, part.memory_size.into());
            at(phdr::ALIGN, part.align.into());
            file.extend_from_slice(&part.bytes);
        }
        file
    }
}

/// A symbol as the table has it: where its name starts, type, and section.
#[derive(Debug, Clone, Copy)]
pub struct Symbol {
    pub name: u32,
    pub kind: u8,
    pub section: u16,
}

/// `st_info` of a global function.
pub const GLOBAL_FUNC: u8 = 0x12;

/// Gives any ELF file a symbol table that defines these functions, in place of one that it has.
pub fn with_symbols(file: &[u8], names: &[&str]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut symbols = Vec::new();
    for name in names {
        let at = u32::try_from(strings.len()).unwrap();
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
        symbols.push(Symbol { name: at, kind: GLOBAL_FUNC, section: 1 });
    }
    with_symbol_table(file, &symbols, &strings)
}

/// The same for any table. Sections are: none, the symbols, the strings; their headers are the last of the file.
pub fn with_symbol_table(file: &[u8], symbols: &[Symbol], strings: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file.resize(file.len().next_multiple_of(8), 0);
    let at = file.len();
    file.extend_from_slice(&[0; 24]);
    for symbol in symbols {
        let entry = file.len();
        file.extend_from_slice(&[0; 24]);
        poke(&mut file, entry, symbol.name);
        poke(&mut file, entry + 4, symbol.kind);
        poke(&mut file, entry + 6, symbol.section);
    }
    let (size, strings_at) = (file.len() - at, file.len());
    file.extend_from_slice(strings);
    file.resize(file.len().next_multiple_of(8), 0);
    let headers = file.len();
    file.resize(headers + 3 * shdr::SIZE, 0);
    for (index, kind, offset, size, link, entry_size) in
        [(1, 2_u32, at, size, 2_u32, 24_u64), (2, 3, strings_at, strings.len(), 0, 0)]
    {
        let header = headers + index * shdr::SIZE;
        poke(&mut file, header + shdr::TYPE, kind);
        poke(&mut file, header + shdr::OFFSET, offset as u64);
        poke(&mut file, header + shdr::LENGTH, size as u64);
        poke(&mut file, header + shdr::LINK, link);
        poke(&mut file, header + shdr::ENTRY_SIZE, entry_size);
    }
    poke(&mut file, ehdr::SHOFF, headers as u64);
    poke(&mut file, ehdr::SHENTSIZE, 64_u16);
    poke(&mut file, ehdr::SHNUM, 3_u16);
    file
}

/// A note: header, name and descriptor, both padded to 4 bytes.
pub fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in [name.len(), descriptor.len()] {
        bytes.extend_from_slice(&u32::try_from(n).unwrap().to_le_bytes());
    }
    bytes.extend_from_slice(&kind.to_le_bytes());
    for part in [name, descriptor] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
