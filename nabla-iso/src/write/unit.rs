//! Divides an image into pieces that threads can write one independently of the other.

use crate::{
    format::SECTOR_SIZE,
    plan::{Plan, render::Part},
};

/// Bytes of small files, or of directories, that are put together in memory and written at once.
pub const BATCH: u64 = 1 << 20;
/// Files from this size on are copied without going through memory.
pub const LARGE: u64 = 512 << 10;
/// Bytes of a large file that one thread copies.
const CHUNK: u64 = 64 << 20;

/// A piece of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// In front of the files.
    Part(Part),
    /// Files `first..end`, in the order of the plan, each whole and small.
    Small { first: usize, end: usize },
    /// A range of a large file.
    Large { file: usize, offset: u64, length: u64 },
}

/// Gives out the pieces, in the order of their places.
#[derive(Debug)]
pub struct Units {
    /// Bytes of a large file in one piece.
    chunk: u64,
    head: bool,
    /// The next directory: of which hierarchy, and its number.
    directory: (usize, u32),
    file: usize,
    offset: u64,
}

impl Default for Units {
    fn default() -> Self {
        Self { chunk: CHUNK, head: false, directory: (0, 0), file: 0, offset: 0 }
    }
}

impl Units {
    /// Pieces that go through memory.
    pub fn in_small_chunks() -> Self {
        Self { chunk: BATCH, ..Self::default() }
    }

    pub fn next(&mut self, plan: &Plan) -> Option<Unit> {
        if !std::mem::replace(&mut self.head, true) {
            return Some(Unit::Part(Part::Head));
        }
        self.next_directories(plan).or_else(|| self.next_files(plan))
    }

    fn next_directories(&mut self, plan: &Plan) -> Option<Unit> {
        loop {
            let (hierarchy, first) = self.directory;
            let hierarchy_of = plan.hierarchies().nth(hierarchy)?;
            let mut bytes = 0;
            let count = (first..)
                .map_while(|place| hierarchy_of.placed(place))
                .take_while(|directory| {
                    let fits = bytes < BATCH;
                    bytes += u64::from(directory.blocks + directory.continuations) * SECTOR_SIZE;
                    fits
                })
                .count();
            let end = first + u32::try_from(count).unwrap_or(0);
            if end > first {
                self.directory.1 = end;
                return Some(Unit::Part(Part::Directories { joliet: hierarchy > 0, first, end }));
            }
            self.directory = (hierarchy + 1, 0);
        }
    }

    fn next_files(&mut self, plan: &Plan) -> Option<Unit> {
        let blob = |file: usize| plan.files.get(file).map(|&blob| &plan.tree.blobs[blob as usize]);
        let first = self.file;
        let next = blob(first)?;
        if next.size >= LARGE || next.sparse {
            let offset = self.offset;
            let length = (next.size - offset).min(self.chunk);
            self.offset += length;
            if self.offset == next.size {
                (self.file, self.offset) = (first + 1, 0);
            }
            return Some(Unit::Large { file: first, offset, length });
        }
        let start = u64::from(next.extent) * SECTOR_SIZE;
        let mut end = first + 1;
        while let Some(next) = blob(end)
            && next.size < LARGE
            && !next.sparse
            && u64::from(next.extent) * SECTOR_SIZE + next.size - start <= BATCH
        {
            end += 1;
        }
        self.file = end;
        Some(Unit::Small { first, end })
    }
}

impl Unit {
    /// Files that are complete with it, and bytes of files in it.
    pub fn amount(self, plan: &Plan) -> (u64, u64) {
        let size = |file: usize| plan.tree.blobs[plan.files[file] as usize].size;
        match self {
            Self::Part(_) => (0, 0),
            Self::Small { first, end } => ((end - first) as u64, (first..end).map(size).sum()),
            Self::Large { file, offset, length } => (u64::from(offset + length == size(file)), length),
        }
    }

    /// Where it begins in the image, in bytes.
    pub fn offset(self, plan: &Plan) -> u64 {
        let file = |file: usize| u64::from(plan.tree.blobs[plan.files[file] as usize].extent) * SECTOR_SIZE;
        match self {
            Self::Part(part) => plan.part_offset(part),
            Self::Small { first, .. } => file(first),
            Self::Large { file: index, offset, .. } => file(index) + offset,
        }
    }
}
