//! Mutated images: no panic, no endless reading, and no more memory than in proportion to the image.
//!
//! `NABLA_FUZZ_RUNS=10000000 cargo test --release -p nabla-iso --test it mutations` for a long run, with
//! `NABLA_FUZZ_SEED` for another one.

use crate::checks;
use nabla_iso::{Entry, ImageBuilder};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    env, fs,
    path::Path,
};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    // Other tests run meanwhile. What one thread has allocated, another may free.
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // There is no counter any more while a thread ends.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: everything is done by the system's allocator; `count` only adds to numbers, and does not allocate: they are
// initialised at compile time and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        let _ = TOTAL.try_with(|total| total.set(total.get() + layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `work` has allocated at a time on this thread.
pub fn peak(work: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    work();
    usize::try_from(PEAK.get() - before).unwrap_or(0)
}

/// Bytes of memory for each byte of an image, and for any.
const FACTOR: usize = 64;
const SPARE: usize = 256 << 10;

/// All bytes that `work` has allocated on this thread, whatever it has freed of them: a measure of work that is the same
/// on every machine.
pub fn allocated(work: impl FnOnce()) -> usize {
    let before = TOTAL.get();
    work();
    TOTAL.get() - before
}

/// xorshift64*, from `NABLA_FUZZ_SEED` on.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Self(number("NABLA_FUZZ_SEED", 1) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % end.max(1)
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Small images that have everything.
fn seeds() -> Vec<Vec<u8>> {
    let image = |builder: ImageBuilder| {
        let mut bytes = Vec::new();
        builder.plan().unwrap().write_to(&mut bytes).unwrap();
        bytes
    };
    let small = || {
        ImageBuilder::new()
            .entry("/a/b/file", Entry::bytes(*b"contents"))
            .entry("/a/link", Entry::symlink("../a/b/./file"))
            .entry("/dev/null", Entry::character_device(1, 3))
            .entry("/a/hard", Entry::hard_link("/a/b/file"))
    };
    vec![
        image(small()),
        image(small().joliet(true)),
        image(
            small()
                .entry("/a/b/c/d/e/f/g/h/i/j", Entry::bytes(*b"deep"))
                .entry("/x/b/c/d/e/f/g/h", Entry::directory()),
        ),
        image(small().entry(format!("/{}", "n".repeat(255)), Entry::symlink("t/".repeat(2000)))),
    ]
}

/// Changes an image a little.
fn mutate(image: &mut Vec<u8>, random: &mut Random) {
    // The system area in front is not looked at.
    const START: usize = 16 * 2048;
    for _ in 0..=random.below(6) {
        let at = START + random.below(image.len().saturating_sub(START + 16));
        if at + 16 > image.len() {
            return;
        }
        match random.below(8) {
            0 => image[at] ^= 1 << random.below(8),
            1 => image[at] = random.next().to_le_bytes()[0],
            2 => image[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            // A number in both byte orders, as most are.
            3 | 4 => {
                let small = u32::try_from(random.below(64)).unwrap();
                let value = [small, u32::MAX, 1 << 31, 2048, u32::try_from(random.next() >> 32).unwrap()]
                    [random.below(5)];
                image[at..at + 4].copy_from_slice(&value.to_le_bytes());
                image[at + 4..at + 8].copy_from_slice(&value.to_be_bytes());
            }
            // A piece of it somewhere else.
            5 | 6 => {
                let length = [8, 28, 44, 120, 2048][random.below(5)].min(image.len() - at);
                let from = START + random.below(image.len() - START - length + 1);
                image.copy_within(from..from + length, at);
            }
            _ => image.truncate(at),
        }
        if image.len() <= START + 64 {
            return;
        }
    }
}

#[test]
fn mutated_images_do_no_harm() {
    let runs = number("NABLA_FUZZ_RUNS", 20_000);
    let mut random = Random::new();
    let seeds = seeds();
    let mut image = Vec::new();
    for run in 0..runs {
        let seed = &seeds[random.below(seeds.len())];
        image.clear();
        image.extend_from_slice(seed);
        mutate(&mut image, &mut random);
        let used = peak(|| checks::image(&image));
        assert!(
            used <= image.len() * FACTOR + SPARE,
            "run {run}: {used} bytes for an image of {}",
            image.len()
        );
    }
}

#[test]
fn the_corpus_does_no_harm() {
    type Check = fn(&[u8]);
    let corpora: [(&str, Check); 2] = [("iso", checks::image), ("tar", checks::tar)];
    for (target, check) in corpora {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut files = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            check(&fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 4, "{target}");
    }
}
