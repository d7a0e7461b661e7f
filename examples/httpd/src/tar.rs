//! A file system that is an uncompressed tar archive, as `tar --format=ustar` makes it.
//!
//! Source: POSIX.1-2017, pax, "ustar Interchange Format".

use crate::files::{Entry, File, Files};
use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

const BLOCK: u64 = 512;

/// What an archive is read from: a disk.
pub trait Disk: Clone {
    /// Why it cannot be read.
    type Error: fmt::Display;

    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// When that is not possible.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// An archive, of which it is known where each file is.
#[derive(Debug)]
pub struct Tar<D> {
    disk: D,
    entries: BTreeMap<String, Entry<(u64, u64)>>,
}

/// An archive that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum TarError<E> {
    /// The disk cannot be read.
    Disk(E),
    /// This is no archive, or a damaged one.
    Header {
        /// Where, in bytes from the start.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl<E: fmt::Display> fmt::Display for TarError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Header { offset, what } => {
                write!(f, "the disk is no tar archive: at byte {offset}, {what}")
            }
        }
    }
}

impl<D: Disk> Tar<D> {
    /// Reads the headers of an archive.
    ///
    /// # Errors
    ///
    /// When the disk cannot be read, or is no archive.
    pub fn open(disk: D) -> Result<Self, TarError<D::Error>> {
        let mut entries = BTreeMap::new();
        entries.insert(String::new(), Entry::Directory);
        let (mut offset, mut header) = (0, [0; 512]);
        loop {
            let fail = |what| TarError::Header { offset, what };
            let data = offset.checked_add(BLOCK).filter(|&end| end <= disk.size());
            let Some(data) = data else { return Err(fail("it ends without an end mark")) };
            disk.read_at(offset, &mut header).map_err(TarError::Disk)?;
            if header.iter().all(|&byte| byte == 0) {
                return Ok(Self { disk, entries });
            }
            check(&header).map_err(fail)?;
            let size = octal(&header[124..136]).ok_or(fail("a size is no number"))?;
            let end = data.checked_add(size).filter(|&end| end <= disk.size());
            let end = end.ok_or(fail("a file is longer than the disk"))?;
            if let Some(name) = name(&header) {
                match header[156] {
                    b'0' | 0 => {
                        entries.insert(name, Entry::File((data, size)));
                    }
                    b'5' => {
                        entries.insert(name, Entry::Directory);
                    }
                    // Links and devices are nothing that could be served.
                    _ => {}
                }
            }
            offset = end.next_multiple_of(BLOCK);
        }
    }

    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> usize {
        self.entries.values().filter(|entry| matches!(entry, Entry::File(_))).count()
    }
}

fn check(header: &[u8; 512]) -> Result<(), &'static str> {
    if &header[257..262] != b"ustar" {
        return Err("there is no header");
    }
    let sum = header
        .iter()
        .enumerate()
        .map(|(i, &byte)| if (148..156).contains(&i) { 32 } else { u64::from(byte) });
    if octal(&header[148..156]) != Some(sum.sum()) { Err("a checksum is wrong") } else { Ok(()) }
}

/// Octal digits that end with a space or a zero.
fn octal(field: &[u8]) -> Option<u64> {
    let digits =
        field.iter().skip_while(|&&byte| byte == b' ').take_while(|&&byte| byte != b' ' && byte != 0);
    digits.copied().try_fold(0_u64, |number, byte| {
        let digit = char::from(byte).to_digit(8)?;
        number.checked_mul(8)?.checked_add(digit.into())
    })
}

/// The path without the slashes and dots that archives start and end with; `None` if it is none in UTF-8.
fn name(header: &[u8; 512]) -> Option<String> {
    let text = |field: &[u8]| field.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
    let mut path = text(&header[345..500]);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(text(&header[..100]));
    let path = String::from_utf8(path).ok()?;
    let names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    Some(names.join("/"))
}

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarFile<D> {
    disk: D,
    offset: u64,
    size: u64,
}

impl<D: Disk> Files for Tar<D> {
    type File = TarFile<D>;
    type Error = D::Error;

    fn open(&self, path: &str) -> Result<Entry<Self::File>, Self::Error> {
        Ok(match self.entries.get(path) {
            Some(&Entry::File((offset, size))) => {
                Entry::File(TarFile { disk: self.disk.clone(), offset, size })
            }
            Some(Entry::Directory) => Entry::Directory,
            Some(Entry::Missing) | None => {
                // Archives need not have entries for the directories of their files.
                let start = path.to_string() + "/";
                match self.entries.range(start.clone()..).next() {
                    Some((name, _)) if name.starts_with(&start) => Entry::Directory,
                    _ => Entry::Missing,
                }
            }
        })
    }
}

impl<D: Disk> File for TarFile<D> {
    type Error = D::Error;

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        // The sum is within the disk, as `Tar::open` has checked, for whatever is within the file.
        self.disk.read_at(self.offset.saturating_add(offset), buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command, rc::Rc};

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Memory(Rc<[u8]>);

    impl Disk for Memory {
        type Error = &'static str;

        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
            let start = usize::try_from(offset).map_err(|_| "offset")?;
            let bytes = start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end));
            buffer.copy_from_slice(bytes.ok_or("beyond the end")?);
            Ok(())
        }
    }

    fn archive() -> Vec<u8> {
        let thread = std::thread::current().id();
        let name = std::format!("httpd-tar-{}-{thread:?}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let long = "a".repeat(90);
        fs::create_dir_all(directory.join("sub").join(&long)).unwrap();
        fs::write(directory.join("index.html"), "hello").unwrap();
        fs::write(directory.join("sub").join(&long).join("long.txt"), [7; 1000]).unwrap();
        fs::write(directory.join("empty"), "").unwrap();
        let mut command = Command::new("tar");
        let output = command.args(["--format=ustar", "-cC"]).arg(&directory).arg(".").output().unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn open(bytes: Vec<u8>) -> Result<Tar<Memory>, TarError<&'static str>> {
        Tar::open(Memory(bytes.into()))
    }

    #[test]
    fn files_of_a_real_archive_are_found() {
        let tar = open(archive()).unwrap();
        assert_eq!(tar.files(), 3);
        let Entry::File(file) = tar.open("index.html").unwrap() else { panic!("not found") };
        let mut text = [0; 5];
        file.read_at(0, &mut text).unwrap();
        assert_eq!((&text, file.size()), (b"hello", 5));
        let long = std::format!("sub/{}/long.txt", "a".repeat(90));
        assert!(matches!(tar.open(&long), Ok(Entry::File(file)) if file.size() == 1000));
        for directory in ["", "sub"] {
            assert_eq!(tar.open(directory), Ok(Entry::Directory));
        }
        for missing in ["index", "index.html/x", "su", "sub/a", "x"] {
            assert_eq!(tar.open(missing), Ok(Entry::Missing), "{missing}");
        }
    }

    #[test]
    fn damaged_archives_are_errors_and_no_panics() {
        let good = archive();
        assert!(open(Vec::new()).is_err() && open(vec![1; 4096]).is_err());
        assert!(open(good[..1536].to_vec()).is_err());
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let mut bytes = good.clone();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % bytes.len();
                bytes[at] ^= u8::try_from(state >> 24 & 0xff).unwrap();
            }
            if let Ok(tar) = open(bytes) {
                let _ = tar.open("index.html");
            }
        }
    }
}
