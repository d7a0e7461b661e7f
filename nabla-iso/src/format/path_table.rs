//! Path tables (ECMA-119, 6.9 and 9.4).

use super::{
    FormatError,
    int::{be16, be32, le16, le32},
};

/// In which order a path table's numbers have their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Least significant byte first: the L table.
    Little,
    /// Most significant byte first: the M table.
    Big,
}

/// The record of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRecord<'a> {
    /// The directory's first block.
    pub extent: u32,
    /// The number of its parent's record, counted from 1.
    pub parent: u16,
    /// Its identifier; one zero byte for the root.
    pub identifier: &'a [u8],
}

/// The length of a record with such an identifier, in bytes.
#[must_use]
pub const fn length(identifier: usize) -> usize {
    8 + identifier.next_multiple_of(2)
}

impl<'a> PathRecord<'a> {
    /// Reads the record at the start of `bytes`, and returns its length.
    ///
    /// # Errors
    ///
    /// It has no identifier or is cut off.
    pub fn parse(bytes: &'a [u8], order: Order) -> Result<(Self, usize), FormatError> {
        let cut = FormatError("a path table's record is cut off");
        let identifier_length = usize::from(*bytes.first().ok_or(cut)?);
        if identifier_length == 0 {
            return Err(FormatError("a path table's record has no identifier"));
        }
        let identifier = bytes.get(8..8 + identifier_length).ok_or(cut)?;
        let (extent, parent) = match order {
            Order::Little => (le32(bytes, 2), le16(bytes, 6)),
            Order::Big => (be32(bytes, 2), be16(bytes, 6)),
        };
        let extent = extent.ok_or(cut)?.checked_add(bytes[1].into()).ok_or(cut)?;
        let record = Self { extent, parent: parent.ok_or(cut)?, identifier };
        Ok((record, length(identifier_length).min(bytes.len())))
    }

    /// Writes the record to the start of `out` and returns its length.
    ///
    /// # Panics
    ///
    /// If it does not fit or the identifier has more than 255 bytes.
    #[must_use]
    pub fn encode(&self, out: &mut [u8], order: Order) -> usize {
        let length = length(self.identifier.len());
        out[..length].fill(0);
        out[0] = u8::try_from(self.identifier.len())
            .unwrap_or_else(|_| panic!("identifiers have up to 255 bytes"));
        match order {
            Order::Little => {
                out[2..6].copy_from_slice(&self.extent.to_le_bytes());
                out[6..8].copy_from_slice(&self.parent.to_le_bytes());
            }
            Order::Big => {
                out[2..6].copy_from_slice(&self.extent.to_be_bytes());
                out[6..8].copy_from_slice(&self.parent.to_be_bytes());
            }
        }
        out[8..8 + self.identifier.len()].copy_from_slice(self.identifier);
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_both_orders() {
        for order in [Order::Little, Order::Big] {
            for identifier in [&b"\0"[..], b"AB", b"ABC"] {
                let record = PathRecord { extent: 0x12345, parent: 0x102, identifier };
                let mut bytes = [0xff; 20];
                let length = record.encode(&mut bytes, order);
                assert_eq!(length % 2, 0);
                assert_eq!(PathRecord::parse(&bytes, order), Ok((record, length)));
                assert!(PathRecord::parse(&bytes[..7 + identifier.len()], order).is_err());
            }
        }
    }
}
