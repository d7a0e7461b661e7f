//! The records of directories: how long they are, and what is in them.

use super::{
    hierarchy::{Child, ChildKind, Directory, Hierarchy},
    names::Scheme,
    system_use::SystemUse,
};
use crate::{
    format::{
        SECTOR, SECTOR_SIZE, Timestamp,
        directory_record::{self as record, RecordFields},
        rock_ridge::{self as rr, Attributes},
        susp,
    },
    source::{
        blob::{Blob, BlobSource},
        tree::{Content, Inode, NONE, Tree},
    },
};

/// The most that one extent of a file holds: whole blocks, and a length of 32 bits.
pub const SECTION: u64 = (u32::MAX as u64) / SECTOR_SIZE * SECTOR_SIZE;

/// What is known about the inodes beyond what the tree knows.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Names of each.
    pub links: Vec<u32>,
    /// Serial numbers.
    pub serials: Vec<u32>,
}

/// Makes records of one hierarchy.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    pub tree: &'a Tree,
    pub hierarchy: &'a Hierarchy,
    pub numbers: &'a Numbers,
}

/// Where records go.
struct Output<'o> {
    /// The directory's blocks. Nothing while only lengths matter.
    bytes: Option<&'o mut [u8]>,
    /// Offset of the continuation areas in them.
    split: usize,
    /// Block of the continuation areas.
    block: u32,
    at: u64,
    continuations_at: u64,
}

impl Records<'_> {
    /// Blocks of a directory's records, and of its continuation areas.
    pub fn measure(&self, number: u32, system_use: &mut SystemUse) -> (u64, u64) {
        let mut output = Output { bytes: None, split: 0, block: 0, at: 0, continuations_at: 0 };
        self.layout(number, system_use, &mut output);
        (output.at.div_ceil(SECTOR_SIZE), output.continuations_at.div_ceil(SECTOR_SIZE))
    }

    /// Appends the blocks of a directory, with those of its continuation areas.
    pub fn render(&self, number: u32, system_use: &mut SystemUse, out: &mut Vec<u8>) {
        let directory = &self.hierarchy.directories[number as usize];
        let start = out.len();
        let split = directory.blocks as usize * SECTOR;
        out.resize(start + split + directory.continuations as usize * SECTOR, 0);
        let mut output = Output {
            bytes: Some(&mut out[start..]),
            split,
            block: directory.extent + directory.blocks,
            at: 0,
            continuations_at: 0,
        };
        self.layout(number, system_use, &mut output);
    }

    fn layout(&self, number: u32, system_use: &mut SystemUse, output: &mut Output<'_>) {
        let directories = &self.hierarchy.directories;
        let directory = &directories[number as usize];
        let rock_ridge = self.hierarchy.scheme == Scheme::Primary;

        system_use.clear();
        if rock_ridge {
            if number == 0 {
                system_use.push(&susp::SP);
            }
            self.directory_attributes(directory, system_use);
            if number == 0 {
                system_use.push(rr::ER);
            }
        }
        output.put(&self.directory_fields(directory), record::SELF, system_use);

        system_use.clear();
        if rock_ridge {
            let parent = &directories[directory.true_parent as usize];
            self.directory_attributes(parent, system_use);
            if directory.true_parent != directory.parent {
                system_use.push(&rr::encode_link(*b"PL", parent.extent));
            }
        }
        output.put(
            &self.directory_fields(&directories[directory.parent as usize]),
            record::PARENT,
            system_use,
        );

        for child in self.hierarchy.children_of(directory) {
            self.layout_child(child, system_use, output);
        }
    }

    fn layout_child(&self, child: &Child, system_use: &mut SystemUse, output: &mut Output<'_>) {
        let tree = self.tree;
        let directories = &self.hierarchy.directories;
        let identifier = self.hierarchy.identifier(child.identifier);
        let entry = tree.entries.get(child.entry as usize);
        let inode = entry.map(|entry| (entry.inode, &tree.inodes[entry.inode as usize]));

        system_use.clear();
        if self.hierarchy.scheme == Scheme::Primary {
            match (child.kind, inode) {
                (
                    ChildKind::Directory(number)
                    | ChildKind::Relocated(number)
                    | ChildKind::Placeholder(number),
                    _,
                ) => {
                    self.directory_attributes(&directories[number as usize], system_use);
                }
                (ChildKind::File, Some((number, inode))) => {
                    system_use.attributes(&self.attributes(number, inode, None), inode.time);
                    if let Content::Device(device) = inode.content {
                        system_use.push(&rr::encode_device(device));
                    }
                }
                (ChildKind::File, None) => {}
            }
            match child.kind {
                ChildKind::Relocated(_) => system_use.push(&rr::RE),
                ChildKind::Directory(_) if entry.is_none() => system_use.push(&rr::RE),
                ChildKind::Placeholder(number) => {
                    system_use.push(&rr::encode_link(*b"CL", directories[number as usize].extent));
                }
                _ => {}
            }
            match entry {
                Some(entry) => system_use.name(tree.text(entry.name)),
                // Its identifier is its name in capital letters.
                None => system_use.name(&identifier.to_ascii_lowercase()),
            }
            if let Some((_, Inode { content: Content::Symlink(target), .. })) = inode {
                system_use.link(tree.text(*target));
            }
        }

        let time = inode.map(|(_, inode)| Timestamp::from_seconds(inode.time));
        match child.kind {
            ChildKind::Directory(number) | ChildKind::Relocated(number) => {
                output.put(&self.directory_fields(&directories[number as usize]), identifier, system_use);
            }
            ChildKind::Placeholder(_) => {
                output.put(&RecordFields { extent: 0, length: 0, time, flags: 0 }, identifier, system_use);
            }
            ChildKind::File => {
                let blob = match inode {
                    Some((_, Inode { content: Content::File(blob), .. })) => contents(tree, *blob),
                    _ => None,
                };
                let (mut extent, mut left) = blob.map_or((0, 0), |blob| (blob.extent, blob.size));
                loop {
                    let (length, flags) =
                        if left > SECTION { (SECTION, record::FLAG_MULTI_EXTENT) } else { (left, 0) };
                    // Neither can be larger: the plan has checked that the image's blocks have numbers of 32 bits.
                    let fields =
                        RecordFields { extent, length: u32::try_from(length).unwrap_or(0), time, flags };
                    output.put(&fields, identifier, system_use);
                    left -= length;
                    if left == 0 {
                        break;
                    }
                    extent += u32::try_from(length / SECTOR_SIZE).unwrap_or(0);
                }
            }
        }
    }

    fn directory_fields(&self, directory: &Directory) -> RecordFields {
        let time = self.directory_inode(directory).map(|(_, inode)| Timestamp::from_seconds(inode.time));
        // The plan has checked that a directory's length has 32 bits.
        let length = u32::try_from(u64::from(directory.blocks) * SECTOR_SIZE).unwrap_or(u32::MAX);
        RecordFields { extent: directory.extent, length, time, flags: record::FLAG_DIRECTORY }
    }

    fn directory_inode(&self, directory: &Directory) -> Option<(u32, &Inode)> {
        // The directory that holds relocated ones has the root's attributes.
        let number = if directory.inode == NONE { 0 } else { directory.inode };
        self.tree.inodes.get(number as usize).map(|inode| (number, inode))
    }

    fn directory_attributes(&self, directory: &Directory, system_use: &mut SystemUse) {
        if let Some((number, inode)) = self.directory_inode(directory) {
            let attributes = self.attributes(number, inode, Some(directory.subdirectories.saturating_add(2)));
            let serial = if directory.inode == NONE { Some(0) } else { attributes.serial };
            system_use.attributes(&Attributes { serial, ..attributes }, inode.time);
        }
    }

    fn attributes(&self, number: u32, inode: &Inode, links: Option<u32>) -> Attributes {
        let index = number as usize;
        Attributes {
            mode: inode.mode,
            links: links.unwrap_or_else(|| self.numbers.links.get(index).copied().unwrap_or(1)),
            uid: inode.uid,
            gid: inode.gid,
            serial: Some(self.numbers.serials.get(index).copied().unwrap_or_default()),
        }
    }
}

/// The contents of a file, or what they are the same as.
pub fn contents(tree: &Tree, blob: u32) -> Option<&Blob> {
    let blob = tree.blobs.get(blob as usize)?;
    match blob.source {
        BlobSource::Same(other) => tree.blobs.get(other as usize),
        _ => Some(blob),
    }
}

impl Output<'_> {
    /// Adds a record.
    fn put(&mut self, fields: &RecordFields, identifier: &[u8], system_use: &mut SystemUse) {
        let header = record::length(identifier.len(), 0);
        let before = record::HEADER + (identifier.len() | 1);
        let own = system_use.spread(record::MAX_LENGTH - before);
        let length = record::length(identifier.len(), own).max(header);
        self.at = record::place(self.at, length);
        match self.bytes.as_deref_mut() {
            None => self.continuations_at = system_use.place(self.continuations_at),
            Some(bytes) => {
                let (records, continuations) = bytes.split_at_mut(self.split);
                let start = usize::try_from(self.at).unwrap_or(usize::MAX);
                let out = &mut records[start..start + length];
                record::encode(out, fields, identifier, length);
                self.continuations_at =
                    system_use.write(&mut out[before..], continuations, self.block, self.continuations_at);
            }
        }
        self.at += length as u64;
    }
}
