//! The Rock Ridge Interchange Protocol: POSIX names, modes, owners, links, devices and times.

use super::{
    FormatError, Timestamp,
    int::{first32, to_both32},
    time,
};

/// Bits of a mode that say what kind of file it is.
pub const S_IFMT: u32 = 0o170_000;
/// A socket.
pub const S_IFSOCK: u32 = 0o140_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A block device.
pub const S_IFBLK: u32 = 0o060_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A character device.
pub const S_IFCHR: u32 = 0o020_000;
/// A named pipe.
pub const S_IFIFO: u32 = 0o010_000;

/// The name, or a component of a link, goes on in the next entry (RRIP 4.1.3, 4.1.4).
pub const CONTINUE: u8 = 0x01;
/// A component that is `.`.
pub const CURRENT: u8 = 0x02;
/// A component that is `..`.
pub const PARENT: u8 = 0x04;
/// A component that is `/`.
pub const ROOT: u8 = 0x08;

/// Bytes of an `NM` entry before the name, and of an `SL` entry before the components.
pub const NM_HEADER: usize = 5;
/// The most that one `NM` entry holds of a name.
pub const NM_MAX: usize = 250;

/// The entry that names this protocol (SUSP 5.5): in the root directory's record of itself, or continued from there. Of its
/// names, this is the one that every reader knows (pycdlib does not know `IEEE_1282`).
pub const ER: &[u8] = b"ER\xb9\x01\x0a\x49\x5e\x01IEEE_P1282\
THE IEEE P1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS.\
PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE P1282 SPECIFICATION.";

/// A relocated directory (RRIP 4.1.5.3); also marks the directory in which they are.
pub const RE: [u8; 4] = *b"RE\x04\x01";

/// A number in both byte orders, of which the first half counts.
fn first_half(data: &[u8], at: usize, broken: &'static str) -> Result<u32, FormatError> {
    first32(data, at).map(|(value, _)| value).ok_or(FormatError(broken))
}

/// POSIX attributes (RRIP 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Kind and permissions, as `st_mode` has them.
    pub mode: u32,
    /// Names that the file has.
    pub links: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The file's serial number, the same for all its names; nothing in the protocol's first version.
    pub serial: Option<u32>,
}

impl Attributes {
    /// Reads the data of a `PX` entry.
    ///
    /// # Errors
    ///
    /// It is too short or broken.
    pub fn parse(data: &[u8]) -> Result<Self, FormatError> {
        let field = |at| first_half(data, at, "attributes (PX) are broken");
        let serial = if data.len() >= 40 { Some(field(32)?) } else { None };
        Ok(Self { mode: field(0)?, links: field(8)?, uid: field(16)?, gid: field(24)?, serial })
    }

    /// The whole entry, with serial number.
    #[must_use]
    pub fn encode(&self) -> [u8; 44] {
        let mut entry = [0; 44];
        entry[..4].copy_from_slice(b"PX\x2c\x01");
        let fields = [self.mode, self.links, self.uid, self.gid, self.serial.unwrap_or_default()];
        for (place, field) in entry[4..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&to_both32(field));
        }
        entry
    }
}

/// A device's number in the form of `dev_t` in Linux and NetBSD.
///
/// The drivers and programs disagree on how a `PN` entry holds it. The halves of a 64-bit `dev_t`, which is what
/// mkisofs, libisofs and libarchive take it for, are understood the same by the drivers of Linux and NetBSD as long as
/// the major number is below 4096 and the minor number below 256.
#[must_use]
pub const fn device_number(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// Major and minor number of a [`device_number`].
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the bits are those of the numbers")]
pub const fn device_parts(number: u64) -> (u32, u32) {
    let major = (number >> 8 & 0xfff) | (number >> 32 & 0xffff_f000);
    let minor = (number & 0xff) | (number >> 12 & 0xffff_ff00);
    (major as u32, minor as u32)
}

/// The whole `PN` entry of a device (RRIP 4.1.2).
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the number is written in two halves")]
pub fn encode_device(number: u64) -> [u8; 20] {
    let mut entry = [0; 20];
    entry[..4].copy_from_slice(b"PN\x14\x01");
    entry[4..12].copy_from_slice(&to_both32((number >> 32) as u32));
    entry[12..20].copy_from_slice(&to_both32(number as u32));
    entry
}

/// Reads the data of a `PN` entry, as a [`device_number`].
///
/// # Errors
///
/// It is broken.
pub fn parse_device(data: &[u8]) -> Result<u64, FormatError> {
    let field = |at| first_half(data, at, "a device's number (PN) is broken");
    let (high, low) = (field(0)?, field(8)?);
    // Some writers put the major number into the first half.
    if high != 0 && high & 0xfff != 0 {
        return Ok(device_number(high, low));
    }
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// The whole `CL` or `PL` entry that points to a directory (RRIP 4.1.5).
#[must_use]
pub fn encode_link(signature: [u8; 2], block: u32) -> [u8; 12] {
    let mut entry = [0; 12];
    entry[..2].copy_from_slice(&signature);
    entry[2..4].copy_from_slice(b"\x0c\x01");
    entry[4..12].copy_from_slice(&to_both32(block));
    entry
}

/// Reads the data of a `CL` or `PL` entry: the first block of a directory.
///
/// # Errors
///
/// It is broken.
pub fn parse_link(data: &[u8]) -> Result<u32, FormatError> {
    first_half(data, 0, "a directory's relocation (CL, PL) is broken")
}

/// Flags of `TF` (RRIP 4.1.6).
const TF_CREATION: u8 = 0x01;
const TF_MODIFY: u8 = 0x02;
const TF_LONG_FORM: u8 = 0x80;
/// The longest `TF` entry that is written here.
pub const TF_MAX: usize = 5 + 17;

/// Writes the `TF` entry with the time of the last modification to `out`, and returns its length.
///
/// The short form is what all drivers read; the long form is only used where the short one cannot express the time.
pub fn encode_time(time: Timestamp, out: &mut [u8; TF_MAX]) -> usize {
    out[..2].copy_from_slice(b"TF");
    out[3] = 1;
    if time::SHORT_RANGE.contains(&time.seconds) {
        (out[2], out[4]) = (12, TF_MODIFY);
        out[5..12].copy_from_slice(&time::to_short(time));
        12
    } else {
        (out[2], out[4]) = (22, TF_MODIFY | TF_LONG_FORM);
        out[5..22].copy_from_slice(&time::to_long(time));
        22
    }
}

/// Reads the time of the last modification from the data of a `TF` entry, if it is there and a date.
#[must_use]
pub fn parse_time(data: &[u8]) -> Option<Timestamp> {
    let (&flags, dates) = data.split_first()?;
    if flags & TF_MODIFY == 0 {
        return None;
    }
    let index = usize::from(flags & TF_CREATION);
    if flags & TF_LONG_FORM != 0 {
        time::from_long(dates.get(17 * index..)?.first_chunk()?)
    } else {
        time::from_short(*dates.get(7 * index..)?.first_chunk()?)
    }
}

/// A component of a symbolic link, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component<'a> {
    /// [`CONTINUE`], [`CURRENT`], [`PARENT`], [`ROOT`].
    pub flags: u8,
    /// Its text, unless a flag says it.
    pub text: &'a [u8],
}

/// Components in the data of an `SL` entry, after its flags.
#[derive(Debug, Clone)]
pub struct Components<'a>(&'a [u8]);

impl<'a> Components<'a> {
    /// Those of an entry's data, and whether the link goes on in another entry.
    ///
    /// # Errors
    ///
    /// The entry is empty.
    pub fn parse(data: &'a [u8]) -> Result<(Self, bool), FormatError> {
        let (&flags, components) = data.split_first().ok_or(FormatError("a symbolic link (SL) is empty"))?;
        Ok((Self(components), flags & CONTINUE != 0))
    }
}

impl<'a> Iterator for Components<'a> {
    type Item = Result<Component<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = core::mem::take(&mut self.0);
        let (&[flags, length], rest) = bytes.split_first_chunk()?;
        let Some((text, rest)) = rest.split_at_checked(length.into()) else {
            return Some(Err(FormatError("a component of a symbolic link (SL) has a wrong length")));
        };
        self.0 = rest;
        Some(Ok(Component { flags, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_reference_is_consistent() {
        let text = usize::from(ER[4]) + usize::from(ER[5]) + usize::from(ER[6]);
        assert_eq!(usize::from(ER[2]), ER.len());
        assert_eq!(8 + text, ER.len());
        assert_eq!(&ER[8..8 + usize::from(ER[4])], b"IEEE_P1282");
    }

    #[test]
    fn attributes_come_back_with_and_without_serial_number() {
        let px = Attributes { mode: 0o104_755, links: 2, uid: 1000, gid: u32::MAX, serial: Some(7) };
        let entry = px.encode();
        assert_eq!(Attributes::parse(&entry[4..]), Ok(px));
        assert_eq!(Attributes::parse(&entry[4..36]), Ok(Attributes { serial: None, ..px }));
        assert!(Attributes::parse(&entry[4..35]).is_err());
    }

    #[test]
    fn device_numbers_come_back_and_are_understood_from_other_writers() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 70_000), (4095, 1 << 20), (5000, 3)] {
            assert_eq!(device_parts(device_number(major, minor)), (major, minor));
        }
        for (major, minor) in [(0, 0), (1, 3), (259, 70_000)] {
            let number = device_number(major, minor);
            assert_eq!(parse_device(&encode_device(number)[4..]), Ok(number));
        }
        let halves = [to_both32(8), to_both32(1)].concat();
        assert_eq!(parse_device(&halves).map(device_parts), Ok((8, 1)));
    }

    #[test]
    fn times_take_the_short_form_where_it_can_express_them() {
        let mut entry = [0; TF_MAX];
        for (seconds, length) in [(-1, 12), (1 << 32, 12), (1 << 33, 22), (-3_000_000_000, 22)] {
            let time = Timestamp::from_seconds(seconds);
            assert_eq!(encode_time(time, &mut entry), length);
            assert_eq!(parse_time(&entry[4..length]), Some(time));
        }
        assert_eq!(
            parse_time(b"\x03\0\0\0\0\0\0\0\x46\x01\x02\0\0\0\0"),
            Some(Timestamp::from_seconds(86_400))
        );
        assert_eq!(parse_time(b"\x01\x46\x01\x02\0\0\0\0"), None);
        assert_eq!(parse_time(b"\x02\x46"), None);
    }

    #[test]
    fn components_with_wrong_lengths_are_refused() {
        let (components, more) = Components::parse(b"\x01\x08\0\0\x01a").unwrap();
        assert!(more);
        assert_eq!(components.map(Result::unwrap).map(|part| part.flags).collect::<Vec<_>>(), [ROOT, 0]);
        let (components, _) = Components::parse(b"\0\0\x02a").unwrap();
        assert!(components.last().unwrap().is_err());
    }
}
