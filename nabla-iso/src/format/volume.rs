//! Volume descriptors (ECMA-119, 8).

use super::{
    FormatError, SECTOR, Timestamp,
    directory_record::{self, DirectoryRecord, RecordFields},
    int::{be32, first16, first32, le32, to_both16, to_both32},
    time,
};

/// What is in the primary descriptor, or in the supplementary one of Joliet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeDescriptor {
    /// The volume's name, padded with spaces; in UCS-2 for Joliet.
    pub volume_id: [u8; 32],
    /// Blocks of the volume.
    pub blocks: u32,
    /// Bytes of a block: 2048, or less in images of some programs.
    pub block_size: u16,
    /// Bytes of a path table.
    pub path_table_size: u32,
    /// The first block of the path table in little-endian order.
    pub path_table_le: u32,
    /// The first block of the path table in big-endian order.
    pub path_table_be: u32,
    /// The first block of the root directory.
    pub root_extent: u32,
    /// Bytes of the root directory.
    pub root_length: u32,
    /// When it was made and changed last; nothing if that is not said.
    pub time: Option<Timestamp>,
    /// Whether it is the descriptor of a Joliet tree.
    pub joliet: bool,
    /// What is against the standard and does no harm.
    pub oddity: Option<FormatError>,
}

/// One of the volume descriptors that begin at sector 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// The primary one (8.4).
    Primary(VolumeDescriptor),
    /// A supplementary one (8.5) whose escape sequences are those of Joliet.
    Joliet(VolumeDescriptor),
    /// The end of the descriptors (8.3).
    Terminator,
    /// Another: boot record, partition, or a supplementary one in another character set.
    Other,
}

impl Descriptor {
    /// Reads the descriptor in a sector.
    ///
    /// # Errors
    ///
    /// It is none, or one of those that are read is broken.
    pub fn parse(sector: &[u8; SECTOR]) -> Result<Self, FormatError> {
        if &sector[1..6] != b"CD001" {
            return Err(FormatError("there is no volume descriptor (not an ISO 9660 image?)"));
        }
        match sector[0] {
            1 => VolumeDescriptor::parse(sector, false).map(Self::Primary),
            // A broken one only means that there are no such names.
            2 if sector[7] & 1 == 0 && joliet_level(sector).is_some() => {
                Ok(VolumeDescriptor::parse(sector, true).map_or(Self::Other, Self::Joliet))
            }
            255 => Ok(Self::Terminator),
            _ => Ok(Self::Other),
        }
    }
}

/// The level of Joliet that the escape sequences say.
fn joliet_level(sector: &[u8; SECTOR]) -> Option<u8> {
    match &sector[88..91] {
        b"%/@" => Some(1),
        b"%/C" => Some(2),
        b"%/E" => Some(3),
        _ => None,
    }
}

impl VolumeDescriptor {
    fn parse(sector: &[u8; SECTOR], joliet: bool) -> Result<Self, FormatError> {
        // All of these are there: the sector is long enough.
        let (block_size, block_sizes_agree) = first16(sector, 128).unwrap_or_default();
        if !matches!(block_size, 512 | 1024 | 2048) {
            return Err(FormatError("the block size is not 512, 1024 or 2048"));
        }
        let (blocks, sizes_agree) = first32(sector, 80).unwrap_or_default();
        let (path_table_size, table_sizes_agree) = first32(sector, 132).unwrap_or_default();
        // Its length is 34, whatever it says, and what it is follows from where it is.
        let mut root_record = [0; 34];
        root_record.copy_from_slice(&sector[156..190]);
        (root_record[0], root_record[32]) = (34, 1);
        let root =
            DirectoryRecord::parse(&root_record, 0)?.ok_or(FormatError("there is no root directory"))?;
        let oddity = if sector[6] != 1 && sector[6] != 2 {
            Some(FormatError("the volume descriptor has an unknown version"))
        } else if !block_sizes_agree || !sizes_agree || !table_sizes_agree {
            Some(FormatError("a number of the volume descriptor differs between byte orders"))
        } else if sector[156] != 34 || sector[188..190] != [1, 0] || !root.is_directory() {
            Some(FormatError("the root directory's record in the volume descriptor is broken"))
        } else {
            root.oddity
        };
        let mut volume_id = [0; 32];
        volume_id.copy_from_slice(&sector[40..72]);
        let mut modified = [0; 17];
        modified.copy_from_slice(&sector[830..847]);
        Ok(Self {
            volume_id,
            blocks,
            block_size,
            path_table_size,
            path_table_le: le32(sector, 140).unwrap_or_default(),
            path_table_be: be32(sector, 148).unwrap_or_default(),
            root_extent: root.fields.extent,
            root_length: root.fields.length,
            time: time::from_long(&modified),
            joliet,
            oddity,
        })
    }

    /// Its sector. `root_time` is that of the root directory's record.
    #[must_use]
    pub fn encode(&self, root_time: Option<Timestamp>) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        let space: &[u8] = if self.joliet { &[0, b' '] } else { b" " };
        let mut blank = |range: core::ops::Range<usize>| {
            for (at, byte) in sector[range].iter_mut().enumerate() {
                *byte = space[at % space.len()];
            }
        };
        // System and volume identifiers; volume set, publisher, preparer and application; three file names of 37 bytes.
        blank(8..40);
        blank(190..702);
        for name in [702, 739, 776] {
            // In UCS-2, the last byte is half a character, and zero.
            blank(name..name + if self.joliet { 36 } else { 37 });
        }
        sector[0] = if self.joliet { 2 } else { 1 };
        sector[1..6].copy_from_slice(b"CD001");
        sector[6] = 1;
        sector[40..72].copy_from_slice(&self.volume_id);
        sector[80..88].copy_from_slice(&to_both32(self.blocks));
        if self.joliet {
            sector[88..91].copy_from_slice(b"%/E");
        }
        sector[120..124].copy_from_slice(&to_both16(1));
        sector[124..128].copy_from_slice(&to_both16(1));
        sector[128..132].copy_from_slice(&to_both16(self.block_size));
        sector[132..140].copy_from_slice(&to_both32(self.path_table_size));
        sector[140..144].copy_from_slice(&self.path_table_le.to_le_bytes());
        sector[148..152].copy_from_slice(&self.path_table_be.to_be_bytes());
        let root = RecordFields {
            extent: self.root_extent,
            length: self.root_length,
            time: root_time,
            flags: directory_record::FLAG_DIRECTORY,
        };
        directory_record::encode(&mut sector[156..190], &root, directory_record::SELF, 34);
        let date = self.time.map_or(time::LONG_UNSPECIFIED, time::to_long);
        // Creation, modification, expiration, effective.
        sector[813..830].copy_from_slice(&date);
        sector[830..847].copy_from_slice(&date);
        sector[847..864].copy_from_slice(&time::LONG_UNSPECIFIED);
        sector[864..881].copy_from_slice(&date);
        sector[881] = 1;
        sector
    }

    /// The volume's name without the padding.
    #[must_use]
    pub fn volume_name(&self) -> &[u8] {
        self.volume_id.trim_ascii_end()
    }
}

/// The sector that ends the volume descriptors (8.3).
#[must_use]
pub fn terminator() -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..7].copy_from_slice(b"\xffCD001\x01");
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(joliet: bool) -> VolumeDescriptor {
        VolumeDescriptor {
            volume_id: *b"NABLA                           ",
            blocks: 1000,
            block_size: 2048,
            path_table_size: 10,
            path_table_le: 19,
            path_table_be: 20,
            root_extent: 21,
            root_length: 2048,
            time: Some(Timestamp::from_seconds(1)),
            joliet,
            oddity: None,
        }
    }

    #[test]
    fn descriptors_come_back() {
        let primary = descriptor(false);
        assert_eq!(Descriptor::parse(&primary.encode(None)), Ok(Descriptor::Primary(primary)));
        assert_eq!(primary.volume_name(), b"NABLA");
        let joliet = descriptor(true);
        assert_eq!(Descriptor::parse(&joliet.encode(None)), Ok(Descriptor::Joliet(joliet)));
        assert_eq!(Descriptor::parse(&terminator()), Ok(Descriptor::Terminator));
    }

    #[test]
    fn broken_descriptors_are_refused() {
        let good = descriptor(false).encode(None);
        for at in [1, 129] {
            let mut bad = good;
            bad[at] ^= 0x41;
            assert!(Descriptor::parse(&bad).is_err(), "{at}");
        }
    }

    #[test]
    fn odd_descriptors_are_read_as_other_readers_do_and_named() {
        let good = descriptor(false).encode(None);
        for at in [6, 84, 130, 136, 156, 162, 170, 188] {
            let mut odd = good;
            odd[at] ^= 0x41;
            let Ok(Descriptor::Primary(found)) = Descriptor::parse(&odd) else { panic!("{at}") };
            assert!(found.oddity.is_some(), "{at}");
            assert_eq!(VolumeDescriptor { oddity: None, ..found }, descriptor(false), "{at}");
        }
    }
}
