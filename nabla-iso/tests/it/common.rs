//! What the tests of images share.

use rustix::fs::{self as sys, AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What of a tree depends on the machine.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Files in one directory.
    pub many: u32,
    /// Bytes of the file with a hole.
    pub sparse: u64,
    /// Bytes of the longest symbolic link's target.
    pub link: usize,
    /// Devices, owners and names that are not UTF-8.
    pub odd: bool,
}

pub const SMALL: Shape = Shape { many: 300, sparse: 3 << 20, link: 4095, odd: true };

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    sys::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes a tree with every kind of entry. All times are the same on every call.
pub fn tree(root: &Path, shape: Shape) {
    let file = |name: &[u8], contents: &[u8], mode: u32| {
        let path = root.join(OsStr::from_bytes(name));
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir_all(root).unwrap();
    file(b"plain", b"hello\n", 0o644);
    file(b"empty", b"", 0o600);
    file(b"setuid", b"x", 0o4755);
    file(b"setgid", b"y", 0o2711);
    file(&[b'n'; 255], b"long", 0o644);
    file("h\u{e9}llo w\u{f6}rld \u{20ac}".as_bytes(), b"utf-8", 0o640);
    for name in ["Collide", "COLLIDE", "collide", "collide.", "a.b.c", "a_b.c", "A.B.C"] {
        file(name.as_bytes(), name.as_bytes(), 0o644);
    }
    fs::create_dir(root.join("sticky")).unwrap();
    fs::set_permissions(root.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    let mut deep = root.to_owned();
    for level in 0..20 {
        deep.push(format!("d{level}"));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("f"), format!("level {level}")).unwrap();
    }
    // Deep directories with the same names, and some without files.
    fs::create_dir_all(root.join("d0/1/2/3/4/5/d6/d7/d8/9/10/11/12/13/14/15/16/17")).unwrap();
    fs::hard_link(root.join("plain"), root.join("hard")).unwrap();
    fs::hard_link(root.join("plain"), root.join("sticky/hard")).unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink(".././../a/b", root.join("link-up")).unwrap();
    let target: String = "/abcdefghi".chars().cycle().take(shape.link).collect();
    symlink(target, root.join("link-long")).unwrap();
    sys::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    if shape.odd {
        file(b"\xff\xfe not utf-8", b"bytes", 0o644);
    }
    if shape.odd && nabla_testkit::need::root() {
        let device = |name, kind, major, minor| {
            sys::mknodat(CWD, root.join(name), kind, Mode::RUSR | Mode::WUSR, sys::makedev(major, minor))
                .unwrap();
        };
        device("character", FileType::CharacterDevice, 5, 1);
        device("block", FileType::BlockDevice, 8, 17);
        std::os::unix::fs::chown(root.join("setgid"), Some(1000), Some(70_000)).unwrap();
        // Which takes the bit away.
        fs::set_permissions(root.join("setgid"), fs::Permissions::from_mode(0o2711)).unwrap();
    }
    fs::create_dir(root.join("many")).unwrap();
    for number in 0..shape.many {
        fs::write(root.join(format!("many/file {number:06}.txt")), format!("{number}")).unwrap();
    }
    let mut sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(shape.sparse).unwrap();
    sparse.seek(SeekFrom::Start(1 << 20)).unwrap();
    sparse.write_all(b"data").unwrap();
    sparse.seek(SeekFrom::End(-3)).unwrap();
    sparse.write_all(b"end").unwrap();
    drop(sparse);
    let large: Vec<u8> = (0..3_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    file(b"large", &large, 0o644);
    times(root);
    set_time(&root.join("plain"), 1_000_000_000);
    set_time(&root.join("empty"), -1_000_000_000);
    set_time(&root.join("a.b.c"), 4_000_000_000);
}

/// Gives everything below the same time, files before their directories.
fn times(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            times(&entry.unwrap().path());
        }
    }
    set_time(path, 1_700_000_000);
}

/// What is known about a file: everything that an image keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub owner: (u32, u32),
    pub seconds: i64,
    pub links: u64,
    pub device: u64,
    pub contents: Vec<u8>,
}

/// Everything in a tree by path.
pub fn seen(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let place = root.join(&path);
        let metadata = fs::symlink_metadata(&place).unwrap();
        let mut contents = Vec::new();
        if metadata.is_dir() {
            for entry in fs::read_dir(&place).unwrap() {
                pending.push(path.join(entry.unwrap().file_name()));
            }
        } else if metadata.is_symlink() {
            contents = fs::read_link(&place).unwrap().as_os_str().as_bytes().to_vec();
        } else if metadata.is_file() {
            contents = fs::read(&place).unwrap();
        }
        let seen = Seen {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            seconds: metadata.mtime(),
            // That of directories is a file system's own affair.
            links: if metadata.is_dir() { 0 } else { metadata.nlink() },
            device: metadata.rdev(),
            contents,
        };
        all.insert(path, seen);
    }
    all
}

/// Fails with the first difference, which is readable.
#[track_caller]
pub fn assert_same(one: &BTreeMap<PathBuf, Seen>, other: &BTreeMap<PathBuf, Seen>) {
    for path in one.keys().chain(other.keys()) {
        let (a, b) = (one.get(path), other.get(path));
        if a != b {
            let short = |seen: Option<&Seen>| {
                let cut = |seen: &Seen| Seen {
                    contents: seen.contents.iter().copied().take(40).collect(),
                    ..seen.clone()
                };
                seen.map(cut)
            };
            panic!("{}: {:?} and {:?}", path.display(), short(a), short(b));
        }
    }
}

/// Runs a program to its successful end.
#[track_caller]
pub fn run(program: &str, args: &[&OsStr]) -> Output {
    let output = Command::new(program).args(args).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
