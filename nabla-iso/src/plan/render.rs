//! Makes the bytes that come before the files: descriptors, path tables, directories.

use super::{
    Plan,
    hierarchy::{Hierarchy, PATH_TABLE_MAX},
    names::Scheme,
    system_use::SystemUse,
};
use crate::format::{
    FIRST_DESCRIPTOR, SECTOR, SECTOR_SIZE, Timestamp,
    path_table::{Order, PathRecord},
    volume::{self, VolumeDescriptor},
};

/// A part of the image in front of the files, which is made as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything before the first directory.
    Head,
    /// Directories `first..end`, in the order of their places, of the primary tree or of Joliet's.
    Directories { joliet: bool, first: u32, end: u32 },
}

impl Plan {
    /// Appends the bytes of a part.
    pub(crate) fn render(&self, part: Part, system_use: &mut SystemUse, out: &mut Vec<u8>) {
        match part {
            Part::Head => self.render_head(out),
            Part::Directories { joliet, first, end } => {
                let hierarchy = if joliet { self.joliet.as_ref() } else { Some(&self.primary) };
                let Some(hierarchy) = hierarchy else { return };
                let records = self.records(hierarchy);
                for &number in &hierarchy.placed[first as usize..end as usize] {
                    records.render(number, system_use, out);
                }
            }
        }
    }

    /// Where a part begins, in bytes.
    pub(crate) fn part_offset(&self, part: Part) -> u64 {
        match part {
            Part::Head => 0,
            Part::Directories { joliet, first, .. } => {
                let hierarchy = if joliet { self.joliet.as_ref() } else { Some(&self.primary) };
                let directory = hierarchy.and_then(|hierarchy| hierarchy.placed(first));
                directory.map_or(0, |directory| u64::from(directory.extent) * SECTOR_SIZE)
            }
        }
    }

    /// The part in which a block is that lies before the files, with one directory at most.
    pub(crate) fn part_at(&self, block: u32) -> Part {
        let joliet_start = self.joliet.as_ref().map(|joliet| joliet.directories[0].extent);
        let joliet = joliet_start.is_some_and(|start| block >= start);
        let hierarchy = self.joliet.as_ref().filter(|_| joliet).unwrap_or(&self.primary);
        let extent = |number: &u32| hierarchy.directories[*number as usize].extent;
        let after = hierarchy.placed.partition_point(|number| extent(number) <= block);
        match u32::try_from(after) {
            Ok(end @ 1..) => Part::Directories { joliet, first: end - 1, end },
            _ => Part::Head,
        }
    }

    fn render_head(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let end = u64::from(self.primary.directories[0].extent);
        let mut sectors = vec![[0; SECTOR]; usize::try_from(end).unwrap_or(0)];
        let mut at = usize::try_from(FIRST_DESCRIPTOR).unwrap_or(0);
        for hierarchy in self.hierarchies() {
            let root_time = Some(Timestamp::from_seconds(self.tree.inodes[0].time));
            sectors[at] = self.descriptor(hierarchy).encode(root_time);
            at += 1;
        }
        sectors[at] = volume::terminator();
        out.extend_from_slice(sectors.as_flattened());
        for hierarchy in self.hierarchies() {
            for (table, order) in hierarchy.path_tables.into_iter().zip([Order::Little, Order::Big]) {
                path_table(hierarchy, order, &mut out[start + table as usize * SECTOR..]);
            }
        }
    }

    fn descriptor(&self, hierarchy: &Hierarchy) -> VolumeDescriptor {
        let joliet = hierarchy.scheme == Scheme::Joliet;
        let mut volume_id = [b' '; 32];
        let name = self.label.id.as_bytes();
        if joliet {
            let units = name.iter().copied().chain(core::iter::repeat(b' '));
            for (place, unit) in volume_id.chunks_exact_mut(2).zip(units) {
                place.copy_from_slice(&[0, unit]);
            }
        } else {
            volume_id[..name.len()].copy_from_slice(name);
        }
        let root = &hierarchy.directories[0];
        VolumeDescriptor {
            volume_id,
            blocks: self.blocks,
            block_size: 2048,
            path_table_size: hierarchy.path_table_size,
            path_table_le: hierarchy.path_tables[0],
            path_table_be: hierarchy.path_tables[1],
            root_extent: root.extent,
            root_length: u32::try_from(u64::from(root.blocks) * SECTOR_SIZE).unwrap_or(u32::MAX),
            time: self.label.time.map(Timestamp::from_seconds),
            joliet,
            oddity: None,
        }
    }
}

/// Writes a path table to the start of `out`.
fn path_table(hierarchy: &Hierarchy, order: Order, out: &mut [u8]) {
    let mut at = 0;
    for directory in hierarchy.directories.iter().take(PATH_TABLE_MAX) {
        let identifier = hierarchy.identifier(directory.identifier);
        // Parents come before their children, hence have a number that fits.
        let parent = u16::try_from(directory.parent + 1).unwrap_or(u16::MAX);
        let record = PathRecord { extent: directory.extent, parent, identifier };
        at += record.encode(&mut out[at..], order);
    }
    debug_assert_eq!(at, hierarchy.path_table_size as usize);
}
