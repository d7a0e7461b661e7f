//! Images that lie.

use crate::common::{SMALL, Shape, tree};
use nabla_iso::{
    Entry, Error, Extractor, ImageBuilder,
    reader::{ReadError, Volume},
};
use std::{fs, io, os::unix::ffi::OsStrExt};

fn image() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    tree(directory.path(), Shape { many: 20, sparse: 2 << 20, link: 3000, ..SMALL });
    let mut bytes = Vec::new();
    ImageBuilder::new()
        .directory(directory.path())
        .joliet(true)
        .plan()
        .unwrap()
        .write_to(&mut bytes)
        .unwrap();
    bytes
}

/// Reads everything that can be read. How it ends does not matter, only that it does.
fn read_all(bytes: &[u8]) -> Result<(), ReadError<io::Error>> {
    let volume = Volume::open(bytes)?;
    let _ = volume.verify();
    let mut buffer = [0; 4096];
    let mut walk = volume.walk(volume.root())?;
    while let Some(entry) = walk.next() {
        let entry = entry?;
        let _ = volume.read_link(&entry.node, &mut buffer);
        let _ = volume.read_file(&entry.node, entry.node.size / 2, &mut buffer);
        let _ = volume.lookup(walk.path().as_os_str().as_bytes());
    }
    Ok(())
}

#[test]
fn images_that_are_cut_off_anywhere_are_errors() {
    let bytes = image();
    assert!(read_all(&bytes).is_ok());
    for sectors in (0..100).chain((100..bytes.len() / 2048).step_by(37)) {
        for more in [0, 1000] {
            let cut = &bytes[..(sectors * 2048 + more).min(bytes.len())];
            assert!(Volume::open(cut).is_err() || !Volume::open(cut).unwrap().verify().problems.is_empty());
        }
    }
}

#[test]
fn every_byte_of_the_structures_may_be_anything() {
    let bytes = ImageBuilder::new()
        .entry("/a/b/c/d/e/f/g/h/i", Entry::bytes(*b"deep"))
        .entry("/a/link", Entry::symlink("b/../../x"))
        .entry(format!("/{}", "n".repeat(255)), Entry::symlink("y".repeat(1000)))
        .plan()
        .unwrap();
    let mut image = Vec::new();
    bytes.write_to(&mut image).unwrap();
    for at in 16 * 2048..image.len() {
        let original = image[at];
        if original == 0 && at % 31 != 0 {
            continue;
        }
        for value in [0, 1, original ^ 0x80, 0xff] {
            image[at] = value;
            let _ = read_all(&image);
        }
        image[at] = original;
    }
}

/// Where the record with this identifier begins in an image.
fn record(image: &[u8], identifier: &[u8]) -> usize {
    // Behind the path tables, where it is, too.
    let at = image.windows(identifier.len()).rposition(|window| window == identifier).unwrap();
    at - 33
}

fn set_both(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    image[at + 4..at + 8].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn directories_in_circles_and_twice_are_refused() {
    let mut image = Vec::new();
    let plan = ImageBuilder::new()
        .entry("/outer/inner/file", Entry::bytes(*b"x"))
        .entry("/other", Entry::directory())
        .plan()
        .unwrap();
    plan.write_to(&mut image).unwrap();
    let inner = record(&image, b"INNER");
    let outer = record(&image, b"OUTER");
    let extent = u32::from_le_bytes(image[outer + 2..outer + 6].try_into().unwrap());
    let mut circle = image.clone();
    set_both(&mut circle, inner + 2, extent);
    let mut twice = image;
    let other = record(&twice, b"OTHER");
    set_both(&mut twice, other + 2, extent);
    for image in [&circle, &twice] {
        let volume = Volume::open(&image[..]).unwrap();
        assert!(volume.walk(volume.root()).unwrap().any(|entry| entry.is_err()));
        assert!(!volume.verify().problems.is_empty());
        let target = tempfile::tempdir().unwrap();
        let target = target.path().join("x");
        assert!(Extractor::new().extract(&volume, &target).is_err());
        assert!(!target.exists());
    }
}

#[test]
fn files_that_overlap_are_found() {
    let mut image = Vec::new();
    let plan = ImageBuilder::new()
        .entry("/one", Entry::bytes(vec![1; 9000]))
        .entry("/two", Entry::bytes(vec![2; 9000]))
        .plan()
        .unwrap();
    plan.write_to(&mut image).unwrap();
    let (one, two) = (record(&image, b"ONE.;1"), record(&image, b"TWO.;1"));
    let extent = u32::from_le_bytes(image[one + 2..one + 6].try_into().unwrap());
    set_both(&mut image, two + 2, extent + 1);
    let problems = Volume::open(&image[..]).unwrap().verify().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].path.to_str(), Some("/two"));
    assert!(problems[0].message.contains("/one"), "{problems:?}");
}

#[test]
fn bombs_are_not_unpacked() {
    let directory = tempfile::tempdir().unwrap();
    let mut builder = ImageBuilder::new().deduplicate(true);
    for number in 0..2000 {
        builder = builder.entry(format!("/{number}"), Entry::bytes(vec![5; 200_000]));
    }
    let volume = Volume::open(builder.plan().unwrap()).unwrap();
    let target = directory.path().join("x");
    let error = Extractor::new().extract(&volume, &target).unwrap_err();
    assert!(matches!(error, Error::Bomb { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    Extractor::new().limit(400_000_000).extract(&volume, &target).unwrap();
}

#[test]
fn what_a_killed_program_has_left_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let volume = Volume::open(ImageBuilder::new().entry("/x", Entry::bytes(*b"x")).plan().unwrap()).unwrap();
    fs::create_dir_all(directory.path().join(".x.nabla-iso-1-0.partial/y")).unwrap();
    Extractor::new().extract(&volume, directory.path().join("x")).unwrap();
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["x"]);
}

#[test]
fn nothing_is_unpacked_over_something() {
    let directory = tempfile::tempdir().unwrap();
    let volume = Volume::open(ImageBuilder::new().entry("/x", Entry::bytes(*b"x")).plan().unwrap()).unwrap();
    fs::write(directory.path().join("there"), "").unwrap();
    assert!(Extractor::new().extract(&volume, directory.path()).is_err());
    assert!(Extractor::new().extract(&volume, directory.path().join("there")).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn links_are_followed_within_the_image_and_not_for_ever() {
    let plan = ImageBuilder::new()
        .entry("/real/file", Entry::bytes(*b"here"))
        .entry("/abs", Entry::symlink("/real"))
        .entry("/up", Entry::symlink("../../../../real/file"))
        .entry("/real/back", Entry::symlink("../abs/./file"))
        .entry("/loop", Entry::symlink("loop"))
        .entry("/a/b/c/d/e/f/g/h/i/home", Entry::symlink("../../../../../../../../../real/file"))
        .plan()
        .unwrap();
    let volume = Volume::open(plan).unwrap();
    for path in [
        "/abs/file",
        "up",
        "/real/back",
        "/a/b/c/d/e/f/g/h/i/home",
        "real/../abs//file",
        "/a/b/c/d/e/f/g/h/../../../../../../../../up",
    ] {
        assert_eq!(volume.lookup(path.as_bytes()).unwrap().size, 4, "{path}");
    }
    assert!(matches!(volume.lookup(b"/loop"), Err(ReadError::TooManyLinks)));
    assert!(matches!(volume.lookup(b"/real/file/"), Err(ReadError::NotADirectory)));
    assert!(matches!(volume.lookup(b"/nothing"), Err(ReadError::NotFound)));
    assert!(volume.lookup_link(b"/loop").is_ok());
}
