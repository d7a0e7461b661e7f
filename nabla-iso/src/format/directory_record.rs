//! Directory records (ECMA-119, 9.1).

use super::{
    FormatError, SECTOR, Timestamp,
    int::{first16, first32, to_both16, to_both32},
    time,
};

/// Bytes before the identifier.
pub const HEADER: usize = 33;
/// The longest record; its length is one byte, and records have an even length.
pub const MAX_LENGTH: usize = 254;
/// The identifier of a directory's record of itself, and of its parent (6.8.2.2).
pub const SELF: &[u8] = &[0];
/// See [`SELF`].
pub const PARENT: &[u8] = &[1];

/// The file is a directory (9.1.6).
pub const FLAG_DIRECTORY: u8 = 0x02;
/// The file is associated with another, as a resource fork is (9.1.6).
pub const FLAG_ASSOCIATED: u8 = 0x04;
/// There is another record for the file's next section (9.1.6).
pub const FLAG_MULTI_EXTENT: u8 = 0x80;

/// The fixed fields of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFields {
    /// The first block of the extent, without extended attributes.
    pub extent: u32,
    /// Bytes of the file in this extent.
    pub length: u32,
    /// When it was recorded; nothing where none is given.
    pub time: Option<Timestamp>,
    /// `FLAG_*`.
    pub flags: u8,
}

/// A record in a directory's sector.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryRecord<'a> {
    /// The fixed fields.
    pub fields: RecordFields,
    /// The identifier: [`SELF`], [`PARENT`], or a name.
    pub identifier: &'a [u8],
    /// The system use area.
    pub system_use: &'a [u8],
    /// Bytes of the whole record.
    pub length: usize,
    /// The file is recorded in pieces with gaps between them (9.1.7, 9.1.8), which no reader supports.
    pub interleaved: bool,
    /// What is against the standard and does no harm.
    pub oddity: Option<FormatError>,
}

impl<'a> DirectoryRecord<'a> {
    /// Reads the record at `at` of a directory's sector. Nothing if there is none up to the sector's end.
    ///
    /// # Errors
    ///
    /// Its length or those of its parts are wrong.
    pub fn parse(sector: &'a [u8], at: usize) -> Result<Option<Self>, FormatError> {
        let rest = sector.get(at..).unwrap_or_default();
        let Some(&length) = rest.first() else { return Ok(None) };
        let length = usize::from(length);
        if length == 0 {
            return Ok(None);
        }
        let record =
            rest.get(..length).ok_or(FormatError("a directory record crosses the end of its sector"))?;
        let too_short = FormatError("a directory record is shorter than its parts");
        let identifier_length = usize::from(*record.get(HEADER - 1).ok_or(too_short)?);
        let identifier = record.get(HEADER..HEADER + identifier_length).ok_or(too_short)?;
        if identifier.is_empty() {
            return Err(FormatError("a directory record has no identifier"));
        }
        let (extent, extents_agree) = first32(record, 2).ok_or(too_short)?;
        let (size, sizes_agree) = first32(record, 10).ok_or(too_short)?;
        let (volume, volumes_agree) = first16(record, 28).ok_or(too_short)?;
        let oddity = if !extents_agree {
            Some(FormatError("an extent's location differs between byte orders"))
        } else if !sizes_agree {
            Some(FormatError("an extent's length differs between byte orders"))
        } else if !volumes_agree || volume > 1 {
            Some(FormatError("a file is said to be in another volume"))
        } else {
            None
        };
        // Extended attribute records come first in the extent, in whole blocks.
        let extent = extent.checked_add(record[1].into()).ok_or(FormatError("an extent is out of range"))?;
        let mut date = [0; 7];
        date.copy_from_slice(&record[18..25]);
        // A byte of padding makes the identifier's length odd.
        let system_use = record.get(HEADER + (identifier_length | 1)..).unwrap_or_default();
        let fields = RecordFields { extent, length: size, time: time::from_short(date), flags: record[25] };
        let interleaved = record[26] != 0 || record[27] != 0;
        Ok(Some(Self { fields, identifier, system_use, length, interleaved, oddity }))
    }

    /// Whether it is the directory's record of itself or of its parent.
    #[must_use]
    pub fn is_dot(&self) -> bool {
        self.identifier == SELF || self.identifier == PARENT
    }

    /// Whether the file is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.fields.flags & FLAG_DIRECTORY != 0
    }
}

/// The length of a record with such an identifier and system use area, in bytes, always even.
#[must_use]
pub const fn length(identifier: usize, system_use: usize) -> usize {
    (HEADER + (identifier | 1) + system_use).next_multiple_of(2)
}

/// Writes a record up to the system use area, which follows.
///
/// `length` is that of the whole record: what [`length`] says.
///
/// # Panics
///
/// If the record does not fit into `out` or its length into a byte.
pub fn encode(out: &mut [u8], fields: &RecordFields, identifier: &[u8], length: usize) {
    assert!(length <= MAX_LENGTH && identifier.len() < MAX_LENGTH, "records have up to 254 bytes");
    #[expect(clippy::cast_possible_truncation, reason = "both are below 255")]
    let (length, identifier_length) = (length as u8, identifier.len() as u8);
    out[0] = length;
    out[1] = 0;
    out[2..10].copy_from_slice(&to_both32(fields.extent));
    out[10..18].copy_from_slice(&to_both32(fields.length));
    out[18..25].copy_from_slice(&fields.time.map_or([0; 7], time::to_short));
    out[25] = fields.flags;
    out[26..28].fill(0);
    out[28..32].copy_from_slice(&to_both16(1));
    out[32] = identifier_length;
    out[HEADER..HEADER + identifier.len()].copy_from_slice(identifier);
    if identifier.len().is_multiple_of(2) {
        out[HEADER + identifier.len()] = 0;
    }
}

/// Where the next record of `length` bytes goes in a directory that is `at` bytes long so far: records do not cross
/// sectors (6.8.1.1).
#[must_use]
pub const fn place(at: u64, length: usize) -> u64 {
    let sector = SECTOR as u64;
    if at % sector + length as u64 > sector { at.next_multiple_of(sector) } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(identifier: &[u8], system_use: &[u8]) -> Vec<u8> {
        let mut out = vec![0xff; length(identifier.len(), system_use.len())];
        let time = Some(Timestamp::from_seconds(86_400));
        let length = out.len();
        encode(&mut out, &RecordFields { extent: 20, length: 5, time, flags: 0 }, identifier, length);
        let at = HEADER + (identifier.len() | 1);
        out[at..at + system_use.len()].copy_from_slice(system_use);
        out
    }

    #[test]
    fn records_come_back() {
        for identifier in [&b"A.;1"[..], b"AB.;1", SELF] {
            let bytes = record(identifier, b"SP\x07\x01");
            let parsed = DirectoryRecord::parse(&bytes, 0).unwrap().unwrap();
            assert_eq!(parsed.identifier, identifier);
            assert_eq!(&parsed.system_use[..4], b"SP\x07\x01");
            assert_eq!((parsed.fields.extent, parsed.fields.length), (20, 5));
            assert_eq!(parsed.fields.time, Some(Timestamp::from_seconds(86_400)));
            assert_eq!(parsed.length, bytes.len());
        }
    }

    #[test]
    fn no_record_and_broken_records() {
        assert!(DirectoryRecord::parse(&[0; 10], 3).unwrap().is_none());
        assert!(DirectoryRecord::parse(&[0; 10], 10).unwrap().is_none());
        let good = record(b"A.;1", b"");
        for (at, value) in [(0, 200), (0, 20), (32, 0), (32, 60)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert!(DirectoryRecord::parse(&bytes, 0).is_err(), "{at}");
        }
    }

    #[test]
    fn odd_records_are_read_as_other_readers_do_and_named() {
        let good = record(b"A.;1", b"");
        let parsed = DirectoryRecord::parse(&good, 0).unwrap().unwrap();
        assert!(parsed.oddity.is_none() && !parsed.interleaved);
        for (at, value) in [(2, 1), (6, 1), (10, 1), (14, 1), (28, 9), (30, 9)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let odd = DirectoryRecord::parse(&bytes, 0).unwrap().unwrap();
            assert!(odd.oddity.is_some(), "{at}");
            let expected = (if at == 2 { 1 } else { 20 }, if at == 10 { 1 } else { 5 });
            assert_eq!((odd.fields.extent, odd.fields.length), expected, "{at}");
        }
        let mut bytes = good;
        bytes[26] = 1;
        assert!(DirectoryRecord::parse(&bytes, 0).unwrap().unwrap().interleaved);
    }

    #[test]
    fn records_do_not_cross_sectors() {
        assert_eq!(place(2000, 48), 2000);
        assert_eq!(place(2000, 50), 2048);
        assert_eq!(place(2048, 254), 2048);
    }
}
