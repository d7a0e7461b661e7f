//! Checks a whole image.

use crate::{
    format::{
        FIRST_DESCRIPTOR, SECTOR_SIZE,
        path_table::{self, Order, PathRecord},
    },
    reader::{Encoding, Kind, Naming, Node, Source, Volume},
};
use std::{
    collections::{HashMap, HashSet},
    error::Error,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

/// What is wrong with an image at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file that it is about; the root if it is about the image.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
}

/// What was found in an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Directories, the root included.
    pub directories: u64,
    /// Names of regular files.
    pub files: u64,
    /// Names of everything else.
    pub others: u64,
    /// Bytes of files, each place in the image counted once.
    pub bytes: u64,
    /// Everything that is wrong, as far as it could be read.
    pub problems: Vec<Problem>,
}

/// How many problems are reported.
const MOST_PROBLEMS: usize = 100;

/// Blocks and what they are used for: paths would take more memory than the image where trees are deep.
#[derive(Clone, Copy)]
struct UsedBlocks {
    start: u32,
    end: u32,
    by: BlockOwner,
}

/// What uses blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum BlockOwner {
    SystemArea,
    PathTable,
    /// The directory that begins at a block.
    Directory(u32),
    /// The file with a record at a sector's place and an offset in it.
    File((u64, usize)),
}

struct Verifier<'a, S> {
    volume: &'a Volume<S>,
    used: Vec<UsedBlocks>,
    extents: HashSet<u32>,
    found: Verification,
}

impl<S: Source<Error = io::Error>> Volume<S> {
    /// Reads all directories and path tables, and checks that they agree, that every extent is in the image, that none
    /// overlaps another, and that no name is there twice, and says what is odd. The contents of files are not read.
    #[must_use]
    pub fn verify(&self) -> Verification {
        let mut verifier = Verifier {
            volume: self,
            used: Vec::new(),
            extents: HashSet::new(),
            found: Verification::default(),
        };
        verifier.size();
        verifier.tree();
        verifier.path_tables();
        verifier.overlaps();
        verifier.found
    }
}

impl<S: Source<Error = io::Error>> Verifier<'_, S> {
    /// `path` is one in the image, with or without a slash in front.
    fn problem(&mut self, path: impl AsRef<Path>, message: impl Into<String>) {
        if self.found.problems.len() < MOST_PROBLEMS {
            self.found.problems.push(Problem { path: Path::new("/").join(path), message: message.into() });
        }
    }

    fn size(&mut self) {
        let descriptor = self.volume.descriptor();
        let wanted = u64::from(descriptor.blocks) * u64::from(descriptor.block_size);
        let there = self.volume.source().size();
        if wanted > there {
            self.problem("/", format!("the volume has {wanted} bytes, and the image {there}: it is cut off"));
        }
        if let Some(oddity) = descriptor.oddity {
            self.problem("/", oddity.what());
        }
    }

    fn tree(&mut self) {
        let root = *self.volume.root();
        self.directory(&root, Path::new(""));
        let mut walk = match self.volume.walk(&root) {
            Ok(walk) => walk,
            Err(error) => return self.problem("/", with_causes(&error)),
        };
        // Names in the directories on the way; a walk comes back to a directory after those below it.
        let mut names: Vec<HashSet<OsString>> = Vec::new();
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.problem("/", with_causes(&error)),
            };
            let path = walk.path();
            if let Some(oddity) = entry.oddity {
                self.problem(path, oddity.what());
            }
            names.truncate(entry.depth + 1);
            names.resize_with(entry.depth + 1, HashSet::new);
            if names.last_mut().is_some_and(|names| !names.insert(entry.name)) {
                self.problem(path, "its name is there twice");
            }
            match entry.node.kind {
                Kind::Directory => self.directory(&entry.node, path),
                Kind::File => self.file(&entry.node, path),
                Kind::Symlink => {
                    self.found.others += 1;
                    let mut buffer = [0; crate::format::SYMLINK_MAX];
                    if let Err(error) = self.volume.read_link(&entry.node, &mut buffer) {
                        self.problem(path, with_causes(&error));
                    }
                }
                _ => self.found.others += 1,
            }
        }
    }

    fn directory(&mut self, node: &Node, path: &Path) {
        self.found.directories += 1;
        if node.size == 0 {
            return;
        }
        self.extents.insert(node.extent);
        if let Err(error) = self.volume.directory_at(node.extent) {
            self.problem(path, with_causes(&error));
        }
        if let Err(error) = self.volume.parent(node) {
            self.problem(path, format!("its parent cannot be found: {}", with_causes(&error)));
        }
        self.used(node.extent, node.size, BlockOwner::Directory(node.extent));
    }

    fn file(&mut self, node: &Node, path: &Path) {
        self.found.files += 1;
        if node.encoding == Encoding::Interleaved {
            self.problem(path, "it is interleaved, and cannot be read");
        }
        if node.sections == 1 {
            return self.used(node.extent, node.size, BlockOwner::File(node.record));
        }
        let mut sections = Vec::new();
        let result = self.volume.sections(node, |extent, bytes| {
            sections.push((extent, bytes));
            Ok(true)
        });
        if let Err(error) = result {
            self.problem(path, with_causes(&error));
        }
        for (extent, bytes) in sections {
            self.used(extent, bytes.into(), BlockOwner::File(node.record));
        }
    }

    fn used(&mut self, start: u32, bytes: u64, by: BlockOwner) {
        let blocks = bytes.div_ceil(u64::from(self.volume.descriptor().block_size));
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        if blocks > 0 {
            self.used.push(UsedBlocks { start, end: start.saturating_add(blocks), by });
        }
    }

    fn path_tables(&mut self) {
        let descriptor = *self.volume.descriptor();
        let first = FIRST_DESCRIPTOR * SECTOR_SIZE;
        self.used(0, first, BlockOwner::SystemArea);
        let size = descriptor.path_table_size;
        for block in [descriptor.path_table_le, descriptor.path_table_be] {
            if let Err(error) = self.volume.check_extent(block, size.into(), first) {
                return self.problem("/", format!("a path table cannot be read: {}", with_causes(&error)));
            }
            self.used(block, size.into(), BlockOwner::PathTable);
        }
        let mut little = PathTable::new(self.volume, descriptor.path_table_le, Order::Little);
        let mut big = PathTable::new(self.volume, descriptor.path_table_be, Order::Big);
        let mut listed = HashSet::new();
        let mut count = 0_usize;
        let mut differ = false;
        loop {
            match (little.next(), big.next()) {
                (Ok(None), Ok(None)) => break,
                (Ok(one), Ok(other)) => {
                    differ |= one != other;
                    count += usize::from(one.is_some());
                    listed.extend(one.map(|(extent, _)| extent));
                }
                (Err(message), _) | (_, Err(message)) => return self.problem("/", message),
            }
        }
        if differ {
            self.problem("/", "the path tables of the two byte orders differ");
        }
        let full = count >= usize::from(u16::MAX);
        let missing = self.extents.iter().filter(|extent| !listed.contains(extent)).count();
        if missing > 0 && !full {
            self.problem("/", format!("{missing} directories are in no path table"));
        }
        // Rock Ridge hides the directory that holds relocated ones.
        let unknown = listed.iter().filter(|extent| !self.extents.contains(extent)).count();
        if unknown > usize::from(self.volume.naming() == Naming::RockRidge) && self.found.problems.is_empty()
        {
            self.problem("/", format!("{unknown} directories of the path table are not in the tree"));
        }
    }

    fn overlaps(&mut self) {
        self.used.sort_by_key(|used| (used.start, used.end));
        let end = self.used.iter().map(|used| used.end).max().unwrap_or(0);
        if end > self.volume.descriptor().blocks {
            self.problem("/", "something is recorded after the volume's end");
        }
        let used = std::mem::take(&mut self.used);
        let mut overlaps = Vec::new();
        // What reaches furthest among those before.
        let mut last: Option<&UsedBlocks> = None;
        for next in &used {
            let is_file = |used: &UsedBlocks| matches!(used.by, BlockOwner::File(_));
            let mut counts = is_file(next);
            if let Some(last) = last.filter(|last| next.start < last.end) {
                if is_file(last) && is_file(next) && (last.start, last.end) == (next.start, next.end) {
                    // Names of one file, or files with the same contents.
                    counts = false;
                } else if overlaps.len() < MOST_PROBLEMS {
                    overlaps.push((next.by, last.by));
                }
            }
            if counts {
                let block_size = u64::from(self.volume.descriptor().block_size);
                self.found.bytes += u64::from(next.end - next.start) * block_size;
            }
            if last.is_none_or(|last| next.end >= last.end) {
                last = Some(next);
            }
        }
        let names = self.names_of(&overlaps);
        let name = |user: &BlockOwner| names.get(user).cloned().unwrap_or_else(|| PathBuf::from("/"));
        for (one, other) in &overlaps {
            let message = format!("its blocks overlap those of '{}'", name(other).display());
            self.problem(name(one), message);
        }
    }

    /// Walks the tree once more for the paths of those that overlap.
    fn names_of(&self, overlaps: &[(BlockOwner, BlockOwner)]) -> HashMap<BlockOwner, PathBuf> {
        let mut names = HashMap::from([
            (BlockOwner::SystemArea, PathBuf::from("the system area")),
            (BlockOwner::PathTable, PathBuf::from("a path table")),
        ]);
        let wanted: HashSet<BlockOwner> = overlaps.iter().flat_map(|(one, other)| [*one, *other]).collect();
        if wanted.is_empty() {
            return names;
        }
        let Ok(mut walk) = self.volume.walk(self.volume.root()) else { return names };
        while let Some(Ok(entry)) = walk.next() {
            let user = match entry.node.kind {
                Kind::Directory => BlockOwner::Directory(entry.node.extent),
                _ => BlockOwner::File(entry.node.record),
            };
            if wanted.contains(&user) {
                names.entry(user).or_insert_with(|| Path::new("/").join(walk.path()));
            }
        }
        names
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The records of a path table, which is read in pieces: its size is only what the image says.
struct PathTable<'a, S> {
    volume: &'a Volume<S>,
    order: Order,
    /// What is left in the image: from where on, and how many bytes.
    at: u64,
    left: u64,
    buffer: Vec<u8>,
    taken: usize,
    records: usize,
}

impl<'a, S: Source<Error = io::Error>> PathTable<'a, S> {
    /// The longest record.
    const LONGEST: usize = path_table::length(255);
    const PIECE: usize = 64 << 10;

    fn new(volume: &'a Volume<S>, block: u32, order: Order) -> Self {
        let (at, left) = (volume.offset(block), volume.descriptor().path_table_size.into());
        Self { volume, order, at, left, buffer: Vec::new(), taken: 0, records: 0 }
    }

    /// The extent and the parent of the next directory.
    fn next(&mut self) -> Result<Option<(u32, u16)>, String> {
        if self.buffer.len() - self.taken < Self::LONGEST && self.left > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let start = self.buffer.len();
            let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(Self::PIECE);
            self.buffer.resize(start + length, 0);
            let read = self.volume.source().read_at(self.at, &mut self.buffer[start..]);
            read.map_err(|error| format!("a path table cannot be read: {}", with_causes(&error)))?;
            (self.at, self.left) = (self.at + length as u64, self.left - length as u64);
        }
        let rest = &self.buffer[self.taken..];
        if rest.is_empty() {
            return Ok(None);
        }
        let (record, length) = PathRecord::parse(rest, self.order).map_err(|error| error.to_string())?;
        self.records += 1;
        if usize::from(record.parent) > self.records || record.parent == 0 {
            return Err(format!("record {} of a path table has a parent after it", self.records));
        }
        self.taken += length;
        Ok(Some((record.extent, record.parent)))
    }
}
