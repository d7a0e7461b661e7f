//! Layers of container images: tar streams with whiteouts (OCI image specification, "Image Layer Filesystem Changeset").

use super::{
    blob::{Blob, BlobSource},
    filter::{Excludes, Overrides},
    path,
    sparse::pax_sparse,
    spool::Spool,
    tree::{Content, Metadata, ROOT, Tree},
};
use crate::{
    error::{Error, Warning, WarningKind},
    format::{SYMLINK_MAX, Timestamp, rock_ridge as rr},
    progress::{Phase, Progress, Reporter},
};
use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use tar::{Archive, Entries, EntryType};

/// A file of this name in a layer removes what lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// A file whose name starts so removes the file of the rest of the name, which is in a lower layer.
const WHITEOUT: &[u8] = b".wh.";

/// How compressed streams begin.
const COMPRESSED: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
];
const LONGEST_MAGIC: usize = 6;

/// How to read a layer.
#[derive(Debug)]
pub struct Layer<'a> {
    /// What to call it in errors.
    pub name: String,
    pub excludes: &'a Excludes,
    pub overrides: &'a Overrides,
    /// The time of directories that are not in the stream.
    pub time: Timestamp,
    /// The number of the open file that it is read from, if that is so and its bytes can be taken from there later.
    pub file: Option<u32>,
    pub reporter: &'a Reporter,
}

type TarEntry<'a> = tar::Entry<'a, Box<dyn Read + Send>>;

/// What an entry says about its file, with what extended headers say instead.
struct Attributes {
    metadata: Metadata,
    /// The file is in PAX's sparse format, version 1.0: its name and its size.
    sparse: Option<(Option<Vec<u8>>, u64)>,
}

impl Layer<'_> {
    fn failed(&self, source: io::Error) -> Error {
        Error::Tar { name: self.name.clone(), source }
    }

    fn broken(&self, path: &[u8], why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let name = format!("'{}' in {}", Path::new(OsStr::from_bytes(path)).display(), self.name);
        Error::Tar { name, source: io::Error::new(io::ErrorKind::InvalidData, why) }
    }

    /// The stream, unless it begins as compressed ones do.
    fn not_compressed(&self, mut stream: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, Error> {
        let mut start = Vec::with_capacity(LONGEST_MAGIC);
        stream
            .by_ref()
            .take(LONGEST_MAGIC as u64)
            .read_to_end(&mut start)
            .map_err(|error| self.failed(error))?;
        if let Some((_, name)) = COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)) {
            let why = format!("it is compressed with {name}, and is to be unpacked before");
            return Err(self.failed(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        Ok(Box::new(io::Cursor::new(start).chain(stream)))
    }

    /// Adds everything in the stream to the tree, on top of what is there.
    pub fn add(
        &self,
        tree: &mut Tree,
        spool: &mut Option<Spool>,
        stream: Box<dyn Read + Send>,
    ) -> Result<(), Error> {
        let mut archive = Archive::new(self.not_compressed(stream)?);
        let entries: Entries<'_, _> = archive.entries().map_err(|error| self.failed(error))?;
        for (files, entry) in entries.enumerate() {
            let mut entry = entry.map_err(|error| self.failed(error))?;
            self.add_entry(tree, spool, &mut entry)?;
            self.reporter.report(Progress {
                phase: Phase::Scanning,
                files: files as u64 + 1,
                files_total: 0,
                bytes: 0,
                bytes_total: 0,
            })?;
        }
        Ok(())
    }

    fn add_entry(
        &self,
        tree: &mut Tree,
        spool: &mut Option<Spool>,
        entry: &mut TarEntry<'_>,
    ) -> Result<(), Error> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let Attributes { mut metadata, sparse } = self.attributes(entry)?;
        let mut bytes = entry.path_bytes().into_owned();
        if let Some((Some(name), _)) = &sparse {
            bytes.clone_from(name);
        }
        let names = path::names(&bytes)?;
        let implied = Metadata::implied(0o755, self.time);
        let Some((&name, parents)) = names.split_last() else {
            if kind.is_dir() {
                self.overrides.apply(rr::S_IFDIR, &mut metadata);
                let root = &mut tree.inodes[ROOT as usize];
                root.mode = rr::S_IFDIR | metadata.mode;
                (root.uid, root.gid, root.time) = (metadata.uid, metadata.gid, metadata.time.seconds);
            }
            return Ok(());
        };
        if self.left_out(&names) {
            return Ok(());
        }
        let directory = path::directory(tree, parents, &implied)?;
        if name == OPAQUE {
            remove_lower(tree, directory);
            return Ok(());
        }
        if let Some(removed) = name.strip_prefix(WHITEOUT) {
            match tree.find(directory, removed) {
                Some(old) if tree.entries[old as usize].layer < tree.layer => tree.remove(old),
                Some(_) => {}
                None => {
                    let path = PathBuf::from(OsStr::from_bytes(&bytes));
                    tree.warnings.push(Warning { path, kind: WarningKind::NothingToRemove });
                }
            }
            return Ok(());
        }
        let (kind, content) = match kind {
            EntryType::Directory => {
                self.overrides.apply(rr::S_IFDIR, &mut metadata);
                tree.put_directory(directory, name, &metadata)?;
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let blob = match sparse {
                    Some((_, size)) => {
                        let spool = Spool::of(spool, tree)?;
                        pax_sparse(spool, tree, entry, size)?
                    }
                    None => self.contents(tree, spool, entry)?,
                };
                let blob = blob.map_err(|error| self.broken(&bytes, error))?;
                (rr::S_IFREG, Content::File(tree.add_blob(blob)?))
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                if target.is_empty() || target.len() > SYMLINK_MAX {
                    return Err(self.broken(&bytes, "the target of a symbolic link has 1 to 4095 bytes"));
                }
                (rr::S_IFLNK, Content::Symlink(tree.intern(&target)?))
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                return self.hard_link(tree, &bytes, &target, directory, name);
            }
            EntryType::Char | EntryType::Block => {
                let header = entry.header();
                let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
                let (major, minor) = (number(header.device_major()), number(header.device_minor()));
                if minor > 255 {
                    let path = PathBuf::from(OsStr::from_bytes(&bytes));
                    tree.warnings.push(Warning { path, kind: WarningKind::LargeMinor });
                }
                let kind = if kind == EntryType::Char { rr::S_IFCHR } else { rr::S_IFBLK };
                (kind, Content::Device(rr::device_number(major, minor)))
            }
            EntryType::Fifo => (rr::S_IFIFO, Content::Fifo),
            _ => {
                let path = PathBuf::from(OsStr::from_bytes(&bytes));
                tree.warnings.push(Warning { path, kind: WarningKind::UnknownTarEntry });
                return Ok(());
            }
        };
        self.overrides.apply(kind, &mut metadata);
        let inode = tree.add_inode(kind, &metadata, content)?;
        tree.put(directory, name, inode)?;
        Ok(())
    }

    /// Whether the file or a directory that it is in is excluded.
    fn left_out(&self, names: &[&[u8]]) -> bool {
        (1..=names.len()).any(|end| {
            let path = names[..end].join(&b'/');
            self.excludes.matches(names[end - 1], &path)
        })
    }

    fn hard_link(
        &self,
        tree: &mut Tree,
        bytes: &[u8],
        target: &[u8],
        directory: u32,
        name: &[u8],
    ) -> Result<(), Error> {
        let missing = || self.broken(bytes, "it is a link to a file that is not there");
        let implied = Metadata::implied(0o755, self.time);
        let names = path::names(target)?;
        if self.left_out(&names) {
            return Err(self.broken(bytes, "it is a link to a file that is left out"));
        }
        let (place, target) = path::place(tree, target, &implied)?.ok_or_else(missing)?;
        let entry = tree.find(place, target).ok_or_else(missing)?;
        let inode = tree.entries[entry as usize].inode;
        if tree.is_directory(inode) {
            return Err(self.broken(bytes, "it is a link to a directory"));
        }
        if tree.find(directory, name) != Some(entry) {
            tree.put(directory, name, inode)?;
        }
        Ok(())
    }

    /// Where the contents of a regular file are, now or from now on.
    fn contents(
        &self,
        tree: &mut Tree,
        spool: &mut Option<Spool>,
        entry: &mut TarEntry<'_>,
    ) -> Result<io::Result<Blob>, Error> {
        if let Some(file) = self.file
            && entry.header().entry_type() != EntryType::GNUSparse
        {
            let source = BlobSource::Part { file, offset: entry.raw_file_position() };
            return Ok(Ok(Blob { size: entry.size(), extent: 0, sparse: false, source }));
        }
        let size = entry.size();
        let blob = Spool::of(spool, tree)?.add(tree, entry)?;
        Ok(blob.and_then(
            |blob| {
                if blob.size == size { Ok(blob) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            },
        ))
    }

    fn attributes(&self, entry: &mut TarEntry<'_>) -> Result<Attributes, Error> {
        let path = entry.path_bytes().into_owned();
        let header = entry.header();
        let number = |what, field: io::Result<u64>| {
            let field = field.map_err(|_| self.broken(&path, format!("its {what} is no number")))?;
            u32::try_from(field).map_err(|_| self.broken(&path, format!("its {what} is too large")))
        };
        let mode = header.mode().map_err(|_| self.broken(&path, "its mode is no number"))? & 0o7777;
        let (mut uid, mut gid) = (number("owner", header.uid()), number("group", header.gid()));
        // Negative times are in base 256, as a 64-bit number in two's complement.
        let mtime = header.mtime().map_err(|_| self.broken(&path, "its time is no number"))?;
        let mut time = Timestamp::from_seconds(mtime.cast_signed());
        let (mut version, mut name, mut real_size) = (None, None, None);
        if let Some(extensions) = entry.pax_extensions().map_err(|error| self.failed(error))? {
            for extension in extensions {
                let extension = extension.map_err(|error| self.failed(error))?;
                let text = extension.value().unwrap_or_default();
                match extension.key_bytes() {
                    b"mtime" => {
                        time = parse_time(text).ok_or_else(|| self.broken(&path, "its time is no number"))?;
                    }
                    b"uid" => uid = number("owner", text.parse().map_err(io::Error::other)),
                    b"gid" => gid = number("group", text.parse().map_err(io::Error::other)),
                    b"GNU.sparse.major" => version = Some(text == "1"),
                    b"GNU.sparse.map" | b"GNU.sparse.numblocks" => version = Some(false),
                    b"GNU.sparse.name" => name = Some(extension.value_bytes().to_vec()),
                    b"GNU.sparse.realsize" => real_size = text.parse().ok(),
                    _ => {}
                }
            }
        }
        let sparse = match (version, real_size) {
            (None, _) => None,
            (Some(true), Some(size)) => Some((name, size)),
            _ => return Err(self.broken(&path, "it is in a sparse format that is not known")),
        };
        Ok(Attributes { metadata: Metadata { mode, uid: uid?, gid: gid?, time }, sparse })
    }
}

/// A decimal number of seconds, with or without a fraction.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits = fraction.bytes().chain(core::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    // -1.25 is three quarters of a second behind -2.
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Timestamp {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Some(Timestamp { seconds, nanoseconds })
}

/// Removes what is in a directory and comes from lower layers, but not what this layer has put between.
fn remove_lower(tree: &mut Tree, directory: u32) {
    let mut rest = vec![directory];
    while let Some(directory) = rest.pop() {
        let entries: Vec<u32> = tree.children(directory).collect();
        for number in entries {
            let entry = tree.entries[number as usize];
            if entry.layer < tree.layer {
                tree.remove(number);
            } else if tree.is_directory(entry.inode) {
                rest.push(entry.inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_fractions_and_signs() {
        let time = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        assert_eq!(parse_time("12"), time(12, 0));
        assert_eq!(parse_time("12.5"), time(12, 500_000_000));
        assert_eq!(parse_time("-1.25"), time(-2, 750_000_000));
        assert_eq!(parse_time("-0.25"), time(-1, 750_000_000));
        assert_eq!(parse_time("1.1234567899"), time(1, 123_456_789));
        assert_eq!(parse_time("x"), None);
        assert_eq!(parse_time("1.x"), None);
    }
}
