//! Comparisons of the SDK's heap with libraries: time, and memory that is touched, which is what a guest takes from its
//! host.

mod own;
mod peers;

use crate::{
    comparison::Comparison,
    pairs::{Measured, measure},
    setup::Setup,
};
use anyhow::{Context, Result};
use peers::{Own, Peer, Rest, Rlsf};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap_anonymous, munmap},
    time::{ClockId, clock_gettime},
};
use std::{alloc::Layout, fs::File, os::unix::fs::FileExt, ptr};
use talc::TalcCell;

/// Memory for a heap, in bytes, of which pages are taken as they are touched.
const ARENA: usize = 256 << 20;
const PAGE: usize = 4096;

/// Pseudorandom numbers, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

/// An allocation.
#[derive(Clone, Copy)]
struct Block {
    start: *mut u8,
    layout: Layout,
}

/// A heap of one of the kinds, in memory of its own.
struct Heap<A> {
    heap: A,
    arena: *mut u8,
    /// Bytes that are allocated.
    live: usize,
}

impl<A: Peer> Heap<A> {
    fn new() -> Result<Self> {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping anywhere changes no memory that is in use.
        let arena = unsafe { mmap_anonymous(ptr::null_mut(), ARENA, protection, flags) }?.cast();
        // SAFETY: the mapping is zero, on pages, used by nothing else, and goes away with this.
        Ok(Self { heap: unsafe { A::over(arena, ARENA) }, arena, live: 0 })
    }

    fn get(&mut self, size: usize, zero: bool) -> Block {
        let layout = Layout::from_size_align(size.max(1), 8).expect("sizes are small");
        // SAFETY: the layout has a size.
        let start = unsafe { if zero { self.heap.alloc_zeroed(layout) } else { self.heap.alloc(layout) } };
        assert!(!start.is_null(), "the heap has no room");
        // SAFETY: the block has a byte.
        unsafe { start.write(1) };
        self.live += layout.size();
        Block { start, layout }
    }

    fn free(&mut self, block: Block) {
        self.live -= block.layout.size();
        // SAFETY: workloads free what they got, once.
        unsafe { self.heap.dealloc(block.start, block.layout) };
    }

    fn grow(&mut self, block: &mut Block, size: usize) {
        let layout = Layout::from_size_align(size, 8).expect("sizes are small");
        // SAFETY: workloads have got the block for this layout, and not freed it.
        let start = unsafe { self.heap.realloc(block.start, block.layout, size) };
        assert!(!start.is_null(), "the heap has no room");
        self.live = self.live - block.layout.size() + size;
        *block = Block { start, layout };
    }

    /// KiB of pages that have been touched.
    fn touched(&self) -> Result<f64> {
        let mut entries = vec![0; ARENA / PAGE * 8];
        let file = File::open("/proc/self/pagemap")?;
        file.read_exact_at(&mut entries, (self.arena.addr() / PAGE * 8) as u64)
            .context("cannot read pagemap")?;
        // proc_pid_pagemap(5): present or swapped.
        let pages = entries.chunks(8).filter(|entry| entry[7] & 0xc0 != 0).count();
        Ok((pages * PAGE / 1024) as f64)
    }
}

impl<A> Drop for Heap<A> {
    fn drop(&mut self) {
        // SAFETY: the heap in it is gone with this, and so are all of its blocks' users.
        let _ = unsafe { munmap(self.arena.cast(), ARENA) };
    }
}

type Workload<A> = fn(&mut Heap<A>);

/// The buffers of 128 sockets that wait for clients, as examples/httpd has them.
fn sockets<A: Peer>(heap: &mut Heap<A>) -> Vec<[Block; 2]> {
    (0..128).map(|_| [heap.get(8 << 10, true), heap.get(64 << 10, true)]).collect()
}

fn start<A: Peer>(heap: &mut Heap<A>) {
    sockets(heap);
}

/// Requests: a path, a head that grows, a file in the cache; every tenth with a socket of its own.
fn httpd<A: Peer>(heap: &mut Heap<A>) {
    let mut random = Random(7);
    let (mut sockets, mut cache) = (sockets(heap), Vec::new());
    for round in 0..20_000 {
        let (path, node) = (heap.get(8 + random.below(40), false), heap.get(96, false));
        let mut head = heap.get(8, false);
        for size in [16, 32, 64, 128, 256] {
            heap.grow(&mut head, size);
        }
        if cache.len() < 40 {
            cache.push(heap.get(512 + random.below(60_000), false));
        } else if round % 50 == 0 {
            heap.free(cache.swap_remove(random.below(40)));
        }
        if round % 10 == 0 {
            let index = random.below(sockets.len());
            sockets[index].into_iter().for_each(|block| heap.free(block));
            sockets[index] = [heap.get(8 << 10, true), heap.get(64 << 10, true)];
        }
        [path, head, node].into_iter().for_each(|block| heap.free(block));
    }
}

/// Small objects that come and go.
fn small<A: Peer>(heap: &mut Heap<A>) {
    let mut random = Random(3);
    let mut live: Vec<_> = (0..10_000).map(|_| heap.get(8 + random.below(120), false)).collect();
    for _ in 0..500_000 {
        let block = &mut live[random.below(10_000)];
        heap.free(*block);
        *block = heap.get(8 + random.below(120), false);
    }
}

/// Eight vectors at a time that grow to a MiB each, and small objects between.
fn vectors<A: Peer>(heap: &mut Heap<A>) {
    let mut random = Random(5);
    for _ in 0..20 {
        let mut blocks: Vec<_> = (0..8).map(|_| heap.get(64, false)).collect();
        for _ in 0..20 * 8 {
            let block = &mut blocks[random.below(8)];
            let size = (block.layout.size() * 2).min(1 << 20);
            heap.grow(block, size);
            blocks.push(heap.get(16 + random.below(100), false));
        }
        blocks.into_iter().for_each(|block| heap.free(block));
    }
}

/// Sizes from 16 bytes to 64 KiB around 8 MiB for long, of which half is freed now and then.
fn mixed<A: Peer>(heap: &mut Heap<A>) {
    let mut random = Random(11);
    let mut live = Vec::new();
    for round in 1..=300_000 {
        if !live.is_empty() && (heap.live > 8 << 20 || random.below(10) < 3) {
            heap.free(live.swap_remove(random.below(live.len())));
            continue;
        }
        let least = 16 << random.below(12);
        let mut block = heap.get(least + random.below(least), random.below(8) == 0);
        if random.below(5) == 0 {
            let size = block.layout.size() + random.below(least);
            heap.grow(&mut block, size);
        }
        live.push(block);
        if round % 50_000 == 0 {
            let freed = live.split_off(live.len() / 2);
            freed.into_iter().for_each(|block| heap.free(block));
        }
    }
}

/// Microseconds of the thread's processor time.
fn time<A: Peer>(workload: Workload<A>) -> Result<f64> {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
    };
    let mut heap = Heap::new()?;
    let start = now();
    workload(&mut heap);
    Ok(now() - start)
}

fn memory<A: Peer>(workload: Workload<A>) -> Result<f64> {
    let mut heap = Heap::new()?;
    workload(&mut heap);
    heap.touched()
}

fn row(
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
    at_most: Option<f64>,
    run: fn(&Setup, u32) -> Result<Measured>,
) -> Comparison {
    let unit = if name.contains("memory") { "KiB" } else { "us" };
    Comparison { name, ours, theirs, unit, at_most, is_possible: |_| true, run }
}

/// The rows of a workload: time or memory, against each library.
macro_rules! rows {
    ($measure:ident, $workload:ident, $ours:literal, $name:literal, $at_most:expr) => {
        [
            row(concat!($name, "-talc"), $ours, "talc", $at_most, |_, n| {
                measure(
                    n.div_ceil(5),
                    || $measure::<Own>($workload),
                    || $measure::<TalcCell<Rest>>($workload),
                )
            }),
            row(concat!($name, "-rlsf"), $ours, "rlsf", $at_most, |_, n| {
                measure(n.div_ceil(5), || $measure::<Own>($workload), || $measure::<Rlsf>($workload))
            }),
        ]
    };
}

/// All of them. Small objects are faster elsewhere; the heap is chosen for the memory that it does not touch.
pub fn all() -> Vec<Comparison> {
    let rows = [
        rows!(time, start, "the heap's time for httpd's start", "heap-time-start", Some(0.3)),
        rows!(time, httpd, "20,000 requests of httpd", "heap-time-httpd", Some(1.2)),
        rows!(time, small, "500,000 small objects", "heap-time-small", None),
        rows!(time, vectors, "vectors that grow", "heap-time-vectors", None),
        rows!(time, mixed, "all sizes for long", "heap-time-mixed", None),
        rows!(memory, start, "memory touched at httpd's start", "heap-memory-start", Some(0.3)),
        rows!(memory, httpd, "after 20,000 requests", "heap-memory-httpd", Some(1.0)),
        rows!(memory, vectors, "of vectors that grow", "heap-memory-vectors", None),
        rows!(memory, mixed, "of all sizes for long", "heap-memory-mixed", Some(1.0)),
    ];
    rows.into_iter().flatten().collect()
}
