//! Size classes: 16 to a power of two, and below 256 bytes one for each size.

use super::segregated::GRANULE;

/// Classes in a level.
pub const PER_LEVEL: usize = 16;
const PER_LEVEL_LOG2: u32 = PER_LEVEL.ilog2();

/// Sizes below this have a class of their own, all of them in level 0.
const SMALL: usize = GRANULE * PER_LEVEL;
const SMALL_LOG2: u32 = SMALL.ilog2();

/// The largest size that has a class, less than which no memory of a guest will ever have.
pub const SIZE_MAX: usize = (1 << 44) - 1;
/// Number of levels.
pub const LEVELS: usize = (SIZE_MAX.ilog2() - SMALL_LOG2) as usize + 2;

/// A list of free blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    pub level: usize,
    pub index: usize,
}

/// The class in which a free block of `size` bytes, at most [`SIZE_MAX`], is kept.
pub const fn of_block(size: usize) -> Class {
    if size < SMALL {
        return Class { level: 0, index: size / GRANULE };
    }
    let log2 = size.ilog2();
    Class {
        level: (log2 - SMALL_LOG2) as usize + 1,
        index: size >> (log2 - PER_LEVEL_LOG2) & (PER_LEVEL - 1),
    }
}

/// The first class whose blocks all have at least `size` bytes, if there is one.
pub const fn for_request(size: usize) -> Option<Class> {
    let rounded = if size < SMALL { size } else { size + (1 << (size.ilog2() - PER_LEVEL_LOG2)) - 1 };
    if rounded > SIZE_MAX { None } else { Some(of_block(rounded)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(class: Class) -> usize {
        class.level * PER_LEVEL + class.index
    }

    #[test]
    fn classes_are_in_the_order_of_sizes() {
        let mut last = 0;
        for size in (GRANULE..1 << 16).step_by(GRANULE) {
            let class = order(of_block(size));
            assert!(class == last || class == last + 1, "size {size}: class {class} after {last}");
            last = class;
        }
    }

    #[test]
    fn every_block_of_a_requested_class_is_large_enough() {
        for request in (2 * GRANULE..1 << 14).step_by(GRANULE) {
            let class = order(for_request(request).unwrap());
            for size in (2 * GRANULE..1 << 15).step_by(GRANULE) {
                if order(of_block(size)) >= class {
                    assert!(size >= request, "a block of {size} bytes for {request}");
                }
            }
        }
    }

    #[test]
    fn rounding_wastes_at_most_a_sixteenth() {
        for request in (SMALL..1 << 16).step_by(GRANULE) {
            let class = order(for_request(request).unwrap());
            assert!(order(of_block(request + request / PER_LEVEL)) >= class);
        }
    }

    #[test]
    fn limits_are_in_range() {
        let last = of_block(SIZE_MAX);
        assert_eq!((last.level, last.index), (LEVELS - 1, PER_LEVEL - 1));
        assert_eq!(for_request(SIZE_MAX), None);
        assert_eq!(for_request(SIZE_MAX + 1), None);
        assert!(for_request(SIZE_MAX / 2).is_some());
    }
}
