//! The memory of a heap, in which words are read and written by offset.

use core::ptr;

/// Bytes of a word.
pub const WORD: usize = size_of::<usize>();

/// A range of memory. Offsets are in bytes from its start and are checked, so that a heap whose bookkeeping
/// the program has overwritten ends in a panic and not anywhere else.
#[derive(Debug)]
pub struct Region {
    base: *mut u8,
    len: usize,
}

impl Region {
    /// No memory.
    pub const EMPTY: Self = Self { base: ptr::null_mut(), len: 0 };

    /// # Safety
    ///
    /// The range is valid for reads and writes for as long as the region is used, nothing else uses it except
    /// for what is given out of it, and `base` is a multiple of 16.
    pub const unsafe fn new(base: *mut u8, len: usize) -> Self {
        Self { base, len }
    }

    /// Bytes in the region.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The word at `offset`, a multiple of 8.
    pub fn read(&self, offset: usize) -> usize {
        self.check(offset);
        // SAFETY: `check` has found the word in the region and aligned, which is valid for reads; the heap
        // asks only for words that it has written or that came initialised.
        unsafe { self.base.add(offset).cast::<usize>().read() }
    }

    /// Changes the word at `offset`, a multiple of 8.
    pub fn write(&mut self, offset: usize, value: usize) {
        self.check(offset);
        // SAFETY: `check` has found the word in the region and aligned, which is valid for writes.
        unsafe { self.base.add(offset).cast::<usize>().write(value) }
    }

    /// A pointer to `offset`, which may be the end.
    pub fn pointer(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "the heap is corrupt");
        // SAFETY: the offset is within the region or its end.
        unsafe { self.base.add(offset) }
    }

    /// The offset of a pointer that [`Self::pointer`] gave.
    pub fn offset(&self, pointer: *mut u8) -> usize {
        pointer.addr().wrapping_sub(self.base.addr())
    }

    fn check(&self, offset: usize) {
        assert!(
            offset.is_multiple_of(WORD) && self.len.checked_sub(WORD).is_some_and(|last| offset <= last),
            "the heap is corrupt"
        );
    }
}
