//! How the image's segments get into memory: mapped where whole pages can be shared with the file, read where not.

use nabla_core::{
    Image, Permissions,
    abi::PAGE_SIZE,
    elf::{PageRange, page_down, page_up},
};

/// A run of bytes of the file and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub address: u64,
    pub length: u64,
    pub offset: u64,
    /// Of the segment; only for mapped pieces.
    pub permissions: Permissions,
}

/// What to do, in this order. Guest memory is there already: anonymous, zero, and with the heap's permissions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoadPlan {
    pub mapped: Vec<Piece>,
    pub copied: Vec<Piece>,
    pub protected: Vec<PageRange>,
}

/// Plans the loading of `image`.
///
/// Whole pages are mapped from the file, where address and offset agree in their place within a page: then text
/// is shared between guests and nothing is read that is not used. The partial pages at both ends are read into
/// the anonymous memory, so that what lies beside them in the file does not appear in the guest.
pub fn plan(image: &Image, map: bool, exec_heap: bool) -> LoadPlan {
    let mut plan = LoadPlan::default();
    for segment in image.segments().iter().filter(|segment| segment.file_size > 0) {
        let (start, end) = (segment.address, segment.address + segment.file_size);
        let piece = |from: u64, to: u64| Piece {
            address: from,
            length: to - from,
            offset: segment.file_offset + (from - start),
            permissions: segment.permissions,
        };
        let (first, last) = (page_up(start), page_down(end));
        let congruent = (segment.file_offset ^ start).is_multiple_of(PAGE_SIZE);
        if map && congruent && first < last {
            plan.mapped.push(piece(first, last));
            plan.copied.extend((start < first).then(|| piece(start, first)));
            plan.copied.extend((last < end).then(|| piece(last, end)));
        } else {
            plan.copied.push(piece(start, end));
        }
    }
    let heap = Permissions { execute: exec_heap, ..Permissions::READ_WRITE };
    let done = |range: &PageRange| {
        let whole = |p: &Piece| {
            p.permissions == range.permissions && (p.address..p.address + p.length) == range.pages
        };
        let untouched = plan
            .mapped
            .iter()
            .all(|p| p.address + p.length <= range.pages.start || range.pages.end <= p.address);
        plan.mapped.iter().any(whole) || range.permissions == heap && untouched
    };
    plan.protected = image.page_ranges().into_iter().filter(|range| !done(range)).collect();
    plan
}
