//! Which names the symbol table of a file defines.
//!
//! Source: System V ABI, chapter "Object Files": sections, string table, symbol table. Nothing that is loaded depends on
//! these, no monitor checks them, and everything in them may be wrong: what makes no sense is not there.

use crate::source::{ReadAt, SourceError, read_vec};
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Most section headers that are looked at. Executables have a few dozen.
pub const MAX_SECTIONS: u16 = 4096;
/// Most bytes of a symbol table that are looked at: 1.4 million symbols.
pub const MAX_SYMBOLS_SIZE: u64 = 32 << 20;
/// Most bytes of the names of symbols that are looked at.
pub const MAX_NAMES_SIZE: u64 = 64 << 20;

/// Bytes that are read at a time: a multiple of the size of a symbol, with room for a name in front.
const CHUNK: u64 = size_of::<Symbol>() as u64 * 8192;
/// The search for names ends after the chunk in which it has found so many. Linkers write a name once, and once more for each longer one that ends like it.
const MAX_PLACES: usize = 256;

/// `sh_type` of the symbol table.
const SHT_SYMTAB: u32 = 2;
/// `sh_type` of a string table.
const SHT_STRTAB: u32 = 3;
/// `st_shndx` of a symbol that is not defined here.
const SHN_UNDEF: u16 = 0;
/// The largest type of a symbol (low bits of `st_info`) that is code, data or untyped; others name sections and files.
const STT_FUNC: u8 = 2;

/// Where the section headers of a file are, as its ELF header says. Not validated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SectionTable {
    /// `e_shoff`: offset in the file in bytes.
    pub offset: u64,
    /// `e_shentsize`: size of a header in bytes.
    pub entry_size: u16,
    /// `e_shnum`: number of headers.
    pub count: u16,
}

/// `Elf64_Shdr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
struct SectionHeader {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entry_size: u64,
}

/// `Elf64_Sym`.
#[repr(C)]
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

/// A part of the file that was checked to lie inside of it.
#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    size: u64,
}

/// A name that was looked for, and where in the string table it is.
struct Place {
    offset: u64,
    name: usize,
}

/// See [`Image::find_symbols`](crate::Image::find_symbols).
pub(crate) fn find<S: ReadAt + ?Sized, const N: usize>(
    source: &S,
    sections: SectionTable,
    names: [&str; N],
) -> Result<[bool; N], SourceError> {
    let mut found = [false; N];
    let Some((symbols, strings)) = tables(source, sections)? else { return Ok(found) };
    let places = places(source, strings, &names)?;
    let mut start = 0;
    while start < symbols.size && !places.is_empty() {
        let length = CHUNK.min(symbols.size - start);
        let bytes = read_vec(source, symbols.offset + start, usize::try_from(length).unwrap_or(0))?;
        for symbol in bytes.chunks_exact(size_of::<Symbol>()) {
            let Ok(symbol) = Symbol::read_from_bytes(symbol) else { continue };
            if symbol.section != SHN_UNDEF
                && symbol.info & 0xf <= STT_FUNC
                && let Ok(at) = places.binary_search_by_key(&u64::from(symbol.name), |place| place.offset)
            {
                found[places[at].name] = true;
            }
        }
        start += length;
    }
    Ok(found)
}

/// The symbol table and its names.
fn tables<S: ReadAt + ?Sized>(
    source: &S,
    sections: SectionTable,
) -> Result<Option<(Part, Part)>, SourceError> {
    const SIZE: usize = size_of::<SectionHeader>();
    let file_size = source.size();
    let inside = |offset: u64, size: u64| offset.checked_add(size).is_some_and(|end| end <= file_size);
    let length = usize::from(sections.count.min(MAX_SECTIONS)) * SIZE;
    if usize::from(sections.entry_size) != SIZE || !inside(sections.offset, length as u64) {
        return Ok(None);
    }
    let bytes = read_vec(source, sections.offset, length)?;
    let header = |index: usize| {
        SectionHeader::read_from_prefix(bytes.get(index.checked_mul(SIZE)?..)?).ok().map(|(header, _)| header)
    };
    let part = |header: &SectionHeader, max: u64| {
        inside(header.offset, header.size)
            .then_some(Part { offset: header.offset, size: header.size.min(max) })
    };
    let pair = || {
        let mut headers = (0..length / SIZE).filter_map(header);
        let symbols = headers.find(|header| header.kind == SHT_SYMTAB)?;
        let strings = header(usize::try_from(symbols.link).ok()?)?;
        let expected = symbols.entry_size == size_of::<Symbol>() as u64 && strings.kind == SHT_STRTAB;
        let symbols = part(&symbols, MAX_SYMBOLS_SIZE).filter(|_| expected)?;
        Some((symbols, part(&strings, MAX_NAMES_SIZE)?))
    };
    Ok(pair())
}

/// Where the names are in the string table, in ascending order. A name is what ends at a NUL: linkers let names share
/// their ends.
fn places<S: ReadAt + ?Sized>(source: &S, strings: Part, names: &[&str]) -> Result<Vec<Place>, SourceError> {
    let longest = names.iter().map(|name| name.len() as u64).max().unwrap_or(0);
    let mut places = Vec::new();
    let mut start = 0;
    while start < strings.size && places.len() < MAX_PLACES {
        // With what a name has that ends in this chunk and starts before it.
        let from = start.saturating_sub(longest);
        let end = strings.size.min(start + CHUNK);
        let bytes = read_vec(source, strings.offset + from, usize::try_from(end - from).unwrap_or(0))?;
        let skipped = usize::try_from(start - from).unwrap_or(0);
        for (at, _) in bytes.iter().enumerate().skip(skipped).filter(|&(_, &byte)| byte == 0) {
            // Most names differ in their last letter already.
            let (before, last) = (&bytes[..at], bytes[..at].last());
            for (index, name) in names.iter().map(|name| name.as_bytes()).enumerate() {
                if last.is_some() && name.last() == last && before.ends_with(name) {
                    places.push(Place { offset: from + (at - name.len()) as u64, name: index });
                }
            }
        }
        start = end;
    }
    places.sort_unstable_by_key(|place| place.offset);
    Ok(places)
}
