//! The heap against a model: random allocations, of which every byte is checked.

use std::{alloc::Layout, collections::BTreeMap, ops::Range};

use super::{
    class,
    region::WORD,
    segregated::{GRANULE, Heap},
};

/// SplitMix64, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// Mostly small, sometimes large, in all magnitudes.
    fn size(&mut self, max: usize) -> usize {
        let magnitude = self.below(max.ilog2() as usize + 1);
        1 + self.below(1 << magnitude)
    }
}

/// A heap with its memory, and what is known to be allocated.
struct Model {
    heap: Heap,
    live: BTreeMap<usize, (Layout, u8)>,
    /// Backs the heap; bytes before and after the part that it gets are checked too.
    memory: Box<[u128]>,
    given: Range<usize>,
}

const GUARD: u8 = 0xee;

impl Model {
    /// A heap that is given `len` bytes, `skip` bytes off an address that is a multiple of 4096.
    fn new(skip: usize, len: usize) -> Self {
        let mut memory =
            vec![u128::from_ne_bytes([GUARD; 16]); (len + skip + 3 * 4096) / 16].into_boxed_slice();
        let base = memory.as_mut_ptr().cast::<u8>();
        let start = 4096 + base.align_offset(4096) + skip;
        let mut heap = Heap::EMPTY;
        // SAFETY: the range lies in `memory`, which stays where it is and is used by the heap only.
        unsafe {
            base.add(start).write_bytes(0, len);
            heap.give(base.add(start), len);
        }
        let first = base.addr() + start;
        Self { heap, live: BTreeMap::new(), memory, given: first..first + len }
    }

    fn allocate(&mut self, layout: Layout, fill: u8) -> Option<usize> {
        let block = self.heap.allocate(layout)?;
        let range = block.start.addr()..block.start.addr() + layout.size();
        assert!(block.start.addr().is_multiple_of(layout.align()), "{layout:?} at {range:x?}");
        assert!(self.given.start <= range.start && range.end <= self.given.end, "{layout:?} at {range:x?}");
        if let Some((&below, (other, _))) = self.live.range(..range.end).next_back() {
            assert!(below + other.size() <= range.start, "{layout:?} at {range:x?}, {other:?} at {below:x}");
        }
        // SAFETY: the block has been given out for this many bytes.
        unsafe {
            for i in block.dirty.min(layout.size())..layout.size() {
                assert_eq!(block.start.add(i).read(), 0, "byte {i} of fresh memory");
            }
            block.start.write_bytes(fill, layout.size());
        }
        let start = block.start.expose_provenance();
        self.live.insert(start, (layout, fill));
        Some(start)
    }

    fn check_bytes(start: usize, len: usize, fill: u8) {
        // SAFETY: these bytes belong to a live allocation that has been filled.
        let bytes =
            unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(start), len) };
        assert!(bytes.iter().all(|&byte| byte == fill), "{len} bytes at {start:x} have changed");
    }

    fn free(&mut self, start: usize) {
        let (layout, fill) = self.live.remove(&start).unwrap();
        Self::check_bytes(start, layout.size(), fill);
        // SAFETY: it is live.
        unsafe { self.heap.free(std::ptr::with_exposed_provenance_mut(start)) };
    }

    fn resize(&mut self, start: usize, new_size: usize) -> bool {
        let (layout, fill) = self.live[&start];
        let pointer = std::ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: it is live.
        if !unsafe { self.heap.resize(pointer, new_size) } {
            Self::check_bytes(start, layout.size(), fill);
            return false;
        }
        Self::check_bytes(start, layout.size().min(new_size), fill);
        if let Some((&above, _)) = self.live.range(start + 1..).next() {
            assert!(start + new_size <= above, "{new_size} bytes at {start:x} reach {above:x}");
        }
        assert!(start + new_size <= self.given.end);
        // SAFETY: the block now has this many bytes.
        unsafe { pointer.write_bytes(fill, new_size) };
        let layout = Layout::from_size_align(new_size, layout.align()).unwrap();
        self.live.insert(start, (layout, fill));
        true
    }

    fn free_all(&mut self, random: &mut Random) {
        while !self.live.is_empty() {
            let start = *self.live.keys().nth(random.below(self.live.len())).unwrap();
            self.free(start);
        }
    }

    /// Walks all blocks and all lists.
    fn check(&self) {
        const FREE: usize = 1;
        const PREVIOUS_FREE: usize = 2;
        let region = &self.heap.region;
        let (mut block, mut used, mut free, mut previous_free) = (GRANULE - WORD, 0, 0, false);
        while block < self.heap.rest {
            let tag = region.read(block);
            let size = tag & !(FREE | PREVIOUS_FREE);
            let is_free = tag & FREE != 0;
            assert!(size >= 32 && size.is_multiple_of(GRANULE), "size {size} at {block}");
            assert_eq!(tag & PREVIOUS_FREE != 0, previous_free, "flag at {block}");
            assert!(!(is_free && previous_free), "free neighbours at {block}");
            if is_free {
                assert_eq!(region.read(block + size - WORD), size, "end of {block}");
                free += 1;
            } else {
                used += size;
            }
            previous_free = is_free;
            block += size;
        }
        assert_eq!(block, self.heap.rest);
        assert!(!previous_free, "the last block is free");
        assert_eq!(used, self.heap.used());
        assert!(self.heap.capacity() >= self.heap.peak() && self.heap.peak() >= used);

        let mut listed = 0;
        for (level, lists) in self.heap.lists.iter().enumerate() {
            for (index, &first) in lists.iter().enumerate() {
                let (mut block, mut previous) = (first, 0);
                while block != 0 {
                    assert_ne!(region.read(block) & FREE, 0, "used block in a list");
                    assert_eq!(class::of_block(self.heap.size(block)), class::Class { level, index });
                    assert_eq!(region.read(block + 2 * WORD), previous);
                    (previous, block) = (block, region.read(block + WORD));
                    listed += 1;
                }
            }
        }
        assert_eq!(listed, free);
    }

    fn check_guards(&self) {
        let base = self.memory.as_ptr().addr();
        let inside = self.given.start - base..self.given.end - base;
        for i in (0..inside.start).chain(inside.end..self.memory.len() * 16) {
            // SAFETY: the byte lies in `memory`, which is initialised.
            let byte = unsafe { self.memory.as_ptr().cast::<u8>().add(i).read() };
            assert_eq!(byte, GUARD, "byte {i} outside of the heap's memory");
        }
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn random_operations_keep_to_the_model() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut model = Model::new(random.below(64), 4096 + random.below(1 << 18));
        let most = 1 + random.below(300);
        for step in 0..4000_u32 {
            let victim = (!model.live.is_empty())
                .then(|| *model.live.keys().nth(random.below(model.live.len())).unwrap());
            match (random.below(8), victim) {
                (0..=2, Some(start)) => model.free(start),
                (3, Some(start)) => {
                    model.resize(start, random.size(1 << 16));
                }
                _ if model.live.len() < most => {
                    let align =
                        if random.below(4) == 0 { 1 << random.below(13) } else { 1 << random.below(5) };
                    model.allocate(layout(random.size(1 << 15), align), step.to_le_bytes()[0]);
                }
                _ => {}
            }
            if step % 16 == 0 {
                model.check();
            }
        }
        model.free_all(&mut random);
        model.check();
        assert_eq!((model.heap.used(), model.heap.rest), (0, GRANULE - WORD), "seed {seed}");
        model.check_guards();
    }
}

#[test]
fn everything_is_usable_after_it_has_been_freed() {
    let mut random = Random(1);
    let mut model = Model::new(0, 1 << 20);
    for _ in 0..20 {
        while model.allocate(layout(random.size(5000), 8), 1).is_some() {}
        model.free_all(&mut random);
        let all = model.heap.capacity() / GRANULE * GRANULE - WORD;
        let start = model.allocate(layout(all, 16), 2).expect("the whole heap in one piece");
        model.free(start);
        assert!(model.heap.allocate(layout(all + 1, 1)).is_none());
    }
}

#[test]
fn a_hole_is_filled_when_there_is_nothing_else() {
    // 1008 bytes are not the first of their class, so this block is looked for only when all else fails.
    let mut model = Model::new(0, 8192);
    let hole = model.allocate(layout(1000, 1), 1).unwrap();
    model.allocate(layout(16, 1), 2).unwrap();
    while model.allocate(layout(1000, 1), 3).is_some() {}
    while model.allocate(layout(1, 1), 4).is_some() {}
    model.free(hole);
    assert_eq!(model.allocate(layout(1000, 1), 5), Some(hole));
    model.check();
}

#[test]
fn freed_memory_is_preferred_to_fresh_memory() {
    let mut model = Model::new(0, 1 << 20);
    let first = model.allocate(layout(100, 8), 1).unwrap();
    model.allocate(layout(100, 8), 2).unwrap();
    let peak = model.heap.peak();
    model.free(first);
    for _ in 0..100 {
        let start = model.allocate(layout(90, 8), 3).unwrap();
        assert_eq!(start, first);
        model.free(start);
    }
    assert_eq!(model.heap.peak(), peak);
}

#[test]
fn the_last_block_grows_where_it_is() {
    let mut model = Model::new(0, 1 << 20);
    model.allocate(layout(100, 8), 1).unwrap();
    let last = model.allocate(layout(100, 8), 2).unwrap();
    for size in (200..500_000).step_by(9999) {
        assert!(model.resize(last, size));
        model.check();
    }
    assert!(!model.resize(last, 1 << 20));
    assert!(!model.resize(last, usize::MAX));
    assert!(model.resize(last, 1));
    assert!(model.heap.used() < 300);
    model.check();
}

#[test]
fn large_alignments_are_kept() {
    let mut model = Model::new(48, 1 << 20);
    for align in (0..=16).map(|log2| 1 << log2) {
        for size in [1, 8, 24, 100, 5000] {
            model.allocate(layout(size, align), 7).unwrap();
            model.check();
        }
    }
    model.free_all(&mut Random(3));
    model.check();
}

#[test]
fn impossible_requests_fail_and_change_nothing() {
    let mut model = Model::new(0, 1 << 16);
    model.allocate(layout(1000, 1), 1).unwrap();
    for request in [
        layout(1 << 16, 1),
        layout(isize::MAX as usize, 1),
        layout(1, 1 << 62),
        layout(isize::MAX as usize - 4095, 4096),
    ] {
        assert!(model.heap.allocate(request).is_none(), "{request:?}");
        model.check();
    }
}

#[test]
fn heaps_without_memory_fail() {
    for len in [0, 1, 7, 8, 15, 16, 31] {
        let mut model = Model::new(9, len);
        assert!(model.heap.allocate(layout(1, 1)).is_none(), "{len} bytes");
    }
}

#[test]
#[should_panic(expected = "freed twice, or the heap is corrupt")]
fn freeing_twice_panics() {
    let mut model = Model::new(0, 4096);
    let block = model.heap.allocate(layout(100, 8)).unwrap().start;
    model.allocate(layout(100, 8), 1).unwrap();
    // SAFETY: the second call breaks the contract, which is what is tested; it only reads the block's tag.
    unsafe {
        model.heap.free(block);
        model.heap.free(block);
    }
}

#[test]
fn a_steady_mix_does_not_fragment() {
    let mut random = Random(99);
    let mut model = Model::new(0, 8 << 20);
    let mut most = 0;
    for step in 0..60_000_u32 {
        if model.live.len() < 2000 || random.below(2) == 0 {
            let size = [24, 48, 200, 1500, 4096][random.below(5)] + random.below(32);
            model.allocate(layout(size, 8), step.to_le_bytes()[0]).expect("there is room");
        }
        if model.live.len() >= 2000 {
            let start = *model.live.keys().nth(random.below(model.live.len())).unwrap();
            model.free(start);
        }
        most = most.max(model.heap.used());
    }
    assert!(model.heap.peak() < most + most / 8, "peak {} for {most}", model.heap.peak());
}
