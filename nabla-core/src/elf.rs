//! The ELF file of a guest: strict validation of what is loaded, tolerance for what is not.
//!
//! Source: System V ABI, chapters "Object Files" and "Program Loading"; Solo5's `elf.c` for what existing guests
//! rely on. Parsing reads no section headers, since nothing that is loaded depends on them;
//! [`Image::find_symbols`](crate::Image::find_symbols) does.
//!
//! Two deliberate differences from Solo5's tenders: a segment without bytes in the file is loaded as zeros with the
//! permissions it asks for (they skip it, which comes to the same for `.bss`), and two segments may share a page
//! as long as that page does not become writable and executable (they refuse it).

mod error;
mod header;
mod segment;
pub(crate) mod symbols;

pub use self::{
    error::ElfError,
    header::ProgramHeader,
    segment::{FileRange, OddHeader, PageRange, Permissions, Segment},
    symbols::{MAX_NAMES_SIZE, MAX_SECTIONS, MAX_SYMBOLS_SIZE, SectionTable},
};

use self::header::read_headers;
use crate::{
    abi::{GUEST_MIN_BASE, PAGE_SIZE},
    source::ReadAt,
};
use alloc::vec::Vec;

/// Most program headers that are looked at. Real guests have at most about a dozen.
pub const MAX_PROGRAM_HEADERS: u16 = 128;
/// End of the addresses that a guest may occupy: half of what x86-64 gives a process.
pub const MAX_ADDRESS: u64 = 1 << 46;

/// `p_type` of an unused program header.
const PT_NULL: u32 = 0;
/// `p_type` of a segment that is loaded.
pub const PT_LOAD: u32 = 1;
/// `p_type` of the interpreter's path.
pub const PT_INTERP: u32 = 3;
/// `p_type` of notes.
pub const PT_NOTE: u32 = 4;

/// What is used of an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Address of the first instruction.
    pub entry: u64,
    /// What is loaded: in ascending order, without overlap.
    pub segments: Vec<Segment>,
    /// The notes, as far as they lie in the file.
    pub notes: Vec<FileRange>,
    /// The interpreter's path, as far as it lies in the file.
    pub interp: Option<FileRange>,
    /// Headers that are not loaded and look odd, as real guests have them.
    pub odd_headers: Vec<OddHeader>,
    /// Where the section headers are said to be.
    pub sections: SectionTable,
}

impl Elf {
    /// Reads and checks the headers.
    ///
    /// # Errors
    ///
    /// The first thing found wrong, by field and value.
    pub fn parse<S: ReadAt + ?Sized>(source: &S) -> Result<Self, ElfError> {
        let size = source.size();
        let (entry, headers, sections) = read_headers(source, size)?;
        let mut elf = Self {
            entry,
            segments: Vec::new(),
            notes: Vec::new(),
            interp: None,
            odd_headers: Vec::new(),
            sections,
        };
        for (index, header) in (0_u16..).zip(&headers) {
            match header.kind {
                PT_NULL => {}
                PT_LOAD => elf.add_segment(index, header, size)?,
                kind => elf.add_unloaded(index, kind, header, size),
            }
        }
        if elf.segments.is_empty() {
            return Err(ElfError::NothingToLoad);
        }
        let entered = |s: &Segment| s.permissions.execute && (s.address..s.end()).contains(&entry);
        if !elf.segments.iter().any(entered) {
            return Err(ElfError::Entry { entry });
        }
        Ok(elf)
    }

    fn add_segment(&mut self, index: u16, header: &ProgramHeader, size: u64) -> Result<(), ElfError> {
        let &ProgramHeader { flags, offset, address, file_size, memory_size, align, .. } = header;
        if memory_size < file_size {
            return Err(ElfError::MemoryBelowFileSize { index, memory_size, file_size });
        }
        if memory_size == 0 {
            // Linkers emit such headers for empty sections, usually at address 0.
            return Ok(());
        }
        if file_size > 0 && offset.checked_add(file_size).is_none_or(|end| end > size) {
            return Err(ElfError::SegmentOutsideFile { index, offset, file_size, size });
        }
        if address < GUEST_MIN_BASE {
            return Err(ElfError::SegmentTooLow { index, address });
        }
        if address.checked_add(memory_size).is_none_or(|end| end > MAX_ADDRESS) {
            return Err(ElfError::SegmentTooHigh { index, address, memory_size });
        }
        if align > 1 && !align.is_power_of_two() {
            return Err(ElfError::Alignment { index, align });
        }
        let segment = Segment {
            index,
            address,
            memory_size,
            file_offset: if file_size > 0 { offset } else { 0 },
            file_size,
            permissions: Permissions::from_flags(flags),
        };
        check_neighbours(&self.segments, &segment)?;
        self.segments.push(segment);
        Ok(())
    }

    fn add_unloaded(&mut self, index: u16, kind: u32, header: &ProgramHeader, size: u64) {
        let &ProgramHeader { offset, file_size, memory_size, .. } = header;
        let inside = file_size == 0 || offset.checked_add(file_size).is_some_and(|end| end <= size);
        if !inside || file_size > memory_size && memory_size > 0 {
            self.odd_headers.push(OddHeader { index, kind, file_size, memory_size });
        }
        // What lies in the file counts. When a note is cut off by that, reading it says so.
        let available = file_size.min(size.saturating_sub(offset));
        if available > 0 {
            let range = FileRange { index, offset, size: available };
            match kind {
                PT_NOTE => self.notes.push(range),
                PT_INTERP => self.interp = self.interp.or(Some(range)),
                _ => {}
            }
        }
    }

    /// First page-aligned address after everything that is loaded.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(GUEST_MIN_BASE, |segment| page_up(segment.end()))
    }

    /// The pages of the image with their permissions: ascending, disjoint, neighbours merged where equal. A page
    /// that segments share allows what any of them allows.
    #[must_use]
    pub fn page_ranges(&self) -> Vec<PageRange> {
        let mut ranges: Vec<PageRange> = Vec::new();
        for segment in &self.segments {
            let mut pages = segment.pages();
            // Only the first page can be shared, since segments ascend without overlap.
            if let Some(last) = ranges.last_mut().filter(|last| last.pages.end > pages.start) {
                let shared = pages.start..last.pages.end;
                let permissions = last.permissions.union(segment.permissions);
                pages.start = shared.end;
                last.pages.end = shared.start;
                if last.pages.is_empty() {
                    ranges.pop();
                }
                push_merged(&mut ranges, PageRange { pages: shared, permissions });
            }
            if !pages.is_empty() {
                push_merged(&mut ranges, PageRange { pages, permissions: segment.permissions });
            }
        }
        ranges
    }
}

fn push_merged(ranges: &mut Vec<PageRange>, range: PageRange) {
    match ranges.last_mut() {
        Some(last) if last.pages.end == range.pages.start && last.permissions == range.permissions => {
            last.pages.end = range.pages.end;
        }
        _ => ranges.push(range),
    }
}

/// Checks `segment` against those before it, which are known to be in order.
fn check_neighbours(before: &[Segment], segment: &Segment) -> Result<(), ElfError> {
    let Some(previous) = before.last() else { return Ok(()) };
    let &Segment { index, address, permissions, .. } = segment;
    if address < previous.address {
        return Err(ElfError::Order { index, address, previous: previous.address });
    }
    if address < previous.end() {
        return Err(ElfError::Overlap { index, address, previous_end: previous.end() });
    }
    let page = page_down(address);
    let mut together = permissions;
    let mut asked_for = permissions.is_writable_and_executable();
    // Any number of small segments can share one page.
    for sharing in before.iter().rev().take_while(|other| other.pages().end > page) {
        together = together.union(sharing.permissions);
        asked_for |= sharing.permissions.is_writable_and_executable();
    }
    if together.is_writable_and_executable() && !asked_for {
        return Err(ElfError::SharedPage { index, page });
    }
    Ok(())
}

/// Rounds down to a page.
#[must_use]
pub const fn page_down(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

/// Rounds up to a page; from the last page of the address space down to it.
#[must_use]
pub const fn page_up(address: u64) -> u64 {
    page_down(address.saturating_add(PAGE_SIZE - 1))
}
