//! Tar streams of all dialects are read as GNU tar and libarchive read them.

use crate::{
    archive::{Archive, Format, Header, part, seeds},
    checks,
};
use nabla_iso::{
    Error, ImageBuilder, Plan, Timestamp, WarningKind,
    reader::{Kind, Node, Volume},
};
use std::{
    fs,
    io::{Cursor, Read, Write},
};

/// The image of a stream, from a pipe and from a file.
fn plans(stream: &[u8]) -> [Result<Plan, Error>; 2] {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(stream).unwrap();
    [
        ImageBuilder::new().tar("tar", Cursor::new(stream.to_vec())).plan(),
        ImageBuilder::new().tar_file(file.path()).plan(),
    ]
}

/// Every path with its kind, size and the start of its contents or its target.
#[track_caller]
fn listed(stream: &[u8]) -> Vec<String> {
    let mut all = plans(stream).map(|plan| {
        let volume = Volume::open(plan.unwrap()).unwrap();
        let mut lines = Vec::new();
        let mut walk = volume.walk(volume.root()).unwrap();
        while let Some(entry) = walk.next() {
            let node = entry.unwrap().node;
            let path = walk.path().as_os_str().as_encoded_bytes().escape_ascii();
            let mut buffer = [0; 40];
            lines.push(match node.kind {
                Kind::File => {
                    let length = volume.read_file(&node, 0, &mut buffer).unwrap();
                    format!("{path} {} {}", node.size, buffer[..length].escape_ascii())
                }
                Kind::Symlink => {
                    format!("{path} -> {}", volume.read_link(&node, &mut buffer).unwrap().escape_ascii())
                }
                Kind::Directory => format!("{path}/"),
                _ => format!("{path} {}:{}", node.device.0, node.device.1),
            });
        }
        lines.sort();
        lines
    });
    let [stream, file] = &mut all;
    assert_eq!(stream, file);
    std::mem::take(stream)
}

fn node(stream: &[u8], path: &str) -> Node {
    let [plan, _] = plans(stream);
    Volume::open(plan.unwrap()).unwrap().lookup(path.as_bytes()).unwrap()
}

/// Why a stream is refused, the same from a pipe and from a file.
#[track_caller]
fn refused(stream: &[u8]) -> String {
    let [one, other] = plans(stream).map(|plan| {
        let error = plan.unwrap_err();
        let Error::Tar { source, .. } = &error else { panic!("{error:?}") };
        source.to_string()
    });
    assert_eq!(one, other);
    one
}

fn gnu(path: &[u8], kind: u8, size: usize) -> Header {
    Header::new(Format::Gnu, path, kind, size)
}

#[test]
fn numbers_may_be_blank_in_base_256_or_without_terminator() {
    // As npm pack leaves the owner.
    let blank = Header::new(Format::Ustar, b"f", b'0', 2).put(108, &[0; 8]).put(116, b"        ");
    let stream = Archive::new().add(blank, b"x\n").end();
    assert_eq!(listed(&stream), ["f 2 x\\n"]);
    assert_eq!((node(&stream, "f").uid, node(&stream, "f").gid), (0, 0));
    let large = gnu(b"f", b'0', 0)
        .put(108, b"\x80\0\0\0\x7f\xff\xff\xff")
        .put(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    let stream = Archive::new().add(large, b"").end();
    assert_eq!(node(&stream, "f").uid, 0x7fff_ffff);
    assert_eq!(node(&stream, "f").time, Some(Timestamp::from_seconds(-2)));
    let full = Header::new(Format::V7, b"f", b'0', 1).put(124, b"000000000001");
    assert_eq!(listed(&Archive::new().add(full, b"1").end()), ["f 1 1"]);
    for owner in [b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80\0\0\x01\0\0\0\0"] {
        let stream = Archive::new().add(gnu(b"f", b'0', 0).put(108, owner), b"").end();
        assert!(refused(&stream).contains("owner"));
    }
    let stream = Archive::new().add(gnu(b"f", b'0', 0).put(124, b"x"), b"").end();
    assert_eq!(refused(&stream), "its size is no number");
}

#[test]
fn checksums_may_be_of_signed_bytes_and_wrong_ones_are_refused() {
    let header = Header::new(Format::V7, b"f\xe4", b'0', 2);
    let stream = Archive::new().raw(&header.clone().sum(true)).raw(b"x\n").end();
    assert_eq!(listed(&stream), ["f\\xe4 2 x\\n"]);
    let mut stream = Archive::new().file("a", b"1").add(header, b"x\n").end();
    stream[1024] ^= 1;
    assert_eq!(refused(&stream), "the header at byte 1024 has a wrong checksum");
}

#[test]
fn directories_are_told_by_a_slash_and_may_have_a_size() {
    for format in [Format::V7, Format::Ustar, Format::Gnu, Format::Star] {
        let stream = Archive::new()
            .add(Header::new(format, b"d/", 0, 0), b"")
            .add(Header::new(format, b"d/f", 0, 1), b"1")
            .add(Header::new(format, b"e", b'5', 255), b"")
            .file("a", b"")
            .file("b", b"")
            .end();
        assert_eq!(listed(&stream), ["a 0 ", "b 0 ", "d/", "d/f 1 1", "e/"], "{format:?}");
    }
    // What GNU tar lists of a directory in an incremental archive does follow.
    let stream = Archive::new().add(gnu(b"d", b'D', 4), b"Yf\0\0").file("a", b"").end();
    assert_eq!(listed(&stream), ["a 0 ", "d/"]);
}

#[test]
fn links_may_have_a_size_with_or_without_a_body() {
    let link = |format, size| Header::new(format, b"z", b'1', size).link(b"a");
    for (header, body) in [
        (link(Format::Ustar, 600), &b""[..]),
        (link(Format::Ustar, 600), &[b'x'; 600]),
        (link(Format::Ustar, 5), b"12345"),
        (link(Format::Gnu, 600), b""),
        (Header::new(Format::Ustar, b"z", b'2', 9).link(b"a"), b""),
    ] {
        let stream = Archive::new().file("a", b"1").add(header, body).file("b", b"2").end();
        let found = listed(&stream);
        assert!(found.len() == 3 && found[1] == "b 1 2", "{found:?}");
    }
    let stream = Archive::new().add(link(Format::Ustar, 0), b"").end();
    assert!(refused(&stream).contains("not there"));
}

#[test]
fn paths_come_from_prefixes_long_names_and_pax_headers() {
    let prefix = |format, length| Header::new(format, b"name", b'0', 0).put(345, &b"p".repeat(length));
    assert_eq!(listed(&Archive::new().add(prefix(Format::Ustar, 3), b"").end()), ["ppp/", "ppp/name 0 "]);
    assert_eq!(listed(&Archive::new().add(prefix(Format::Star, 3), b"").end()), ["ppp/", "ppp/name 0 "]);
    assert_eq!(listed(&Archive::new().add(prefix(Format::V7, 3), b"").end()), ["name 0 "]);
    let long = "n".repeat(200);
    let stream = Archive::new()
        .add(gnu(b"././@LongLink", b'L', 201), &[long.as_bytes(), b"\0"].concat())
        .add(gnu(b"nnn", b'0', 1), b"1")
        .add(gnu(b"././@LongLink", b'K', 200), long.as_bytes())
        .add(gnu(b"link", b'2', 0).link(b"nnn"), b"")
        .pax(b'x', &[("path", b"from/pax\0rest"), ("mtime", b"-1.25"), ("uid", b"70000")])
        .add(gnu(b"short", b'0', 1), b"2")
        .pax(b'x', &[("path", b"first")])
        .pax(b'x', &[("mtime", b"x")])
        .file("own", b"")
        .end();
    let target = format!("link -> {}", &long[..40]);
    let found = {
        let [plan, _] = plans(&stream);
        let volume = Volume::open(plan.unwrap()).unwrap();
        let mut buffer = [0; 300];
        let node = volume.lookup_link(b"link").unwrap();
        format!(
            "link -> {}",
            std::str::from_utf8(&volume.read_link(&node, &mut buffer).unwrap()[..40]).unwrap()
        )
    };
    assert_eq!(found, target);
    assert_eq!((node(&stream, "from/pax").uid, node(&stream, &long).size), (70000, 1));
    assert_eq!(node(&stream, "from/pax").time.unwrap().seconds, -2);
    assert_eq!(node(&stream, "own").uid, 1);
}

#[test]
fn global_headers_last_until_others_and_values_may_be_anything() {
    let stream = Archive::new()
        .pax(b'g', &[("uid", b"7"), ("gid", b"8")])
        .file("a", b"")
        .pax(b'x', &[("uid", b"9"), ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n\n7 a=b\n\0")])
        .file("b", b"")
        .pax(b'g', &[("uid", b"")])
        .file("c", b"")
        .end();
    let owners = ["a", "b", "c"].map(|path| (node(&stream, path).uid, node(&stream, path).gid));
    assert_eq!(owners, [(7, 8), (9, 8), (1, 8)]);
}

#[test]
fn sparse_files_of_all_formats_come_back_with_their_holes() {
    let mut more = [0; 512];
    more[..24].copy_from_slice(&part(2048, 2));
    let old = gnu(b"old", b'S', 4).put(386, &part(1024, 2)).put(482, b"\x01").put(483, b"00000010000\0");
    let mut stream = Archive::new().raw(&old.sum(false)).raw(&more).raw(b"abcd");
    let star = Header::new(Format::Star, b"star", b'S', 4)
        .put(356, &part(1024, 2))
        .put(380, &part(2048, 2))
        .put(452, b"00000010000\0");
    stream = stream.add(star, b"abcd");
    stream = stream
        .pax(
            b'x',
            &[
                ("GNU.sparse.size", b"4096"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"1024"),
                ("GNU.sparse.numbytes", b"2"),
                ("GNU.sparse.offset", b"2048"),
                ("GNU.sparse.numbytes", b"2"),
            ],
        )
        .file("v00", b"abcd")
        .pax(
            b'x',
            &[
                ("GNU.sparse.size", b"4096"),
                ("GNU.sparse.map", b"1024,2,2048,2"),
                ("GNU.sparse.name", b"v01"),
            ],
        )
        .file("GNUSparseFile.0/v01", b"abcd");
    let v10 = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"v10")];
    let map = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(512, 0);
        [bytes, b"abcd".to_vec()].concat()
    };
    // libarchive says the file's size where that of the data belongs, and a map may have comments.
    for (name, size, text) in [
        ("v10", "516", "2\n1024\n2\n2048\n2\n"),
        ("v10-libarchive", "4096", "#!gnu-sparse-format\n#format:1.0\n3\n1024\n2\n2048\n2\n4096\n0\n"),
    ] {
        let records = [
            v10[0],
            v10[1],
            ("GNU.sparse.name", name.as_bytes()),
            ("GNU.sparse.realsize", b"4096"),
            ("size", size.as_bytes()),
        ];
        stream = stream.pax(b'x', &records).file("GNUSparseFile.0/x", &map(text));
    }
    let stream = stream.file("after", b"1").end();
    for plan in plans(&stream) {
        let volume = Volume::open(plan.unwrap()).unwrap();
        assert_eq!(volume.lookup(b"after").unwrap().size, 1);
        for name in ["old", "star", "v00", "v01", "v10", "v10-libarchive"] {
            let mut contents = Vec::new();
            volume.open_file(name.as_bytes()).unwrap().read_to_end(&mut contents).unwrap();
            let mut expected = vec![0; 4096];
            expected[1024..1026].copy_from_slice(b"ab");
            expected[2048..2050].copy_from_slice(b"cd");
            assert!(contents == expected, "{name}");
        }
    }
    for (text, why) in
        [("1\n0\n9\n", "more bytes"), ("2\n5\n1\n2\n1\n", "map"), ("x\n", "map"), ("1\n0\n5000\n", "map")]
    {
        let records = [v10[0], v10[1], ("GNU.sparse.realsize", b"4096")];
        let stream = Archive::new().pax(b'x', &records).file("x", &map(text)).end();
        assert!(refused(&stream).contains(why), "{text:?}");
    }
    let stream = Archive::new()
        .pax(b'x', &[("GNU.sparse.major", b"2"), ("GNU.sparse.realsize", b"1")])
        .file("x", b"")
        .end();
    assert!(refused(&stream).contains("not known"));
}

#[test]
fn what_aufs_hides_is_hidden_and_can_be_linked_to() {
    let directory = |path: &[u8]| Header::new(Format::Ustar, path, b'5', 0);
    let stream = Archive::new()
        .add(directory(b".wh..wh.plnk"), b"")
        .add(directory(b".wh..wh.orph"), b"")
        .file(".wh..wh.plnk/94.5", b"hello")
        .add(Header::new(Format::Ustar, b"a", b'1', 0).link(b".wh..wh.plnk/94.5"), b"")
        .add(Header::new(Format::Ustar, b"b", b'1', 0).link(b"./.wh..wh.plnk/94.5"), b"")
        .file(".wh..wh.aufs", b"")
        .end();
    assert_eq!(listed(&stream), ["a 5 hello", "b 5 hello"]);
    assert_eq!(node(&stream, "a").links, 2);
    let stream =
        Archive::new().add(Header::new(Format::Ustar, b"a", b'1', 0).link(b".wh..wh.plnk/1"), b"").end();
    assert!(refused(&stream).contains("not there"));
}

#[test]
fn unknown_types_are_files_labels_and_lists_are_skipped_and_volumes_refused() {
    let stream = Archive::new()
        .add(gnu(b"label", b'V', 0), b"")
        .add(Header::new(Format::Ustar, b"acl", b'A', 5), b"12345")
        .add(Header::new(Format::Ustar, b"what", b'Q', 3), b"abc")
        .add(Header::new(Format::Ustar, b"contiguous", b'7', 1), b"1")
        .end();
    assert_eq!(listed(&stream), ["contiguous 1 1", "what 3 abc"]);
    let [plan, _] = plans(&stream);
    assert_eq!(plan.unwrap().warnings()[0].kind, WarningKind::UnknownTarEntry);
    let stream = Archive::new().add(gnu(b"part", b'M', 3), b"abc").end();
    assert!(refused(&stream).contains("another volume"));
}

#[test]
fn streams_may_end_without_zeros_but_not_within_anything() {
    let whole = Archive::new().file("a", b"12345").0;
    assert_eq!(listed(&whole), ["a 5 12345"]);
    // The last block need not be full.
    assert_eq!(listed(&whole[..512 + 5]), ["a 5 12345"]);
    for length in [1, 100, 511, 513, 516] {
        let why = refused(&whole[..length]);
        assert!(why.contains("cut off") || why.contains("no tar archive"), "{length}: {why}");
    }
    assert_eq!(listed(b""), Vec::<String>::new());
    assert_eq!(listed(&[0; 512]), Vec::<String>::new());
    let pending = Archive::new().file("a", b"1").pax(b'x', &[("path", b"b")]);
    assert!(refused(&pending.0).contains("ends after a header"));
    for (start, what) in [
        (&b"\x1f\x8b\x08"[..], "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PK\x03\x04", "zip"),
        (b"LZIP", "lzip"),
    ] {
        assert!(refused(&[start, &[1; 600]].concat()).contains(what));
    }
    // Another archive may follow the end of the first, which nobody reads.
    let two = [Archive::new().file("a", b"1").end(), Archive::new().file("b", b"2").end()].concat();
    assert_eq!(listed(&two), ["a 1 1"]);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let path = "d/".repeat(100_000);
    let stream = Archive::new().pax(b'x', &[("path", path.as_bytes())]).file("x", b"").end();
    assert!(refused(&stream).contains("its path has 200000 bytes"));
    let used = crate::mutations::peak(|| {
        for claimed in [80 << 20, (1_u64 << 33) - 1] {
            let header = gnu(b"././@LongLink", b'L', 0).put(124, format!("{claimed:011o}\0").as_bytes());
            let stream = Archive::new().raw(&header.sum(false)).end();
            assert!(refused(&stream).contains("may have 1048576"));
        }
    });
    assert!(used < 4 << 20, "{used}");
    let claims = gnu(b"f", b'0', 0).put(124, b"77777777777\0");
    assert!(refused(&Archive::new().add(claims, b"").end()).contains("cut off"));
}

/// A header of 512 bytes that claims a TiB is a hole, which takes neither time nor room.
#[test]
fn a_sparse_file_that_claims_a_tebibyte_is_planned_and_written_as_a_hole() {
    let size = 1_u64 << 40;
    let [mut high, low] = [[0_u8; 12]; 2];
    high[0] = 0x80;
    high[4..].copy_from_slice(&size.to_be_bytes());
    let header = gnu(b"huge", b'S', 3).put(386, &part(0, 3)).put(483, &high).put(410, &low);
    let stream = Archive::new().add(header, b"abc").end();
    let directory = tempfile::tempdir().unwrap();
    for plan in plans(&stream) {
        let plan = plan.unwrap();
        let image = directory.path().join("image.iso");
        plan.write_file(&image).unwrap();
        let metadata = fs::metadata(&image).unwrap();
        assert!(metadata.len() > size);
        assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 < 4 << 20);
    }
}

#[test]
fn mutated_streams_do_no_harm() {
    let mut random = crate::mutations::Random::new();
    let seeds = seeds();
    for (name, stream) in &seeds {
        checks::tar(stream);
        assert!(plans(stream).iter().all(Result::is_ok), "{name}");
    }
    for _ in 0..2000 {
        let mut stream = seeds[random.below(seeds.len())].1.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(stream.len());
            let length = [1, 8, 12, 512][random.below(4)].min(stream.len() - at);
            match random.below(4) {
                0 => stream[at] = random.next().to_le_bytes()[0],
                1 => stream[at..at + length].fill([b' ', b'7', 0xff, 0][random.below(4)]),
                2 => stream.copy_within(at..at + length, random.below(at + 1)),
                _ => stream.truncate(at.max(1)),
            }
        }
        // Most are only interesting with the right checksums.
        for block in stream.as_chunks_mut::<512>().0 {
            if block[148..155].iter().all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0)) && block[148] != 0 {
                *block = Header(*block).sum(false);
            }
        }
        checks::tar(&stream);
    }
}
