//! Images as others make them, right or not: read as Linux, libarchive and xorriso read them, and named by `verify`.

use crate::common::run;
use nabla_iso::{
    Entry, Extractor, ImageBuilder,
    reader::{Encoding, ReadError, Volume},
};
use nabla_testkit::need;
use std::ffi::OsStr;

const PVD: usize = 16 * 2048;

/// An image with files "lower.txt", "d/f" and a link.
fn image(target: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let builder = ImageBuilder::new()
        .entry("/lower.txt", Entry::bytes(*b"hi\n"))
        .entry("/d/f", Entry::bytes(vec![b'x'; 3000]))
        .entry("/link", Entry::symlink(target));
    builder.plan().unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn le32(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
}

/// Where the records of the root directory are.
fn records(image: &[u8]) -> Vec<usize> {
    let mut at = le32(image, PVD + 158) as usize * 2048;
    let mut found = Vec::new();
    while image[at] != 0 {
        found.push(at);
        at += usize::from(image[at]);
    }
    found
}

/// Where an entry of the system use area is in a record.
fn entry(image: &[u8], record: usize, signature: &[u8; 2]) -> usize {
    let bytes = &image[record..record + usize::from(image[record])];
    record + bytes.windows(2).position(|window| window == signature).unwrap()
}

/// Reads what is in the image, and returns what is said to be wrong with it.
#[track_caller]
fn reads(image: &[u8]) -> Vec<String> {
    let volume = Volume::open(image).unwrap();
    for (path, expected) in [("/lower.txt", "hi\n"), ("/d/f", &"x".repeat(3000))] {
        let text = std::io::read_to_string(volume.open_file(path.as_bytes()).unwrap()).unwrap();
        assert!(text == expected, "{path}: {text}");
    }
    assert_eq!(volume.walk(volume.root()).unwrap().map(Result::unwrap).count(), 4);
    volume.verify().problems.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn links_with_empty_components_and_roots_in_them_are_what_they_were() {
    // mkisofs and xorriso record an empty component with the flag of a root.
    for (target, empty) in [("usr//lib/x", 1), ("//usr/lib", 1), ("a///b", 2)] {
        let mut bytes = image(target);
        let record = records(&bytes)[3];
        let at = entry(&bytes, record, b"SL") + 5;
        let end = at - 5 + usize::from(bytes[at - 3]);
        let (mut part, mut changed) = (at, 0);
        while part < end {
            if bytes[part..part + 2] == [0, 0] {
                bytes[part] = 8;
                changed += 1;
            }
            part += 2 + usize::from(bytes[part + 1]);
        }
        assert_eq!(changed, empty, "{target}");
        let volume = Volume::open(&bytes[..]).unwrap();
        let mut buffer = [0; 100];
        let node = volume.lookup_link(b"/link").unwrap();
        assert_eq!(volume.read_link(&node, &mut buffer).unwrap().escape_ascii().to_string(), target);
    }
}

#[test]
fn compressed_and_interleaved_files_are_refused_and_not_given_wrong() {
    let mut bytes = image("x");
    let record = records(&bytes)[4];
    let at = entry(&bytes, record, b"TF");
    bytes[at..at + 2].copy_from_slice(b"ZF");
    let mut interleaved = image("x");
    interleaved[record + 26] = 1;
    for (bytes, encoding) in [(bytes, Encoding::Zisofs), (interleaved, Encoding::Interleaved)] {
        let volume = Volume::open(&bytes[..]).unwrap();
        let node = volume.lookup(b"/lower.txt").unwrap();
        assert_eq!(node.encoding, encoding);
        let error = volume.read_file(&node, 0, &mut [0; 10]).unwrap_err();
        assert!(matches!(error, ReadError::Encoded(found) if found == encoding), "{error}");
        assert!(error.to_string().contains("not supported"));
        // The others are there.
        assert_eq!(volume.lookup(b"/d/f").unwrap().size, 3000);
        let target = tempfile::tempdir().unwrap();
        assert!(Extractor::new().extract(&volume, target.path().join("x")).is_err());
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
    }
}

#[test]
fn odd_numbers_and_records_are_read_and_named() {
    assert_eq!(reads(&image("x")), Vec::<String>::new());
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 12] = [
        ("root directory's record", |image| image[PVD + 156] = 68),
        ("root directory's record", |image| image[PVD + 156 + 25] = 0),
        ("root directory's record", |image| image[PVD + 156 + 32] = 9),
        ("volume descriptor differs", |image| image[PVD + 84..PVD + 88].fill(0xff)),
        ("volume descriptor differs", |image| image[PVD + 130] = 1),
        ("unknown version", |image| image[PVD + 6] = 9),
        ("length differs", |image| each(image, |record| record[14..18].fill(0xff))),
        ("location differs", |image| each(image, |record| record[6..10].fill(0xff))),
        ("another volume", |image| each(image, |record| record[28..32].copy_from_slice(&[2, 0, 0, 2]))),
        ("flags that say it is none", |image| {
            let at = entry(image, records(image)[4], b"NM");
            image[at + 4] |= 2;
        }),
        ("Rock Ridge differs", |image| {
            let at = entry(image, records(image)[4], b"PX");
            image[at + 8] ^= 1;
        }),
        ("after the volume's end", |image| {
            image[PVD + 80..PVD + 88].copy_from_slice(&[20, 0, 0, 0, 0, 0, 0, 20]);
        }),
    ];
    for (expected, change) in changes {
        let mut bytes = image("x");
        change(&mut bytes);
        let problems = reads(&bytes);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
    }
}

/// Changes all records of the root directory.
fn each(image: &mut [u8], change: impl Fn(&mut [u8])) {
    for at in records(image) {
        let end = at + usize::from(image[at]);
        change(&mut image[at..end]);
    }
}

#[test]
fn descriptors_without_terminator_and_broken_joliet_ones_are_read() {
    let mut bytes = image("x");
    bytes[PVD + 2048..PVD + 4096].fill(0);
    assert_eq!(reads(&bytes), Vec::<String>::new());
    let mut joliet = Vec::new();
    ImageBuilder::new()
        .entry("/a", Entry::bytes(*b"1"))
        .joliet(true)
        .plan()
        .unwrap()
        .write_to(&mut joliet)
        .unwrap();
    joliet[PVD + 2048 + 128] = 3;
    assert_eq!(Volume::open(&joliet[..]).unwrap().lookup(b"/a").unwrap().size, 1);
}

#[test]
fn rock_ridge_without_its_mark_is_found() {
    let mut bytes = image("x");
    let dot = records(&bytes)[0];
    // The entry that marks the protocol goes, and PX is the first.
    let length = usize::from(bytes[dot]);
    bytes.copy_within(dot + 41..dot + length, dot + 34);
    bytes[dot + length - 7..dot + length].fill(0);
    assert_eq!(reads(&bytes), Vec::<String>::new());
}

#[test]
fn blocks_of_512_and_1024_bytes_are_read() {
    for (size, factor) in [(512_u16, 4), (1024, 2)] {
        let mut bytes = image("x");
        let scale = |bytes: &mut Vec<u8>, at: usize| {
            let value = le32(bytes, at) * factor;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&value.to_be_bytes());
        };
        let mut all = records(&bytes);
        let below = le32(&bytes, all[2] + 2) as usize * 2048;
        let mut at = below;
        while bytes[at] != 0 {
            all.push(at);
            at += usize::from(bytes[at]);
        }
        for record in all {
            if le32(&bytes, record + 2) > 0 {
                scale(&mut bytes, record + 2);
            }
            let end = record + usize::from(bytes[record]);
            if let Some(at) = bytes[record..end].windows(4).position(|window| window == b"CE\x1c\x01") {
                scale(&mut bytes, record + at + 4);
            }
        }
        for (table, little) in [(PVD + 140, true), (PVD + 148, false)] {
            let number = |bytes: &[u8], at: usize| {
                let four = bytes[at..at + 4].try_into().unwrap();
                if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
            };
            let form = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
            let start = number(&bytes, table) as usize * 2048;
            for at in [start, start + 10] {
                let value = number(&bytes, at + 2) * factor;
                bytes[at + 2..at + 6].copy_from_slice(&form(value));
            }
            let value = number(&bytes, table) * factor;
            bytes[table..table + 4].copy_from_slice(&form(value));
        }
        scale(&mut bytes, PVD + 80);
        scale(&mut bytes, PVD + 158);
        bytes[PVD + 128..PVD + 130].copy_from_slice(&size.to_le_bytes());
        bytes[PVD + 130..PVD + 132].copy_from_slice(&size.to_be_bytes());
        assert_eq!(reads(&bytes), Vec::<String>::new());
    }
}

#[test]
fn names_of_others_are_made_such_that_they_can_be_used() {
    let mut bytes = image("x");
    // Without Rock Ridge, there are the names of ECMA-119.
    let dot = records(&bytes)[0];
    let at = entry(&bytes, dot, b"SP");
    bytes[at..at + 2].copy_from_slice(b"XX");
    let name = records(&bytes)[4] + 33;
    assert_eq!(&bytes[name..name + 11], b"LOWER.TXT;1");
    bytes[name + 2] = b'/';
    let volume = Volume::open(&bytes[..]).unwrap();
    assert_eq!(volume.lookup(b"/LO.ER.TXT").unwrap().size, 3);
}

#[test]
fn the_smallest_image_is_large_enough_for_libarchive() {
    let plan = ImageBuilder::new().entry("/f", Entry::bytes(*b"hi\n")).plan().unwrap();
    assert!(plan.size() >= 48 << 10);
    let mut bytes = Vec::new();
    plan.write_to(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, plan.size());
    assert_eq!(Volume::open(&bytes[..]).unwrap().verify().problems, []);
    if need::program("bsdtar") {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.iso");
        plan.write_file(&path).unwrap();
        let output = run("bsdtar", &[OsStr::new("tf"), path.as_os_str()]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), ".\nf\n");
    }
}
