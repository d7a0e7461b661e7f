//! Heaps with the interface of a global allocator, each over one range of memory.
//!
//! The libraries get the range in steps, as they need it: given all at once, they write to its end.

use super::own::Heap;
use std::{
    alloc::{GlobalAlloc, Layout},
    cell::RefCell,
    ptr::{self, NonNull},
};
use talc::{
    TalcCell,
    base::{Talc, binning::Binning},
    source::Source,
};

/// What a library is given at a time, in bytes.
const STEP: usize = 64 << 10;

/// A heap that can be made.
pub trait Peer: GlobalAlloc {
    /// # Safety
    ///
    /// The range is zero, aligned to 16 bytes, not null, and used only by the heap for as long as the heap is used.
    unsafe fn over(base: *mut u8, len: usize) -> Self;
}

/// The SDK's.
#[derive(Debug)]
pub struct Own(RefCell<Heap>);

impl Peer for Own {
    unsafe fn over(base: *mut u8, len: usize) -> Self {
        let mut heap = Heap::EMPTY;
        // SAFETY: the caller vouches for the range.
        unsafe { heap.give(base, len) };
        Self(RefCell::new(heap))
    }
}

// SAFETY: as for the SDK's global allocator, which makes the same calls.
unsafe impl GlobalAlloc for Own {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.borrow_mut().allocate(layout).map_or(ptr::null_mut(), |block| block.start)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.0.borrow_mut().allocate_zeroed(layout).unwrap_or(ptr::null_mut())
    }

    unsafe fn dealloc(&self, start: *mut u8, _layout: Layout) {
        // SAFETY: the caller gives back what `alloc` gave out.
        unsafe { self.0.borrow_mut().free(start) };
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller has got `start` from `alloc` for this layout, and vouches for the size.
        unsafe { self.0.borrow_mut().reallocate(start, layout, new_size) }.unwrap_or(ptr::null_mut())
    }
}

/// Memory that has not been given to a library so far.
#[derive(Debug)]
pub struct Rest {
    next: NonNull<u8>,
    len: usize,
    /// Talc's end of what it has.
    end: Option<NonNull<u8>>,
}

impl Rest {
    fn new(base: *mut u8, len: usize) -> Self {
        Self { next: NonNull::new(base).expect("not null"), len, end: None }
    }

    /// Takes what is enough for `layout` with the library's own share.
    fn take(&mut self, layout: Layout) -> Option<NonNull<[u8]>> {
        let size = (layout.size() + layout.size() / 16 + layout.align() + 128).next_multiple_of(STEP);
        self.len = self.len.checked_sub(size)?;
        let taken = NonNull::slice_from_raw_parts(self.next, size);
        // SAFETY: it was in the range a line ago.
        self.next = unsafe { self.next.add(size) };
        Some(taken)
    }
}

// SAFETY: allocates nothing itself.
unsafe impl Source for Rest {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let taken = talc.source.take(layout).ok_or(())?;
        talc.source.end = match talc.source.end {
            // SAFETY: what was taken follows what the heap has, and nothing else uses it.
            Some(end) => Some(unsafe { talc.extend(end, talc.source.next.as_ptr()) }),
            // SAFETY: nothing else uses it.
            None => unsafe { talc.claim(taken.as_ptr().cast(), taken.len()) },
        };
        talc.source.end.map(|_| ()).ok_or(())
    }
}

impl Peer for TalcCell<Rest> {
    unsafe fn over(base: *mut u8, len: usize) -> Self {
        Self::new(Rest::new(base, len))
    }
}

/// rlsf's, with as many classes for a size as the SDK's has twice.
pub struct Rlsf(RefCell<(rlsf::Tlsf<'static, u32, u32, 28, 32>, Rest)>);

impl Peer for Rlsf {
    unsafe fn over(base: *mut u8, len: usize) -> Self {
        Self(RefCell::new((rlsf::Tlsf::new(), Rest::new(base, len))))
    }
}

impl Rlsf {
    /// Tries until there is memory or no more to be given.
    fn retry(
        &self,
        layout: Layout,
        attempt: impl Fn(&mut rlsf::Tlsf<'static, u32, u32, 28, 32>) -> Option<NonNull<u8>>,
    ) -> *mut u8 {
        let (heap, rest) = &mut *self.0.borrow_mut();
        loop {
            if let Some(block) = attempt(heap) {
                return block.as_ptr();
            }
            let Some(taken) = rest.take(layout) else { return ptr::null_mut() };
            // SAFETY: what was taken follows what the heap has, if it has something, and nothing else uses it.
            unsafe { heap.append_free_block_ptr(taken) };
        }
    }
}

// SAFETY: the heap's own contract is that of the trait.
unsafe impl GlobalAlloc for Rlsf {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.retry(layout, |heap| heap.allocate(layout))
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        let start = NonNull::new(start).expect("blocks are not null");
        // SAFETY: the caller gives back what `alloc` gave out.
        unsafe { self.0.borrow_mut().0.deallocate(start, layout.align()) };
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let start = NonNull::new(start).expect("blocks are not null");
        let layout = Layout::from_size_align(new_size, layout.align()).expect("the caller vouches for it");
        // SAFETY: the caller has got `start` from `alloc`.
        self.retry(layout, |heap| unsafe { heap.reallocate(start, layout) })
    }
}
