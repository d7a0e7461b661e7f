//! The tree that an image will hold, compactly: tables of entries, inodes and contents that refer to each other by
//! number, and one heap of names.

use super::{
    blob::{Blob, Sources},
    text::Text,
};
use crate::{
    error::{Error, Warning},
    format::{NAME_MAX, Timestamp, rock_ridge as rr},
};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// No entry, no inode.
pub const NONE: u32 = u32::MAX;
/// The root directory's inode.
pub const ROOT: u32 = 0;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The inode of the directory.
    pub parent: u32,
    pub inode: u32,
    pub name: Text,
    /// Which source it came from last.
    pub layer: u16,
    /// Removed or replaced.
    pub dead: bool,
    /// The next in the directory, in no particular order.
    pub next: u32,
}

/// A file of whatever kind.
#[derive(Debug, Clone, Copy)]
pub struct Inode {
    /// Kind and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: i64,
    pub content: Content,
}

/// What an inode stands for.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    Directory {
        first: u32,
        /// Its own entry, [`NONE`] for the root.
        entry: u32,
    },
    /// Number in [`Tree::blobs`].
    File(u32),
    Symlink(Text),
    /// In the form of [`rr::device_number`].
    Device(u64),
    Fifo,
}

/// Owner, permissions and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions: the lower twelve bits of `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: Timestamp,
}

impl Metadata {
    /// For what no source describes: owned by root.
    pub const fn implied(mode: u32, time: Timestamp) -> Self {
        Self { mode, uid: 0, gid: 0, time }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tree {
    pub names: Vec<u8>,
    pub entries: Vec<Entry>,
    pub inodes: Vec<Inode>,
    pub blobs: Vec<Blob>,
    pub sources: Sources,
    pub warnings: Vec<Warning>,
    /// Living entries by directory and name.
    index: HashTable<u32>,
    hash: RandomState,
    /// Which source is being added.
    pub layer: u16,
}

impl Tree {
    /// One with a root directory that has `root`.
    pub fn new(root: Metadata) -> Self {
        let mut tree = Self {
            names: Vec::new(),
            entries: Vec::new(),
            inodes: Vec::new(),
            blobs: Vec::new(),
            sources: Sources::default(),
            warnings: Vec::new(),
            index: HashTable::new(),
            hash: RandomState::new(),
            layer: 0,
        };
        tree.inodes.push(Inode {
            mode: rr::S_IFDIR | root.mode,
            uid: root.uid,
            gid: root.gid,
            time: root.time.seconds,
            content: Content::Directory { first: NONE, entry: NONE },
        });
        tree
    }

    pub fn text(&self, text: Text) -> &[u8] {
        text.of(&self.names)
    }

    /// Keeps a name or the target of a link.
    pub fn intern(&mut self, text: &[u8]) -> Result<Text, Error> {
        let start = u32::try_from(self.names.len()).map_err(|_| Error::TooMany)?;
        let length = u16::try_from(text.len()).map_err(|_| Error::TooMany)?;
        self.names.extend_from_slice(text);
        Ok(Text { start, length })
    }

    /// The living entry of this name in a directory.
    pub fn find(&self, directory: u32, name: &[u8]) -> Option<u32> {
        let found = self.index.find(self.hash_of(directory, name), |&entry| {
            let entry = &self.entries[entry as usize];
            entry.parent == directory && self.text(entry.name) == name
        });
        found.copied()
    }

    fn hash_of(&self, directory: u32, name: &[u8]) -> u64 {
        self.hash.hash_one((directory, name))
    }

    /// Adds an inode.
    pub fn add_inode(&mut self, kind: u32, metadata: &Metadata, content: Content) -> Result<u32, Error> {
        let number = u32::try_from(self.inodes.len()).ok().filter(|&number| number != NONE);
        let number = number.ok_or(Error::TooMany)?;
        self.inodes.push(Inode {
            mode: kind | metadata.mode & 0o7777,
            uid: metadata.uid,
            gid: metadata.gid,
            time: metadata.time.seconds,
            content,
        });
        Ok(number)
    }

    /// Adds contents.
    pub fn add_blob(&mut self, blob: Blob) -> Result<u32, Error> {
        let number = u32::try_from(self.blobs.len()).map_err(|_| Error::TooMany)?;
        self.blobs.push(blob);
        Ok(number)
    }

    /// Gives an inode a name that is free in the directory, and returns the entry.
    ///
    /// The caller has looked for the name, unless it knows.
    pub fn link(&mut self, directory: u32, name: &[u8], inode: u32) -> Result<u32, Error> {
        debug_assert!(!name.is_empty() && name.len() <= NAME_MAX);
        let number = u32::try_from(self.entries.len()).ok().filter(|&number| number != NONE);
        let number = number.ok_or(Error::TooMany)?;
        let name = self.intern(name)?;
        let Content::Directory { first, .. } = &mut self.inodes[directory as usize].content else {
            unreachable!("only directories have entries");
        };
        let next = core::mem::replace(first, number);
        self.entries.push(Entry { parent: directory, inode, name, layer: self.layer, dead: false, next });
        if let Content::Directory { entry, .. } = &mut self.inodes[inode as usize].content {
            *entry = number;
        }
        let hash = self.hash_of(directory, self.text(name));
        let Self { index, entries, names, hash: hasher, .. } = self;
        index.insert_unique(hash, number, |&other| {
            let Entry { parent, name, .. } = entries[other as usize];
            hasher.hash_one((parent, &names[name.start as usize..][..usize::from(name.length)]))
        });
        Ok(number)
    }

    /// Gives an inode a name; what had the name before is gone.
    pub fn put(&mut self, directory: u32, name: &[u8], inode: u32) -> Result<u32, Error> {
        if let Some(old) = self.find(directory, name) {
            self.remove(old);
        }
        self.link(directory, name, inode)
    }

    /// Makes a directory, or changes the one that is there. What is no directory and has the name is gone.
    pub fn put_directory(&mut self, directory: u32, name: &[u8], metadata: &Metadata) -> Result<u32, Error> {
        if let Some(old) = self.find(directory, name) {
            let Entry { inode, .. } = self.entries[old as usize];
            if self.is_directory(inode) {
                let layer = self.layer;
                self.entries[old as usize].layer = layer;
                let there = &mut self.inodes[inode as usize];
                there.mode = rr::S_IFDIR | metadata.mode & 0o7777;
                (there.uid, there.gid, there.time) = (metadata.uid, metadata.gid, metadata.time.seconds);
                return Ok(inode);
            }
            self.remove(old);
        }
        let content = Content::Directory { first: NONE, entry: NONE };
        let inode = self.add_inode(rr::S_IFDIR, metadata, content)?;
        self.link(directory, name, inode)?;
        Ok(inode)
    }

    /// Takes an entry away, with everything below it.
    pub fn remove(&mut self, entry: u32) {
        let mut rest = vec![entry];
        while let Some(number) = rest.pop() {
            let Entry { parent, name, inode, dead, .. } = self.entries[number as usize];
            if dead {
                continue;
            }
            let hash = self.hash_of(parent, self.text(name));
            if let Ok(found) = self.index.find_entry(hash, |&other| other == number) {
                found.remove();
            }
            self.entries[number as usize].dead = true;
            rest.extend(self.children(inode));
        }
    }

    /// The living entries of a directory, in no particular order; none for other files.
    pub fn children(&self, inode: u32) -> impl Iterator<Item = u32> {
        let mut next = match self.inodes[inode as usize].content {
            Content::Directory { first, .. } => first,
            _ => NONE,
        };
        core::iter::from_fn(move || {
            while next != NONE {
                let number = next;
                let entry = &self.entries[number as usize];
                next = entry.next;
                if !entry.dead {
                    return Some(number);
                }
            }
            None
        })
    }

    pub fn is_directory(&self, inode: u32) -> bool {
        matches!(self.inodes[inode as usize].content, Content::Directory { .. })
    }

    /// Frees what is only needed while sources are added.
    pub fn finish(&mut self) {
        self.index = HashTable::new();
        self.names.shrink_to_fit();
    }
}
