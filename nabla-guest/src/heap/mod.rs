//! The heap that serves `alloc`: a segregated-fit allocator.
//!
//! Allocating and freeing take constant time, whatever has happened before; an allocation costs 8 bytes
//! besides rounding to 16. Freed neighbours are joined at once. Memory comes from the end of what has been in
//! use so far only when nothing freed fits, so that a guest has no more pages than it has needed.
//!
//! When memory is used up the allocation fails; `alloc` then panics, unless it is asked through one of the
//! functions that begin with `try_`.

mod class;
mod region;
mod segregated;
#[cfg(test)]
mod tests;

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ptr,
};

use self::segregated::Heap;
use crate::{boot, memory::memory};

/// How much of the heap is used; made by [`stats`]. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// What the heap can hold.
    pub capacity: usize,
    /// What is allocated now, with the allocator's own share.
    pub used: usize,
    /// The most of the heap that has ever been in use, holes included: what it takes from the host.
    pub peak: usize,
}

/// Tells how much of the heap is used.
#[must_use]
pub fn stats() -> Stats {
    if boot::info().is_none() {
        // Not a guest, but a host's unit test, which may have threads.
        return Stats { capacity: 0, used: 0, peak: 0 };
    }
    HEAP.with(|heap| Stats { capacity: heap.capacity(), used: heap.used(), peak: heap.peak() })
}

static HEAP: HeapCell = HeapCell(UnsafeCell::new(Heap::EMPTY));

struct HeapCell(UnsafeCell<Heap>);

// SAFETY: the heap is reached through `GlobalHeap`, which exists only in programs with one thread and without
// interrupts, for which its maker vouches; and through `stats`, which turns back where no guest runs.
unsafe impl Sync for HeapCell {}

impl HeapCell {
    /// Gives access to the heap, which gets its memory at the first time.
    fn with<T>(&self, act: impl FnOnce(&mut Heap) -> T) -> T {
        // SAFETY: no other reference exists: there is one thread, and `act`, which is one of the closures in
        // this file, does not get here again, because the heap itself neither allocates nor prints.
        let heap = unsafe { &mut *self.0.get() };
        if heap.is_empty() {
            let range = memory().heap;
            // SAFETY: the memory between image and stack is used by nothing else, and as the monitor gave it
            // to the guest, it is zero: what came before in the guest's life cannot have written there.
            unsafe { heap.give(ptr::with_exposed_provenance_mut(range.start), range.len()) };
        }
        act(heap)
    }
}

/// The global allocator of a guest; [`entry!`](crate::entry!) makes one.
#[derive(Debug)]
pub struct GlobalHeap(());

impl GlobalHeap {
    /// # Safety
    ///
    /// The program is a guest: it has one thread, which nothing interrupts.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: `Heap` keeps to the contract: blocks do not overlap, have the size and alignment of the layout, and
// stay where they are until they are freed; nothing unwinds, because a guest aborts on a panic.
unsafe impl GlobalAlloc for GlobalHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.with(|heap| heap.allocate(layout)).map_or(ptr::null_mut(), |block| block.start)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HEAP.with(|heap| heap.allocate_zeroed(layout)).unwrap_or(ptr::null_mut())
    }

    unsafe fn dealloc(&self, start: *mut u8, _layout: Layout) {
        // SAFETY: the caller gives back what `alloc` gave out.
        HEAP.with(|heap| unsafe { heap.free(start) });
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller has got `start` from `alloc` for this layout, and vouches for the size.
        HEAP.with(|heap| unsafe { heap.reallocate(start, layout, new_size) }).unwrap_or(ptr::null_mut())
    }
}
