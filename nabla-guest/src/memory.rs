//! The guest's memory: image, then heap, then stack.

use core::ops::Range;

use nabla_core::abi::PAGE_SIZE;

use crate::{boot, sys::word};

const PAGE: usize = word(PAGE_SIZE);
/// What the stack gets in a guest that has plenty, in bytes.
const STACK_SIZE: usize = 1 << 20;
/// The stack's share of what the image leaves, where that is less.
const STACK_SHARE: usize = 4;

/// How the guest's memory is divided; made by [`memory()`]. Addresses are those that pointers have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The size of memory in bytes, and its end.
    pub size: usize,
    /// The first address after the image and its bss, on a page.
    pub image_end: usize,
    /// What the heap can grow to, of which no page is touched before it is needed.
    pub heap: Range<usize>,
    /// What is left to the stack, which begins at the end and grows down. Nothing guards it: what goes beyond
    /// runs into the heap. It is 1 MiB, or a quarter of what the image leaves when that is less.
    pub stack: Range<usize>,
}

/// Tells how the guest's memory is divided.
#[must_use]
pub fn memory() -> Memory {
    let (size, kernel_end) = boot::info().map_or((0, 0), |info| (word(info.mem_size), word(info.kernel_end)));
    divide(size, kernel_end)
}

fn divide(size: usize, kernel_end: usize) -> Memory {
    let image_end = kernel_end.next_multiple_of(PAGE).min(size);
    let stack_size = STACK_SIZE.min((size - image_end) / STACK_SHARE);
    let heap_end = (size - stack_size) / PAGE * PAGE;
    let heap_end = heap_end.max(image_end);
    Memory { size, image_end, heap: image_end..heap_end, stack: heap_end..size }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn large_memory_leaves_one_mebibyte_to_the_stack() {
        let memory = divide(64 * MIB, 0x12_3456);
        assert_eq!(memory.image_end, 0x12_4000);
        assert_eq!(memory.heap, 0x12_4000..63 * MIB);
        assert_eq!(memory.stack, 63 * MIB..64 * MIB);
    }

    #[test]
    fn small_memory_is_shared() {
        let memory = divide(2 * MIB, MIB);
        assert_eq!(memory.heap, MIB..2 * MIB - MIB / 4);
    }

    #[test]
    fn no_memory_has_no_heap() {
        assert_eq!(divide(MIB, MIB).heap, MIB..MIB);
        assert_eq!(divide(0, 0).heap, 0..0);
    }
}
