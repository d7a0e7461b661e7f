//! The System Use Sharing Protocol: how several extensions share the system use area of directory records.

use super::{
    FormatError, SECTOR,
    int::{first32, to_both32},
};

/// Bytes before an entry's data: signature, length, version (SUSP 4.1).
pub const HEADER: usize = 4;
/// The whole length of a `CE` entry (SUSP 5.1).
pub const CE_LENGTH: usize = 28;
/// The whole length of an `SP` entry (SUSP 5.3).
pub const SP_LENGTH: usize = 7;
/// How many continuation areas of one record are followed; Linux follows as many.
pub const MAX_AREAS: u32 = 32;

/// An entry of a system use area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub signature: [u8; 2],
    /// The version of that.
    pub version: u8,
    /// What follows the header.
    pub data: &'a [u8],
}

/// The entries of a system use area or a continuation area. Ends at `ST`, at the first zero, and after an error.
#[derive(Debug, Clone)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// Those in `area`.
    #[must_use]
    pub const fn new(area: &'a [u8]) -> Self {
        Self(area)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let area = core::mem::take(&mut self.0);
        // Fewer than four bytes are padding (SUSP 4).
        let (&[a, b, length, version], _) = area.split_first_chunk()?;
        if a == 0 || [a, b] == *b"ST" {
            return None;
        }
        let Some(data) = area.get(HEADER..length.into()) else {
            return Some(Err(FormatError("a system use entry has a wrong length")));
        };
        self.0 = &area[usize::from(length)..];
        Some(Ok(Entry { signature: [a, b], version, data }))
    }
}

/// Where a record's entries go on (SUSP 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuation {
    /// The block.
    pub block: u32,
    /// The offset in the block, in bytes.
    pub offset: u32,
    /// How many bytes there are.
    pub length: u32,
}

impl Continuation {
    /// Reads the data of a `CE` entry.
    ///
    /// # Errors
    ///
    /// It is broken, or the area leaves its block: SUSP does not forbid that, but no driver reads it.
    pub fn parse(data: &[u8]) -> Result<Self, FormatError> {
        let field = |at| {
            first32(data, at).map(|(value, _)| value).ok_or(FormatError("a continuation (CE) is broken"))
        };
        let area = Self { block: field(0)?, offset: field(8)?, length: field(16)? };
        match area.offset.checked_add(area.length) {
            Some(end) if end as usize <= SECTOR => Ok(area),
            _ => Err(FormatError("a continuation area (CE) leaves its block")),
        }
    }

    /// The whole entry.
    #[must_use]
    pub fn encode(&self) -> [u8; CE_LENGTH] {
        let mut entry = [0; CE_LENGTH];
        entry[..4].copy_from_slice(b"CE\x1c\x01");
        entry[4..12].copy_from_slice(&to_both32(self.block));
        entry[12..20].copy_from_slice(&to_both32(self.offset));
        entry[20..28].copy_from_slice(&to_both32(self.length));
        entry
    }
}

/// The entry that says that the protocol is used: the first of the root directory's record of itself (SUSP 5.3).
pub const SP: [u8; SP_LENGTH] = *b"SP\x07\x01\xbe\xef\x00";

/// Whether the numbers in both byte orders in an entry's data agree.
#[must_use]
pub fn halves_agree(entry: &Entry<'_>) -> bool {
    matches!(&entry.signature, b"PX" | b"PN" | b"CL" | b"PL" | b"CE")
        .then(|| entry.data.as_chunks::<8>().0)
        .is_none_or(|numbers| numbers.iter().all(|number| first32(number, 0).is_some_and(|(_, agree)| agree)))
}

/// How many bytes of every system use area are reserved for other uses, if the root directory's record of itself says
/// that the protocol is used. 15 bytes of CD-ROM XA may stand before the entry. The first images with Rock Ridge had none,
/// but began with `RR` or `PX`.
#[must_use]
pub fn skip(system_use: &[u8]) -> Option<u8> {
    let marked = [0, 14, 15].into_iter().find_map(|at| {
        let entry = system_use.get(at..)?.first_chunk::<SP_LENGTH>()?;
        (entry[..6] == SP[..6]).then_some(entry[6])
    });
    let old = [&b"RR\x05\x01"[..], b"PX\x24\x01", b"PX\x2c\x01"];
    let old = old.into_iter().any(|entry| system_use.starts_with(entry));
    marked.or(old.then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_at_stops_padding_and_errors() {
        let signatures = |area| {
            let entries: Vec<_> =
                Entries::new(area).map(|entry| entry.map(|entry| entry.signature)).collect();
            entries
        };
        assert_eq!(signatures(b"AB\x05\x01xCD\x04\x01\0"), [Ok(*b"AB"), Ok(*b"CD")]);
        assert_eq!(signatures(b"AB\x04\x01ST\x04\x01CD\x04\x01"), [Ok(*b"AB")]);
        assert_eq!(signatures(b"\0\0\0\0AB\x04\x01"), []);
        for bad in [&b"AB\x03\x01"[..], b"AB\x05\x01", b"AB\0\x01"] {
            assert!(matches!(signatures(bad)[..], [Err(_)]));
        }
    }

    #[test]
    fn continuations_come_back_unless_they_leave_their_block() {
        let area = Continuation { block: 7, offset: 2000, length: 48 };
        assert_eq!(Continuation::parse(&area.encode()[4..]), Ok(area));
        for (offset, length) in [(2000, 49), (u32::MAX, 2)] {
            assert!(Continuation::parse(&Continuation { block: 7, offset, length }.encode()[4..]).is_err());
        }
    }

    #[test]
    fn protocol_is_found_behind_xa() {
        assert_eq!(skip(&SP), Some(0));
        let mut area = [0; 22];
        area[15..].copy_from_slice(b"SP\x07\x01\xbe\xef\x0f");
        assert_eq!(skip(&area), Some(15));
        assert_eq!(skip(b"PX\x24\x01"), Some(0));
        assert_eq!(skip(b"XX\x24\x01"), None);
    }
}
