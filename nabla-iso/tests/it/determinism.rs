//! The same input gives the same bytes.

use crate::common::{SMALL, Shape, tree};
use nabla_iso::{Entry, ImageBuilder, Plan, Timestamp};
use std::{fs, hash::Hasher, num::NonZero, os::unix::fs::FileExt, path::Path};

fn bytes(plan: &Plan) -> Vec<u8> {
    let mut bytes = Vec::new();
    plan.write_to(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, plan.size());
    bytes
}

fn plan(root: &Path, threads: usize) -> Plan {
    ImageBuilder::new().directory(root).joliet(true).threads(NonZero::new(threads).unwrap()).plan().unwrap()
}

/// FNV-1a, to be independent of everything else.
#[derive(Default)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0 ^ 0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[test]
fn order_of_creation_threads_and_ways_of_writing_do_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    tree(&one, SMALL);
    // The same names, made in the opposite order first.
    fs::create_dir_all(other.join("many")).unwrap();
    for number in (0..SMALL.many).rev() {
        fs::write(other.join(format!("many/file {number:06}.txt")), "").unwrap();
    }
    fs::remove_dir_all(other.join("many")).unwrap();
    tree(&other, SMALL);
    let first = bytes(&plan(&one, 1));
    assert!(first == bytes(&plan(&one, 8)));
    assert!(first == bytes(&plan(&other, 3)));
    for threads in [1, 8] {
        let image = directory.path().join("image.iso");
        plan(&one, threads).write_file(&image).unwrap();
        assert!(first == fs::read(&image).unwrap());
    }
}

#[test]
fn a_known_tree_has_a_known_image() {
    let time = Timestamp::from_seconds(1_700_000_000);
    let mut builder = ImageBuilder::new()
        .entry("/etc/hosts", Entry::bytes(*b"127.0.0.1 localhost\n").time(time))
        .entry("/etc/HOSTS", Entry::bytes(*b"other").owner(1, 2).mode(0o600))
        .entry("/bin/sh", Entry::symlink("busybox"))
        .entry("/dev/null", Entry::character_device(1, 3).mode(0o666))
        .entry("/run/pipe", Entry::fifo())
        .entry("/etc/hosts.link", Entry::hard_link("/etc/hosts"))
        .joliet(true)
        .volume_id("GOLDEN");
    for level in ["a/b/c/d/e/f/g/h/i/j/k/l", "a/b/c/d/e/f/g/x"] {
        builder = builder.entry(format!("/{level}/file"), Entry::bytes(level.as_bytes().to_vec()));
    }
    let image = bytes(&builder.plan().unwrap());
    let mut hash = Fnv::default();
    hash.write(&image);
    assert_eq!((image.len(), hash.finish()), GOLDEN);
}

/// Size and hash. They change only when images are to look different, which the change log says then.
const GOLDEN: (usize, u64) = (133_120, 18_244_190_840_296_098_965);

#[test]
fn ranges_that_are_read_are_those_that_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    tree(&root, Shape { many: 2000, ..SMALL });
    let plan = plan(&root, 2);
    let image = directory.path().join("image.iso");
    plan.write_file(&image).unwrap();
    let image = fs::File::open(&image).unwrap();
    let size = plan.size();
    // A linear congruential generator, for ranges of every order of magnitude.
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 16) % below
    };
    let (mut ours, mut theirs) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    for _ in 0..10_000 {
        let offset = random(size + 5000);
        let bits = random(17) + 1;
        let length = usize::try_from(random(1 << bits)).unwrap();
        let there = usize::try_from(size.saturating_sub(offset)).unwrap().min(length);
        assert_eq!(plan.read_at(offset, &mut ours[..length]).unwrap(), there);
        image.read_exact_at(&mut theirs[..there], offset).unwrap();
        assert!(ours[..there] == theirs[..there], "{offset}, {length}");
    }
}
