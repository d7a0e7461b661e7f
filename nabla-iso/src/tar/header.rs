//! Blocks that describe a member.

use super::{
    block::{BLOCK, broken},
    field,
};
use std::io;

/// Who has written a header, which decides what is after the fields that all have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Nothing is there.
    V7,
    /// More of the path, of up to 155 bytes; also where pax headers go before it.
    Ustar,
    /// More of the path, of up to 130 bytes, and times.
    Star,
    /// Times, and the map of a sparse file.
    Gnu,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// What POSIX says about types that a reader does not know: it is a regular file.
    Unknown,
}

/// A block whose checksum is right.
#[derive(Debug, Clone)]
pub struct Header {
    bytes: [u8; BLOCK],
}

impl Header {
    /// The header in a block; nothing if its checksum is wrong.
    pub fn parse(bytes: &[u8; BLOCK]) -> Option<Self> {
        let field = 148..156;
        let expected = field::number(&bytes[field.clone()])?;
        let others = || bytes.iter().enumerate().filter(|(at, _)| !field.contains(at)).map(|(_, &byte)| byte);
        let blanks = 8 * i64::from(b' ');
        let unsigned: i64 = others().map(i64::from).sum();
        // Some old programs summed what their `char` was. What six digits do not hold is cut off.
        let signed: i64 = others().map(|byte| i64::from(byte.cast_signed())).sum();
        let cut = 0o777_777;
        let right = expected == unsigned + blanks || expected & cut == (signed + blanks) & cut;
        right.then_some(Self { bytes: *bytes })
    }

    pub fn type_flag(&self) -> u8 {
        self.bytes[156]
    }

    pub fn dialect(&self) -> Dialect {
        if &self.bytes[257..265] == b"ustar  \0" {
            Dialect::Gnu
        } else if &self.bytes[257..262] != b"ustar" {
            Dialect::V7
        } else if self.is_star() {
            Dialect::Star
        } else {
            Dialect::Ustar
        }
    }

    /// star and xstar put two times after a shorter prefix, and the newer one a mark at the end.
    fn is_star(&self) -> bool {
        let is_time = |time: &[u8]| {
            time[0].is_ascii_digit()
                && time[..11].iter().all(|b| matches!(b, b'0'..=b'7' | b' '))
                && time[11] == b' '
        };
        &self.bytes[508..512] == b"tar\0"
            || (self.bytes[475] == 0 && is_time(&self.bytes[476..488]) && is_time(&self.bytes[488..500]))
    }

    /// The path, in which ustar puts the part that does not fit before it.
    pub fn path(&self) -> Vec<u8> {
        let name = field::text(&self.bytes[..100]);
        let prefix = match self.dialect() {
            Dialect::Ustar => field::text(&self.bytes[345..500]),
            Dialect::Star => field::text(&self.bytes[345..475]),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// The target of a link.
    pub fn link(&self) -> Vec<u8> {
        field::text(&self.bytes[157..257]).to_vec()
    }

    /// Bytes that follow.
    pub fn size(&self) -> io::Result<u64> {
        field::number(&self.bytes[124..136])
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| broken("its size is no number"))
    }

    /// Numbers of which nothing depends but themselves: what is no number is zero, as for libarchive.
    fn lenient(&self, range: core::ops::Range<usize>) -> i64 {
        field::number(&self.bytes[range]).unwrap_or(0)
    }

    pub fn mode(&self) -> u32 {
        u32::try_from(self.lenient(100..108) & 0o7777).unwrap_or(0)
    }

    pub fn uid(&self) -> i64 {
        self.lenient(108..116)
    }

    pub fn gid(&self) -> i64 {
        self.lenient(116..124)
    }

    /// Seconds since 1970.
    pub fn time(&self) -> i64 {
        self.lenient(136..148)
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> (i64, i64) {
        match self.dialect() {
            Dialect::V7 => (0, 0),
            _ => (self.lenient(329..337), self.lenient(337..345)),
        }
    }

    /// The map of a sparse file of GNU's or star's old format: its first parts, whether a block with more follows, and
    /// the size of the file.
    pub fn sparse(&self) -> (&[u8], bool, Option<i64>) {
        let (parts, more, size) = match self.dialect() {
            Dialect::Gnu | Dialect::V7 => (386..482, 482, 483..495),
            Dialect::Ustar | Dialect::Star => (356..452, 355, 452..464),
        };
        (&self.bytes[parts], self.bytes[more] != 0, field::number(&self.bytes[size]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(change: impl Fn(&mut [u8; BLOCK]), sum: impl Fn(&[u8; BLOCK]) -> i64) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        bytes[..4].copy_from_slice(b"name");
        bytes[148..156].fill(b' ');
        change(&mut bytes);
        let sum = format!("{:06o}\0 ", sum(&bytes) & 0o777_777);
        bytes[148..156].copy_from_slice(sum.as_bytes());
        bytes
    }

    fn unsigned(bytes: &[u8; BLOCK]) -> i64 {
        bytes.iter().map(|&byte| i64::from(byte)).sum()
    }

    fn signed(bytes: &[u8; BLOCK]) -> i64 {
        bytes.iter().map(|&byte| i64::from(byte.cast_signed())).sum()
    }

    #[test]
    fn checksums_are_of_signed_or_unsigned_bytes() {
        let odd = |bytes: &mut [u8; BLOCK]| bytes[..100].fill(0xe4);
        assert!(Header::parse(&header(odd, unsigned)).is_some());
        assert!(Header::parse(&header(odd, signed)).is_some());
        let mut wrong = header(odd, unsigned);
        wrong[0] ^= 1;
        assert!(Header::parse(&wrong).is_none());
        assert!(Header::parse(&[0; BLOCK]).is_none());
    }

    #[test]
    fn prefixes_are_those_of_the_dialect() {
        let make = |magic: &'static [u8], mark: &'static [u8]| {
            let bytes = header(
                |bytes| {
                    bytes[257..257 + magic.len()].copy_from_slice(magic);
                    bytes[345..351].copy_from_slice(b"prefix");
                    bytes[508..508 + mark.len()].copy_from_slice(mark);
                },
                unsigned,
            );
            let header = Header::parse(&bytes).unwrap();
            (header.dialect(), header.path())
        };
        assert_eq!(make(b"ustar\x0000", b""), (Dialect::Ustar, b"prefix/name".to_vec()));
        assert_eq!(make(b"ustar\x0000", b"tar\0"), (Dialect::Star, b"prefix/name".to_vec()));
        assert_eq!(make(b"ustar  \0", b""), (Dialect::Gnu, b"name".to_vec()));
        assert_eq!(make(b"", b""), (Dialect::V7, b"name".to_vec()));
    }
}
