//! Checks a whole image.

use crate::{
    format::{
        FIRST_DESCRIPTOR, SECTOR_SIZE,
        path_table::{Order, PathRecord},
    },
    reader::{Kind, Naming, Node, Source, Volume},
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
    /// The file with a record at a sector and an offset.
    File((u32, u32)),
}

struct Verifier<'a, S> {
    volume: &'a Volume<S>,
    used: Vec<UsedBlocks>,
    extents: HashSet<u32>,
    found: Verification,
}

impl<S: Source<Error = io::Error>> Volume<S> {
    /// Reads all directories and path tables, and checks that they agree, that every extent is in the image, that none
    /// overlaps another, and that no name is there twice. The contents of files are not read.
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
    fn problem(&mut self, path: impl Into<PathBuf>, message: impl Into<String>) {
        if self.found.problems.len() < MOST_PROBLEMS {
            self.found.problems.push(Problem { path: path.into(), message: message.into() });
        }
    }

    fn size(&mut self) {
        let (wanted, there) = (u64::from(self.volume.descriptor().blocks), self.volume.source().size());
        if wanted * SECTOR_SIZE > there {
            self.problem(
                "/",
                format!(
                    "the volume has {} bytes, and the image {there}: it is cut off",
                    wanted * SECTOR_SIZE
                ),
            );
        }
    }

    fn tree(&mut self) {
        let root = *self.volume.root();
        self.directory(&root, &PathBuf::from("/"));
        let walk = match self.volume.walk(&root) {
            Ok(walk) => walk,
            Err(error) => return self.problem("/", with_causes(&error)),
        };
        // Names in the directories on the way; a walk comes back to a directory after those below it.
        let mut names: Vec<HashSet<OsString>> = Vec::new();
        for entry in walk {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.problem("/", with_causes(&error)),
            };
            let path = PathBuf::from("/").join(&entry.path);
            names.truncate(entry.depth + 1);
            names.resize_with(entry.depth + 1, HashSet::new);
            if names.last_mut().is_some_and(|names| !names.insert(entry.name().to_owned())) {
                self.problem(&path, "its name is there twice");
            }
            match entry.node.kind {
                Kind::Directory => self.directory(&entry.node, &path),
                Kind::File => self.file(&entry.node, &path),
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
        let blocks = u32::try_from(bytes.div_ceil(SECTOR_SIZE)).unwrap_or(u32::MAX);
        if blocks > 0 {
            self.used.push(UsedBlocks { start, end: start.saturating_add(blocks), by });
        }
    }

    fn path_tables(&mut self) {
        let descriptor = *self.volume.descriptor();
        let first = u32::try_from(FIRST_DESCRIPTOR).unwrap_or_default();
        self.used.push(UsedBlocks { start: 0, end: first, by: BlockOwner::SystemArea });
        let size = descriptor.path_table_size;
        let mut tables = Vec::new();
        for (block, order) in
            [(descriptor.path_table_le, Order::Little), (descriptor.path_table_be, Order::Big)]
        {
            let mut bytes = Vec::new();
            let checked = self.volume.check_extent(block, size.into(), first).and_then(|()| {
                bytes.resize(size as usize, 0);
                let offset = u64::from(block) * SECTOR_SIZE;
                self.volume.source().read_at(offset, &mut bytes).map_err(crate::reader::ReadError::Source)
            });
            if let Err(error) = checked {
                return self.problem("/", format!("a path table cannot be read: {}", with_causes(&error)));
            }
            self.used(block, size.into(), BlockOwner::PathTable);
            match parse_table(&bytes, order) {
                Ok(table) => tables.push(table),
                Err(message) => return self.problem("/", message),
            }
        }
        if tables[0] != tables[1] {
            self.problem("/", "the path tables of the two byte orders differ");
        }
        let listed: HashSet<u32> = tables[0].iter().map(|record| record.0).collect();
        let full = tables[0].len() >= usize::from(u16::MAX);
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
                self.found.bytes += u64::from(next.end - next.start) * SECTOR_SIZE;
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
        let walk = self.volume.walk(self.volume.root()).into_iter().flatten();
        for entry in walk.map_while(Result::ok).filter(|_| !wanted.is_empty()) {
            let user = match entry.node.kind {
                Kind::Directory => BlockOwner::Directory(entry.node.extent),
                _ => BlockOwner::File(entry.node.record),
            };
            if wanted.contains(&user) {
                names.entry(user).or_insert_with(|| PathBuf::from("/").join(&entry.path));
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

/// Extents and parents of a path table.
fn parse_table(bytes: &[u8], order: Order) -> Result<Vec<(u32, u16)>, String> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (record, length) = PathRecord::parse(rest, order).map_err(|error| error.to_string())?;
        let number = records.len() + 1;
        if usize::from(record.parent) > number || record.parent == 0 {
            return Err(format!("record {number} of a path table has a parent after it"));
        }
        records.push((record.extent, record.parent));
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(records)
}
