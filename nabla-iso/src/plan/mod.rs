//! A plan: where every byte of an image is, without the image being there.

pub(crate) mod dedup;
pub(crate) mod hierarchy;
pub(crate) mod layout;
pub(crate) mod names;
mod read;
pub(crate) mod records;
pub(crate) mod render;
pub(crate) mod system_use;

use crate::{
    error::Warning,
    format::SECTOR_SIZE,
    progress::Reporter,
    source::tree::{NONE, Tree},
};
use hierarchy::Hierarchy;
use records::{Numbers, Records};

/// Name and date of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Its name.
    pub id: String,
    /// When it was made.
    pub time: Option<i64>,
}

/// An image that is planned down to the last byte. It can be written to a file or a stream, or be read as if it had
/// been.
///
/// It holds the roots of the directories open that it was made from, and refers to their files by name: each is opened
/// when its bytes are needed, and must then be what it was.
#[derive(Debug)]
pub struct Plan {
    pub(crate) tree: Tree,
    pub(crate) primary: Hierarchy,
    pub(crate) joliet: Option<Hierarchy>,
    pub(crate) numbers: Numbers,
    /// Numbers of contents, in the order of their places.
    pub(crate) files: Vec<u32>,
    /// Blocks before the first file's.
    pub(crate) metadata_blocks: u32,
    pub(crate) blocks: u32,
    /// Bytes of files.
    pub(crate) bytes: u64,
    pub(crate) label: Label,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) cache: read::Cache,
    pub(crate) threads: usize,
    pub(crate) reporter: Reporter,
    /// What is written is to reach the disk before it has its name.
    pub(crate) sync: bool,
}

impl Plan {
    /// The exact size of the image in bytes, a multiple of 2048.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.blocks) * SECTOR_SIZE
    }

    /// How many entries there are: files, directories and others, one for each name. The root is not counted.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let children = self.primary.children.iter();
        let placeholders = |kind| matches!(kind, hierarchy::ChildKind::Placeholder(_));
        children.filter(|child| child.entry != NONE && !placeholders(child.kind)).count() as u64
    }

    /// How many files' contents are in the image. Files without contents, and names beyond a file's first, do not count.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files.len() as u64
    }

    /// Bytes of those contents.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes in front of the first file's contents: descriptors, path tables and directories.
    #[must_use]
    pub fn metadata_size(&self) -> u64 {
        u64::from(self.metadata_blocks) * SECTOR_SIZE
    }

    /// What was left out of the image or changed.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The volume's name.
    #[must_use]
    pub fn volume_id(&self) -> &str {
        &self.label.id
    }

    /// The hierarchies, in the order of their directories in the image.
    pub(crate) fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        [Some(&self.primary), self.joliet.as_ref()].into_iter().flatten()
    }

    pub(crate) fn records<'a>(&'a self, hierarchy: &'a Hierarchy) -> Records<'a> {
        Records { tree: &self.tree, hierarchy, numbers: &self.numbers }
    }
}
