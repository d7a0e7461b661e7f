//! What it costs to read, plan and unpack grows as the input does, and not with the square of its depth or number.

use crate::mutations::{allocated, peak};
use nabla_iso::{
    Entry, Extractor, ImageBuilder,
    reader::{Source, Volume},
};
use rustix::{
    fd::OwnedFd,
    fs::{self as sys, Mode, OFlags},
};
use std::{cell::Cell, fs, io, path::Path};

/// An image in memory that counts how often it is read.
struct Counted {
    bytes: Vec<u8>,
    reads: Cell<usize>,
}

impl Source for &Counted {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.bytes[..].read_at(offset, buffer)
    }
}

fn write(builder: ImageBuilder) -> Counted {
    let mut bytes = Vec::new();
    builder.threads(std::num::NonZero::<usize>::MIN).plan().unwrap().write_to(&mut bytes).unwrap();
    Counted { bytes, reads: Cell::new(0) }
}

/// A tree of this depth, in whose innermost directory are files.
fn deep(depth: usize) -> ImageBuilder {
    let path = "directory/".repeat(depth);
    let mut builder = ImageBuilder::new();
    for number in 0..20 {
        builder = builder.entry(format!("/{path}{number}"), Entry::bytes(*b"x"));
    }
    builder.entry(format!("/{path}link"), Entry::hard_link(format!("/{path}0")))
}

/// Fails unless twice the input costs about twice as much.
#[track_caller]
fn assert_linear(what: &str, costs: [usize; 3]) {
    let [one, two, four] = costs;
    assert!(two * 2 <= one * 5 && four * 2 <= two * 5, "{what}: {costs:?}");
}

#[test]
fn deep_trees_are_planned_read_and_unpacked_in_proportion() {
    let depths = [400, 800, 1600];
    assert_linear("planning", depths.map(|depth| allocated(|| drop(write(deep(depth))))));
    let images = depths.map(|depth| write(deep(depth)));
    let each = |work: fn(&Counted)| [0, 1, 2].map(|index| allocated(|| work(&images[index])));
    assert_linear(
        "walking",
        each(|image| {
            let volume = Volume::open(image).unwrap();
            assert!(volume.walk(volume.root()).unwrap().all(|entry| entry.is_ok()));
        }),
    );
    assert_linear("verifying", each(|image| assert_eq!(Volume::open(image).unwrap().verify().problems, [])));
    assert_linear(
        "unpacking",
        each(|image| {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("x");
            Extractor::new().extract(&Volume::open(image).unwrap(), &target).unwrap();
            remove(&target);
        }),
    );
    let reads = images.each_ref().map(|image| image.reads.get());
    assert_linear("reading", reads);
    for image in &images {
        let used = peak(|| drop(Volume::open(image).unwrap().verify()));
        assert!(used < (4 << 20) + image.bytes.len() * 2, "{used} bytes for {}", image.bytes.len());
    }
}

/// Removes a tree that is deeper than the standard library can go with the descriptors that there are.
fn remove(path: &Path) {
    let status = std::process::Command::new("rm").arg("-r").arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn thousands_of_levels_with_an_error_at_the_end_leave_nothing() {
    let mut image = write(deep(3000));
    // The last of the files lies outside of the image.
    let last = image.bytes.windows(5).rposition(|window| window == b"19.;1").unwrap() - 33;
    image.bytes[last + 2..last + 6].fill(0xee);
    let directory = tempfile::tempdir().unwrap();
    let volume = Volume::open(&image).unwrap();
    assert!(Extractor::new().extract(&volume, directory.path().join("x")).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // A killed program leaves as much.
    let stale = directory.path().join(".x.nabla-iso-1-0.partial");
    let mut here = {
        fs::create_dir(&stale).unwrap();
        OwnedFd::from(fs::File::open(&stale).unwrap())
    };
    for _ in 0..3000 {
        sys::mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = sys::openat(&here, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let small = write(ImageBuilder::new().entry("/a", Entry::bytes(*b"x")));
    Extractor::new().extract(&Volume::open(&small).unwrap(), directory.path().join("x")).unwrap();
    assert!(!stale.exists());
}

fn digit(number: u64) -> u8 {
    b'0' + u8::try_from(number % 10).unwrap()
}

#[test]
fn files_of_many_sections_are_read_in_proportion() {
    let reads = [500, 1000, 2000].map(|count| {
        let mut builder = ImageBuilder::new();
        for number in 0..count {
            builder = builder.entry(format!("/n{number:06}"), Entry::bytes(vec![digit(number); 3]));
        }
        let mut image = write(builder);
        // Of so many files becomes one with so many sections. Their records are in order.
        let mut at = 18 * 2048;
        for number in 0..count {
            let name = format!("N{number:06}.;1");
            at += image.bytes[at..].windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
            image.bytes[at..at + 7].copy_from_slice(b"N000000");
            image.bytes[at - 8] = if number + 1 < count { 0x80 } else { 0 };
            let long = image.bytes[at..].windows(2).position(|window| window == b"NM").unwrap() + at + 5;
            image.bytes[long..long + 7].copy_from_slice(b"n000000");
        }
        let volume = Volume::open(&image).unwrap();
        assert_eq!(volume.lookup(b"n000000").unwrap().size, count * 3);
        image.reads.set(0);
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x");
        Extractor::new().extract(&volume, &target).unwrap();
        let contents = fs::read(target.join("n000000")).unwrap();
        assert!(contents.chunks(3).enumerate().all(|(i, part)| part == [digit(i as u64); 3]));
        image.reads.get()
    });
    assert_linear("reading sections", reads);
}

#[test]
fn the_limit_counts_directories_and_long_links() {
    let mut builder = ImageBuilder::new();
    for number in 0..100 {
        builder = builder
            .entry(format!("/d{number}"), Entry::directory())
            .entry(format!("/l{number}"), Entry::symlink("t".repeat(60)))
            .entry(format!("/s{number}"), Entry::symlink("t".repeat(59)));
    }
    let image = write(builder);
    let volume = Volume::open(&image).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let extract = |limit| Extractor::new().limit(limit).extract(&volume, directory.path().join("x"));
    assert!(matches!(extract(200 * 4096 - 1), Err(nabla_iso::Error::Bomb { .. })));
    assert!(extract(200 * 4096).is_ok());
}

#[test]
fn progress_of_a_large_file_is_reported_while_it_is_unpacked() {
    use std::{
        ops::ControlFlow,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };
    let image = write(ImageBuilder::new().entry("/large", Entry::bytes(vec![1; 4 << 20])));
    let reports = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reports);
    let extractor = Extractor::new().progress(move |progress| {
        assert!(progress.bytes <= progress.bytes_total);
        counter.fetch_add(1, Relaxed);
        ControlFlow::Continue(())
    });
    let directory = tempfile::tempdir().unwrap();
    extractor.extract(&Volume::open(&image).unwrap(), directory.path().join("x")).unwrap();
    assert!(reports.load(Relaxed) >= 16);
}
