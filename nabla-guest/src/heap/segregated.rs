//! The allocator: two-level segregated fit over a region, with boundary tags.
//!
//! The region is a row of blocks, and after them the rest, which has not been needed so far. A block:
//!
//! ```text
//! offset 0      8                                          size - 8
//!        | tag  | used: what the program sees, to the end of the block  |
//!        | tag  | free: next, previous in its list, ..., | its size     |
//! ```
//!
//! Sizes are multiples of 16, and blocks start 8 bytes off, so that what the program sees is aligned to 16.
//! Two free blocks are never neighbours, and the last block is never free: it is joined to the rest. So a
//! block after which the rest begins needs no tag there.

use core::alloc::Layout;

use super::{
    class::{self, Class, LEVELS, PER_LEVEL, SIZE_MAX},
    region::{Region, WORD},
};

/// Sizes of blocks are multiples of this many bytes, and so are the addresses that the program sees.
pub const GRANULE: usize = 16;
/// The size of a block that can hold what a free one needs.
const BLOCK_MIN: usize = 32;
/// What of a block the program does not see.
const OVERHEAD: usize = WORD;
/// Where the first block starts.
const FIRST: usize = GRANULE - OVERHEAD;

/// In a tag: this block is free.
const FREE: usize = 1;
/// In a tag: the block before this one is free, and its size stands just before the tag.
const PREVIOUS_FREE: usize = 2;
const FLAGS: usize = FREE | PREVIOUS_FREE;

/// How many blocks of a size's own class are looked at before one of a larger class is cut up. More waste
/// less memory and more time.
const PROBES: usize = 4;

/// In place of a block: none. No block starts here.
const NONE: usize = 0;

/// What [`Heap::allocate`] gives.
#[derive(Debug, Clone, Copy)]
pub struct Allocation {
    /// Where it is.
    pub start: *mut u8,
    /// How many of its bytes, from the start, may be other than zero.
    pub dirty: usize,
}

/// A heap in one region of memory.
#[derive(Debug)]
pub struct Heap {
    pub(super) region: Region,
    /// Where the rest begins.
    pub(super) rest: usize,
    /// The highest that `rest` has ever been. What is after it is zero.
    fresh: usize,
    used: usize,
    /// Bit N is set when level N has a free block.
    levels: u64,
    /// The same for the classes within each level.
    classes: [u16; LEVELS],
    /// The first free block of each class.
    pub(super) lists: [[usize; PER_LEVEL]; LEVELS],
}

const _: () = assert!(LEVELS <= 64 && PER_LEVEL <= 16 && GRANULE == 2 * WORD);

impl Heap {
    /// A heap without memory, in which every allocation fails.
    pub const EMPTY: Self = Self {
        region: Region::EMPTY,
        rest: 0,
        fresh: 0,
        used: 0,
        levels: 0,
        classes: [0; LEVELS],
        lists: [[NONE; PER_LEVEL]; LEVELS],
    };

    /// Whether the heap has no memory.
    pub const fn is_empty(&self) -> bool {
        self.region.len() == 0
    }

    /// Gives memory to an empty heap.
    ///
    /// # Safety
    ///
    /// The range is valid for reads and writes for as long as the heap is used, zero, and nothing else uses
    /// it except for what the heap gives out.
    pub unsafe fn give(&mut self, base: *mut u8, len: usize) {
        let skip = base.addr().next_multiple_of(GRANULE) - base.addr();
        // So that the rest is always a multiple of 16 bytes.
        let len = len.saturating_sub(skip).min(SIZE_MAX) / GRANULE * GRANULE;
        if len > FIRST {
            // SAFETY: the range is part of the caller's and now starts at a multiple of 16.
            self.region = unsafe { Region::new(base.add(skip), len) };
            (self.rest, self.fresh) = (FIRST, FIRST);
        }
    }

    /// What the heap can hold, in bytes, with the allocator's own share.
    pub const fn capacity(&self) -> usize {
        self.region.len().saturating_sub(FIRST)
    }

    /// What is allocated, in bytes, with the allocator's own share.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// The most bytes that have ever been between the first and the last block.
    pub const fn peak(&self) -> usize {
        self.fresh.saturating_sub(FIRST)
    }

    /// Takes a block for `layout`; `None` when there is none.
    pub fn allocate(&mut self, layout: Layout) -> Option<Allocation> {
        let size = block_size(layout.size())?;
        let dirty_end = self.fresh;
        let block = if layout.align() <= GRANULE {
            self.take(size)?
        } else {
            self.take_aligned(size, layout.align())?
        };
        self.used += self.size(block);
        // Beyond what was fresh before, only tags have been written, none of them after this one's.
        let dirty = dirty_end.saturating_sub(block + OVERHEAD);
        Some(Allocation { start: self.region.pointer(block + OVERHEAD), dirty })
    }

    /// Takes a block for `layout` that is zero, without touching what was never written to.
    pub fn allocate_zeroed(&mut self, layout: Layout) -> Option<*mut u8> {
        let block = self.allocate(layout)?;
        // SAFETY: the block has at least `layout.size()` bytes.
        unsafe { block.start.write_bytes(0, block.dirty.min(layout.size())) };
        Some(block.start)
    }

    /// Changes the size of a block to hold `new_size` bytes, and its place if that must be. `None`, and nothing has
    /// changed, when there is no room.
    ///
    /// # Safety
    ///
    /// As [`Self::free`]; `layout` is what the block was allocated for, and stays a layout with `new_size`.
    pub unsafe fn reallocate(&mut self, start: *mut u8, layout: Layout, new_size: usize) -> Option<*mut u8> {
        // SAFETY: the caller has got `start` from `allocate`.
        if unsafe { self.resize(start, new_size) } {
            return Some(start);
        }
        // SAFETY: the caller vouches for the size.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let block = self.allocate(new_layout)?;
        // SAFETY: both blocks have as many bytes as are copied, and they are two. The old one is given back
        // as it was got.
        unsafe {
            block.start.copy_from_nonoverlapping(start, layout.size().min(new_size));
            self.free(start);
        }
        Some(block.start)
    }

    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// `start` comes from [`Self::allocate`] of this heap and has not been given back since.
    pub unsafe fn free(&mut self, start: *mut u8) {
        let block = self.block(start);
        self.used -= self.size(block);
        self.release(block, self.size(block));
    }

    /// Changes the size of a block to hold `new_size` bytes if that can be done where it is.
    ///
    /// # Safety
    ///
    /// `start` comes from [`Self::allocate`] of this heap and has not been given back since.
    pub unsafe fn resize(&mut self, start: *mut u8, new_size: usize) -> bool {
        let Some(new_size) = block_size(new_size) else { return false };
        let block = self.block(start);
        let old_size = self.size(block);
        if new_size > old_size && !self.extend(block, new_size) {
            return false;
        }
        self.trim(block, new_size);
        self.used = self.used - old_size + self.size(block);
        true
    }

    /// The used block whose payload starts at `start`.
    fn block(&self, start: *mut u8) -> usize {
        let block = self.region.offset(start).wrapping_sub(OVERHEAD);
        assert!(self.region.read(block) & FREE == 0, "freed twice, or the heap is corrupt");
        block
    }

    /// Takes a block of at least `size` bytes, out of what was freed or else out of the rest.
    fn take(&mut self, size: usize) -> Option<usize> {
        let found = self
            .search(size, PROBES)
            .or_else(|| class::for_request(size).and_then(|class| self.find(class)))
            .or_else(|| if self.rest_has(size) { None } else { self.search(size, usize::MAX) });
        let Some(block) = found else { return self.take_rest(size) };
        self.unlink(block);
        self.mark_used(block);
        self.trim(block, size);
        Some(block)
    }

    /// Takes a block whose payload is aligned to `align`, more than [`GRANULE`].
    fn take_aligned(&mut self, size: usize, align: usize) -> Option<usize> {
        // In front of an aligned place there is nothing or room for a free block, so at the worst the first
        // one that is a block's length in.
        let found = size
            .checked_add(align + BLOCK_MIN)
            .and_then(class::for_request)
            .and_then(|class| self.find(class));
        let Some(block) = found else {
            let gap = self.gap(self.rest, align)?;
            let block = self.take_rest(gap.checked_add(size)?)?;
            return Some(self.cut_front(block, gap));
        };
        let gap = self.gap(block, align)?;
        self.unlink(block);
        self.mark_used(block);
        let block = self.cut_front(block, gap);
        self.trim(block, size);
        Some(block)
    }

    /// How far after `block` is the first place for a block whose payload is aligned to `align`.
    fn gap(&self, block: usize, align: usize) -> Option<usize> {
        let inside = self.region.pointer(block + OVERHEAD).addr();
        match inside.checked_next_multiple_of(align)? - inside {
            0 => Some(0),
            gap if gap >= BLOCK_MIN => Some(gap),
            gap => gap.checked_add(align),
        }
    }

    /// Frees the first `gap` bytes of a used block and returns what is left of it.
    fn cut_front(&mut self, block: usize, gap: usize) -> usize {
        if gap == 0 {
            return block;
        }
        let size = self.size(block);
        self.region.write(block + gap, size - gap);
        self.release(block, gap);
        block + gap
    }

    /// Whether the rest has room for a block of `size` bytes.
    fn rest_has(&self, size: usize) -> bool {
        self.region.len().checked_sub(self.rest).is_some_and(|room| size <= room)
    }

    /// Takes a block of exactly `size` bytes out of the rest.
    fn take_rest(&mut self, size: usize) -> Option<usize> {
        if !self.rest_has(size) {
            return None;
        }
        let block = self.rest;
        self.region.write(block, size);
        self.set_rest(block + size);
        Some(block)
    }

    fn set_rest(&mut self, rest: usize) {
        self.rest = rest;
        self.fresh = self.fresh.max(rest);
    }

    /// Enlarges a used block to at least `size` bytes by what is after it, if there is enough.
    fn extend(&mut self, block: usize, size: usize) -> bool {
        let old_size = self.size(block);
        let next = block + old_size;
        if next == self.rest {
            let Some(end) = block.checked_add(size).filter(|&end| end <= self.region.len()) else {
                return false;
            };
            self.set_rest(end);
            self.resize_tag(block, size);
            return true;
        }
        if self.region.read(next) & FREE == 0 || old_size + self.size(next) < size {
            return false;
        }
        let size = old_size + self.size(next);
        self.unlink(next);
        self.resize_tag(block, size);
        self.mark_used(block);
        true
    }

    /// Frees what a used block has more than `size` bytes, if that is enough for a block.
    fn trim(&mut self, block: usize, size: usize) {
        let excess = self.size(block) - size;
        if excess >= BLOCK_MIN {
            self.resize_tag(block, size);
            self.region.write(block + size, excess);
            self.release(block + size, excess);
        }
    }

    /// Makes `size` bytes at `block`, which start with a tag, free, and joins them with free neighbours.
    fn release(&mut self, block: usize, size: usize) {
        let (mut start, mut end) = (block, block + size);
        if self.region.read(start) & PREVIOUS_FREE != 0 {
            start -= self.region.read(start - WORD);
            self.unlink(start);
        }
        if end == self.rest {
            self.rest = start;
            return;
        }
        let next = self.region.read(end);
        if next & FREE != 0 {
            self.unlink(end);
            end += next & !FLAGS;
        }
        self.link(start, end - start);
    }

    /// Puts a free block into its list and tells the next block of it.
    fn link(&mut self, block: usize, size: usize) {
        let Class { level, index } = class::of_block(size);
        let first = self.lists[level][index];
        self.region.write(block, size | FREE);
        self.region.write(block + WORD, first);
        self.region.write(block + 2 * WORD, NONE);
        self.region.write(block + size - WORD, size);
        if first != NONE {
            self.region.write(first + 2 * WORD, block);
        }
        self.lists[level][index] = block;
        self.classes[level] |= 1 << index;
        self.levels |= 1 << level;
        let next = self.region.read(block + size);
        self.region.write(block + size, next | PREVIOUS_FREE);
    }

    /// Takes a free block out of its list.
    fn unlink(&mut self, block: usize) {
        let (next, previous) = (self.region.read(block + WORD), self.region.read(block + 2 * WORD));
        if next != NONE {
            self.region.write(next + 2 * WORD, previous);
        }
        if previous != NONE {
            self.region.write(previous + WORD, next);
            return;
        }
        let Class { level, index } = class::of_block(self.size(block));
        self.lists[level][index] = next;
        if next == NONE {
            self.classes[level] &= !(1 << index);
            if self.classes[level] == 0 {
                self.levels &= !(1 << level);
            }
        }
    }

    /// Makes a block that is in no list a used one and tells the next block of it.
    fn mark_used(&mut self, block: usize) {
        let tag = self.region.read(block);
        self.region.write(block, tag & !FREE);
        let end = block + (tag & !FLAGS);
        if end != self.rest {
            let next = self.region.read(end);
            self.region.write(end, next & !PREVIOUS_FREE);
        }
    }

    /// The first free block of this class or else of the next that has any.
    fn find(&self, class: Class) -> Option<usize> {
        let here = self.classes[class.level] >> class.index << class.index;
        let (level, index) = if here != 0 {
            (class.level, here.trailing_zeros() as usize)
        } else {
            let above = self.levels & (!0 << class.level) & !(1 << class.level);
            if above == 0 {
                return None;
            }
            let level = above.trailing_zeros() as usize;
            (level, self.classes[level].trailing_zeros() as usize)
        };
        Some(self.lists[level][index])
    }

    /// A free block of at least `size` bytes among the first `probes` of its own class, of which some may be
    /// too small. Without a limit it is for when there is nothing else but to fail.
    fn search(&self, size: usize, probes: usize) -> Option<usize> {
        if size > SIZE_MAX {
            return None;
        }
        let Class { level, index } = class::of_block(size);
        let mut block = self.lists[level][index];
        for _ in 0..probes {
            if block == NONE {
                return None;
            }
            if self.size(block) >= size {
                return Some(block);
            }
            block = self.region.read(block + WORD);
        }
        None
    }

    /// The size in the tag of a block.
    pub(super) fn size(&self, block: usize) -> usize {
        self.region.read(block) & !FLAGS
    }

    /// Changes the size in the tag of a used block.
    fn resize_tag(&mut self, block: usize, size: usize) {
        let flags = self.region.read(block) & FLAGS;
        self.region.write(block, size | flags);
    }
}

/// The size of the block that can hold `size` bytes; `None` when no heap has that many.
fn block_size(size: usize) -> Option<usize> {
    let size = size.checked_add(OVERHEAD)?.checked_next_multiple_of(GRANULE)?;
    (size <= SIZE_MAX).then_some(size.max(BLOCK_MIN))
}
