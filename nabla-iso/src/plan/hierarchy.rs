//! The directories of an image as they are recorded: names for other readers, order, and where deep ones go.

use super::names::{Candidate, HASH, Scheme, assign, hash};
use crate::{
    error::Error,
    format::{MAX_LEVELS, path_table},
    source::{
        text::Text,
        tree::{Content, NONE, ROOT, Tree},
    },
};
use std::{collections::HashMap, path::Path};

/// Names under which deep directories are recorded. libarchive knows only these.
const RELOCATION_NAMES: [&[u8]; 2] = [b"rr_moved", b".rr_moved"];
/// What a path table can number (ECMA-119, 9.4.4).
pub const PATH_TABLE_MAX: usize = u16::MAX as usize;

/// The primary tree, or Joliet's.
#[derive(Debug)]
pub struct Hierarchy {
    pub scheme: Scheme,
    /// In the order of the path table: by level, then by parent, then by identifier.
    pub directories: Vec<Directory>,
    /// Their numbers in the order of their places.
    pub placed: Vec<u32>,
    /// Those of each directory are adjacent, in the order of records.
    pub children: Vec<Child>,
    /// Identifiers.
    heap: Vec<u8>,
    /// Bytes of a path table.
    pub path_table_size: u32,
    /// First blocks of the two path tables.
    pub path_tables: [u32; 2],
}

/// A directory that is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    /// [`NONE`] for the directory that only exists to hold relocated ones.
    pub inode: u32,
    /// Where it is recorded.
    pub parent: u32,
    /// Where it belongs. The same, unless it is relocated.
    pub true_parent: u32,
    /// Its children in [`Hierarchy::children`].
    pub first: u32,
    pub count: u32,
    /// Its own name.
    pub identifier: Text,
    /// A directory that belongs into it is relocated, and it is itself where it belongs.
    pub has_relocated_child: bool,
    /// It is relocated, or below one that is.
    pub relocated: bool,
    /// Subdirectories that belong to it.
    pub subdirectories: u32,
    /// First block.
    pub extent: u32,
    /// Blocks of records.
    pub blocks: u32,
    /// Blocks of continuation areas, which follow.
    pub continuations: u32,
}

/// A file in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// [`NONE`] for the directory that only exists to hold relocated ones.
    pub entry: u32,
    pub identifier: Text,
    pub kind: ChildKind,
}

/// What is recorded about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildKind {
    /// No directory.
    File,
    /// A directory with this number.
    Directory(u32),
    /// A relocated directory with this number, where it is recorded.
    Relocated(u32),
    /// In the place of a relocated directory with this number, where it belongs.
    Placeholder(u32),
}

impl Hierarchy {
    /// Finds names and order for everything in the tree.
    ///
    /// If `relocate`, directories below the eighth level are recorded in one at the second level.
    pub fn new(tree: &Tree, scheme: Scheme, relocate: bool) -> Result<Self, Error> {
        let deep = if relocate { deep_directories(tree) } else { Vec::new() };
        let mut hierarchy = Self {
            scheme,
            directories: Vec::new(),
            placed: Vec::new(),
            children: Vec::new(),
            heap: vec![0],
            path_table_size: 0,
            path_tables: [0; 2],
        };
        let root = Directory {
            inode: ROOT,
            parent: 0,
            true_parent: 0,
            first: 0,
            count: 0,
            // One zero byte, which is the root's name in path tables.
            identifier: Text { start: 0, length: 1 },
            has_relocated_child: false,
            relocated: false,
            subdirectories: 0,
            extent: 0,
            blocks: 0,
            continuations: 0,
        };
        hierarchy.directories.push(root);
        let relocation_directory =
            if deep.is_empty() { None } else { Some(RelocationDirectory::find(tree)?) };
        // Numbers of relocated directories by their entries.
        let mut relocated: HashMap<u32, u32> = deep.iter().map(|deep| (deep.entry, NONE)).collect();
        let mut at = 0;
        while at < hierarchy.directories.len() {
            hierarchy.add_children(tree, at, relocation_directory.as_ref(), &deep, &mut relocated)?;
            at += 1;
        }
        // libarchive reads directories in the order of their places, and must have met a relocated one, and those that are
        // relocated out of it, when it meets the placeholder.
        let has_relocated_child = |number: &u32| hierarchy.directories[*number as usize].has_relocated_child;
        let (last, first): (Vec<u32>, Vec<u32>) =
            (0..index(hierarchy.directories.len())?).partition(has_relocated_child);
        hierarchy.placed = first;
        hierarchy.placed.extend(last);
        let in_table = hierarchy.directories.iter().take(PATH_TABLE_MAX);
        let size: usize =
            in_table.map(|directory| path_table::length(directory.identifier.length.into())).sum();
        hierarchy.path_table_size = u32::try_from(size).map_err(|_| Error::TooLarge)?;
        hierarchy.heap.shrink_to_fit();
        Ok(hierarchy)
    }

    /// An identifier.
    pub fn identifier(&self, text: Text) -> &[u8] {
        text.of(&self.heap)
    }

    /// Adds the children of the directory at `at`, and the directories among them to the end.
    fn add_children(
        &mut self,
        tree: &Tree,
        at: usize,
        relocation_directory: Option<&RelocationDirectory>,
        deep: &[Deep],
        relocated: &mut HashMap<u32, u32>,
    ) -> Result<(), Error> {
        struct Found {
            entry: u32,
            relocated_here: bool,
            /// Directories that are relocated into one may have the same name there.
            key: u64,
            rank: u32,
        }
        let number = index(at)?;
        let inode = self.directories[at].inode;
        let mut found: Vec<Found> = Vec::new();
        if inode != NONE {
            found.extend(tree.children(inode).map(|entry| Found {
                entry,
                relocated_here: false,
                key: hash(HASH, tree.text(tree.entries[entry as usize].name)),
                rank: NONE,
            }));
            if self.scheme == Scheme::Joliet {
                // Joliet has files and directories.
                found.retain(|file| {
                    let inode = tree.entries[file.entry as usize].inode;
                    matches!(
                        tree.inodes[inode as usize].content,
                        Content::Directory { .. } | Content::File(_)
                    )
                });
            }
        }
        let is_relocation_directory =
            relocation_directory.is_some_and(|relocation_directory| match *relocation_directory {
                RelocationDirectory::Own(_) => inode == NONE,
                RelocationDirectory::Existing(existing) => inode == existing,
            });
        if is_relocation_directory {
            let ranks = 0..NONE;
            found.extend(deep.iter().zip(ranks).map(|(&Deep { entry, key }, rank)| Found {
                entry,
                relocated_here: true,
                key,
                rank,
            }));
        }
        let own = match relocation_directory {
            Some(&RelocationDirectory::Own(name)) if at == 0 => Some(name),
            _ => None,
        };
        if own.is_some() {
            found.push(Found { entry: NONE, relocated_here: false, key: 0, rank: NONE });
        }

        let name = |file: &Found| match tree.entries.get(file.entry as usize) {
            Some(entry) => tree.text(entry.name),
            None => own.unwrap_or_default(),
        };
        let is_directory = |file: &Found| match tree.entries.get(file.entry as usize) {
            Some(entry) => {
                tree.is_directory(entry.inode)
                    && (file.relocated_here || !relocated.contains_key(&file.entry))
            }
            None => true,
        };
        let candidates: Vec<_> = found
            .iter()
            .map(|file| Candidate {
                name: name(file),
                directory: is_directory(file),
                key: file.key,
                rank: file.rank,
            })
            .collect();
        let identifiers = assign(self.scheme, &candidates, &mut self.heap);
        let mut order: Vec<usize> = (0..found.len()).collect();
        let Self { heap, scheme, .. } = self;
        order.sort_unstable_by(|&a, &b| {
            let comparable = |index: usize| scheme.comparable(&heap[identifiers[index].clone()]);
            comparable(a).cmp(comparable(b))
        });

        self.directories[at].first = index(self.children.len())?;
        self.directories[at].count = index(found.len())?;
        for index_in_found in order {
            let Found { entry, relocated_here, .. } = found[index_in_found];
            let range = &identifiers[index_in_found];
            let identifier = Text {
                start: index(range.start)?,
                length: u16::try_from(range.len()).map_err(|_| Error::TooMany)?,
            };
            let inode = tree.entries.get(entry as usize).map_or(NONE, |entry| entry.inode);
            let belongs_here = entry != NONE && !relocated_here;
            let kind = if inode != NONE && !tree.is_directory(inode) {
                ChildKind::File
            } else if let Some(&moved) = relocated.get(&entry).filter(|_| !relocated_here) {
                // It has been met before: the directory that is_relocation_directory it is at the second level, this one at the eighth.
                self.directories[moved as usize].true_parent = number;
                self.directories[at].has_relocated_child = !self.directories[at].relocated;
                ChildKind::Placeholder(moved)
            } else {
                let child = index(self.directories.len())?;
                self.directories.push(Directory {
                    inode,
                    parent: number,
                    true_parent: number,
                    identifier,
                    has_relocated_child: false,
                    relocated: relocated_here || self.directories[at].relocated,
                    first: 0,
                    count: 0,
                    subdirectories: 0,
                    extent: 0,
                    blocks: 0,
                    continuations: 0,
                });
                if relocated_here {
                    relocated.insert(entry, child);
                    ChildKind::Relocated(child)
                } else {
                    ChildKind::Directory(child)
                }
            };
            if belongs_here && kind != ChildKind::File {
                self.directories[at].subdirectories += 1;
            }
            self.children.push(Child { entry, identifier, kind });
        }
        Ok(())
    }

    /// A directory by its place among those in the image.
    pub fn placed(&self, place: u32) -> Option<&Directory> {
        self.directories.get(*self.placed.get(place as usize)? as usize)
    }

    /// The children of a directory.
    pub fn children_of(&self, directory: &Directory) -> &[Child] {
        &self.children[directory.first as usize..][..directory.count as usize]
    }
}

/// The directory that is_relocation_directory relocated ones.
enum RelocationDirectory {
    /// One that is made for it, with this name.
    Own(&'static [u8]),
    /// One that is there, by its inode.
    Existing(u32),
}

impl RelocationDirectory {
    fn find(tree: &Tree) -> Result<Self, Error> {
        if let Some(name) = RELOCATION_NAMES.into_iter().find(|name| !has(tree, name)) {
            return Ok(Self::Own(name));
        }
        let existing = tree.children(ROOT).map(|entry| tree.entries[entry as usize]);
        let mut existing = existing.filter(|entry| RELOCATION_NAMES.contains(&tree.text(entry.name)));
        match existing.find(|entry| tree.is_directory(entry.inode)) {
            Some(entry) => Ok(Self::Existing(entry.inode)),
            None => Err(Error::Entry {
                path: Path::new("/rr_moved").to_owned(),
                why: "its name is needed for directories below the eighth level, and so is that of /.rr_moved",
            }),
        }
    }
}

fn has(tree: &Tree, name: &[u8]) -> bool {
    tree.children(ROOT).any(|entry| tree.text(tree.entries[entry as usize].name) == name)
}

/// A directory that would be below the last level.
#[derive(Debug, Clone, Copy)]
struct Deep {
    entry: u32,
    /// The hash of its path: whole paths of deep trees would be much larger than the tree.
    key: u64,
}

/// Directories that would be below the last level, in the order of their paths.
fn deep_directories(tree: &Tree) -> Vec<Deep> {
    let mut deep = Vec::new();
    let mut below: Vec<u32> = Vec::new();
    // Directories to look into, the next last: inode, level, and the hash of the path.
    let mut rest = vec![(ROOT, 1, HASH, NONE)];
    while let Some((inode, mut level, key, entry)) = rest.pop() {
        if level > MAX_LEVELS {
            deep.push(Deep { entry, key });
            // The root, what holds it, and itself.
            level = 3;
        }
        below.clear();
        let is_directory = |entry: &u32| tree.is_directory(tree.entries[*entry as usize].inode);
        below.extend(tree.children(inode).filter(is_directory));
        let name = |entry: u32| tree.text(tree.entries[entry as usize].name);
        below.sort_unstable_by(|&a, &b| name(b).cmp(name(a)));
        rest.extend(below.iter().map(|&entry| {
            let key = hash(hash(key, b"/"), name(entry));
            (tree.entries[entry as usize].inode, level + 1, key, entry)
        }));
    }
    deep
}

fn index(number: usize) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::TooMany)
}
