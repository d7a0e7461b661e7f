//! Volume descriptors (ECMA-119, 8).

use super::{
    FormatError, SECTOR, Timestamp,
    directory_record::{self, DirectoryRecord, RecordFields},
    int::{be32, both16, both32, le32, to_both16, to_both32},
    time,
};

/// What is in the primary descriptor, or in the supplementary one of Joliet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeDescriptor {
    /// The volume's name, padded with spaces; in UCS-2 for Joliet.
    pub volume_id: [u8; 32],
    /// Blocks of the volume.
    pub blocks: u32,
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
            2 if sector[7] & 1 == 0 && joliet_level(sector).is_some() => {
                VolumeDescriptor::parse(sector, true).map(Self::Joliet)
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
        if sector[6] != 1 && sector[6] != 2 {
            return Err(FormatError("the volume descriptor has an unknown version"));
        }
        let block = both16(sector, 128).ok_or(FormatError("the block size differs between byte orders"))?;
        if usize::from(block) != SECTOR {
            return Err(FormatError("the block size is not 2048"));
        }
        let blocks =
            both32(sector, 80).ok_or(FormatError("the volume's size differs between byte orders"))?;
        let path_table_size =
            both32(sector, 132).ok_or(FormatError("the path table's size differs between byte orders"))?;
        let root = DirectoryRecord::parse(&sector[156..190], 0)?
            .filter(|root| root.is_directory() && root.identifier == directory_record::SELF)
            .ok_or(FormatError("there is no root directory"))?;
        let mut volume_id = [0; 32];
        volume_id.copy_from_slice(&sector[40..72]);
        let mut modified = [0; 17];
        modified.copy_from_slice(&sector[830..847]);
        Ok(Self {
            volume_id,
            blocks,
            path_table_size,
            path_table_le: le32(sector, 140).unwrap_or_default(),
            path_table_be: be32(sector, 148).unwrap_or_default(),
            root_extent: root.fields.extent,
            root_length: root.fields.length,
            time: time::from_long(&modified),
            joliet,
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
        sector[128..132].copy_from_slice(&to_both16(2048));
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
            path_table_size: 10,
            path_table_le: 19,
            path_table_be: 20,
            root_extent: 21,
            root_length: 2048,
            time: Some(Timestamp::from_seconds(1)),
            joliet,
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
        for at in [1, 80, 129, 132, 156, 158, 166] {
            let mut bad = good;
            bad[at] ^= 0x41;
            assert!(Descriptor::parse(&bad).is_err(), "{at}");
        }
    }
}
