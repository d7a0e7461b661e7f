//! Gives everything its place in the image.

use super::{
    Label, Plan,
    dedup::deduplicate,
    hierarchy::{ChildKind, Hierarchy, PATH_TABLE_MAX},
    names::Scheme,
    read::Cache,
    records::{Numbers, Records, contents},
    system_use::SystemUse,
};
use crate::{
    error::{Error, Warning, WarningKind},
    format::{FIRST_DESCRIPTOR, SECTOR_SIZE},
    progress::Reporter,
    source::{
        blob::BlobSource,
        tree::{Content, NONE, ROOT, Tree},
    },
};
use std::path::PathBuf;

/// Files of at least this size begin at a multiple of [`ALIGNMENT`], so that a file system can share their blocks.
pub const ALIGN_FROM: u64 = 64 << 10;
/// libarchive takes what has fewer than 48 KiB for an empty file of another kind.
const FEWEST_BLOCKS: u32 = 24;
/// The block size of the file systems that share blocks.
pub const ALIGNMENT: u64 = 4096;

/// What else goes into the layout.
#[derive(Debug)]
pub struct Settings {
    pub label: Label,
    pub joliet: bool,
    pub relocate: bool,
    pub deduplicate: bool,
    pub threads: usize,
    pub sync: bool,
}

/// Plans the image of a tree.
pub fn plan(mut tree: Tree, settings: Settings, reporter: Reporter) -> Result<Plan, Error> {
    tree.finish();
    let mut primary = Hierarchy::new(&tree, Scheme::Primary, settings.relocate)?;
    let mut joliet = if settings.joliet { Some(Hierarchy::new(&tree, Scheme::Joliet, false)?) } else { None };
    let (numbers, mut order) = number(&tree, &primary);
    if settings.deduplicate {
        deduplicate(&mut tree, &mut order, settings.threads, &reporter)?;
    }

    // Directories come first: older drivers of NetBSD compute their places in 32 bits.
    let mut at = FIRST_DESCRIPTOR + 2 + u64::from(joliet.is_some());
    for hierarchy in [Some(&mut primary), joliet.as_mut()].into_iter().flatten() {
        for table in &mut hierarchy.path_tables {
            *table = block(at)?;
            at += u64::from(hierarchy.path_table_size).div_ceil(SECTOR_SIZE);
        }
    }
    for hierarchy in [Some(&mut primary), joliet.as_mut()].into_iter().flatten() {
        at = place_directories(&tree, hierarchy, &numbers, at)?;
    }
    let metadata_blocks = block(at)?;
    let mut files = Vec::with_capacity(order.len());
    for number in order {
        let blob = &mut tree.blobs[number as usize];
        if blob.size >= ALIGN_FROM {
            at = at.next_multiple_of(ALIGNMENT / SECTOR_SIZE);
        }
        blob.extent = block(at)?;
        at = at.checked_add(blob.size.div_ceil(SECTOR_SIZE)).ok_or(Error::TooLarge)?;
        files.push(number);
    }
    let blocks = block(at)?.max(FEWEST_BLOCKS);
    let mut warnings = std::mem::take(&mut tree.warnings);
    if primary.directories.len() > PATH_TABLE_MAX {
        warnings.push(Warning { path: PathBuf::from("/"), kind: WarningKind::PathTableFull });
    }
    warnings.sort_by(|a, b| a.path.cmp(&b.path));
    let bytes = files.iter().map(|&blob| tree.blobs[blob as usize].size).sum();
    let label = Label { time: settings.label.time.or_else(|| newest(&tree, &primary)), ..settings.label };
    Ok(Plan {
        tree,
        primary,
        joliet,
        numbers,
        files,
        metadata_blocks,
        blocks,
        bytes,
        label,
        warnings,
        cache: Cache::default(),
        threads: settings.threads,
        reporter,
        sync: settings.sync,
    })
}

/// Counts links and gives out serial numbers, and finds the order of contents. All depend on names alone.
fn number(tree: &Tree, hierarchy: &Hierarchy) -> (Numbers, Vec<u32>) {
    let mut numbers = Numbers { links: vec![0; tree.inodes.len()], serials: vec![0; tree.inodes.len()] };
    let mut met = vec![false; tree.blobs.len()];
    let mut order = Vec::with_capacity(tree.blobs.len());
    let mut serial = 1;
    numbers.serials[ROOT as usize] = serial;
    for directory in &hierarchy.directories {
        for child in hierarchy.children_of(directory) {
            if child.entry == NONE || matches!(child.kind, ChildKind::Placeholder(_)) {
                continue;
            }
            let inode = tree.entries[child.entry as usize].inode;
            let index = inode as usize;
            numbers.links[index] = numbers.links[index].saturating_add(1);
            if numbers.serials[index] == 0 {
                serial += 1;
                numbers.serials[index] = serial;
            }
            let Content::File(blob) = tree.inodes[index].content else { continue };
            let blob = match tree.blobs[blob as usize].source {
                BlobSource::Same(other) => other,
                _ => blob,
            };
            let there = contents(tree, blob).is_some_and(|blob| blob.size > 0);
            if there && !std::mem::replace(&mut met[blob as usize], true) {
                order.push(blob);
            }
        }
    }
    (numbers, order)
}

fn place_directories(
    tree: &Tree,
    hierarchy: &mut Hierarchy,
    numbers: &Numbers,
    start: u64,
) -> Result<u64, Error> {
    let mut system_use = SystemUse::default();
    let mut at = start;
    for place in 0..hierarchy.placed.len() {
        let number = hierarchy.placed[place];
        let records = Records { tree, hierarchy, numbers };
        let (blocks, continuations) = records.measure(number, &mut system_use);
        let directory = &mut hierarchy.directories[number as usize];
        if blocks * SECTOR_SIZE > u32::MAX.into() {
            return Err(Error::TooLarge);
        }
        (directory.extent, directory.blocks, directory.continuations) =
            (block(at)?, block(blocks)?, block(continuations)?);
        at += blocks + continuations;
    }
    Ok(at)
}

/// The latest time in the tree: the default time of the volume. It depends on nothing but the files.
fn newest(tree: &Tree, hierarchy: &Hierarchy) -> Option<i64> {
    let entries = hierarchy.children.iter().filter_map(|child| tree.entries.get(child.entry as usize));
    let inodes = entries.map(|entry| entry.inode).chain([ROOT]);
    inodes.map(|inode| tree.inodes[inode as usize].time).max()
}

fn block(number: u64) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::TooLarge)
}
