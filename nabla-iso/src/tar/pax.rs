//! Extended headers of POSIX ("pax Extended Header", IEEE 1003.1-2017, pax), and what GNU, star and Sun put into them.

use super::{
    block::broken,
    field::{self, decimal},
};
use crate::format::Timestamp;
use std::io;

/// The most parts that a sparse file may have.
pub const MAX_PARTS: usize = 1 << 20;

/// What extended headers say. A value that is empty takes back what was said.
#[derive(Debug, Default)]
pub struct Extensions {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub time: Option<Timestamp>,
    pub device: (Option<u64>, Option<u64>),
    pub sparse: SparseExtensions,
}

/// What GNU tar's formats 0.0, 0.1 and 1.0 say about a sparse file.
#[derive(Debug, Default)]
pub struct SparseExtensions {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    /// Bytes of the file.
    pub size: Option<u64>,
    /// The map: offsets and lengths, one after the other.
    pub map: Option<Vec<u64>>,
}

impl Extensions {
    /// Adds what is in the body of a header.
    pub fn add(&mut self, body: &[u8]) -> io::Result<()> {
        let mut rest = body;
        // Some pad with zeros.
        while !rest.is_empty() && !rest.iter().all(|&byte| byte == 0) {
            let (key, value, after) =
                split(rest).ok_or_else(|| broken("a record of an extended header has a wrong length"))?;
            self.set(key, value)?;
            rest = after;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let number = |what: &str| {
            let value = if value.is_empty() { None } else { Some(value) };
            value
                .map(|value| decimal(value).ok_or_else(|| broken(format!("its {what} is no number"))))
                .transpose()
        };
        let identity = |what: &str| {
            let value = number(what)?;
            let too_large = || broken(format!("its {what} is too large"));
            value.map(|value| i64::try_from(value).map_err(|_| too_large())).transpose()
        };
        // What follows a NUL is no part of a path, as in headers.
        let text = || Some(field::text(value)).filter(|text| !text.is_empty()).map(<[u8]>::to_vec);
        let sparse = &mut self.sparse;
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number("size")?,
            b"uid" => self.uid = identity("owner")?,
            b"gid" => self.gid = identity("group")?,
            // What is no time counts for nothing, as for GNU tar and libarchive.
            b"mtime" => self.time = parse_time(value),
            b"SCHILY.devmajor" | b"SUN.devmajor" => self.device.0 = number("device")?,
            b"SCHILY.devminor" | b"SUN.devminor" => self.device.1 = number("device")?,
            b"GNU.sparse.major" => sparse.major = number("sparse format")?,
            b"GNU.sparse.minor" => sparse.minor = number("sparse format")?,
            b"GNU.sparse.name" => sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.size = number("size")?,
            b"GNU.sparse.numblocks" => _ = sparse.map.get_or_insert_default(),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = sparse.map.get_or_insert_default();
                let is_length = key == b"GNU.sparse.numbytes";
                let number =
                    decimal(value).filter(|_| (map.len() % 2 == 1) == is_length && map.len() / 2 < MAX_PARTS);
                map.push(number.ok_or_else(|| broken("the map of its parts is broken"))?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|&byte| byte == b',').map(decimal).take(2 * MAX_PARTS + 1);
                let map: Option<Vec<u64>> =
                    if value.is_empty() { Some(Vec::new()) } else { numbers.collect() };
                sparse.map = Some(map.ok_or_else(|| broken("the map of its parts is broken"))?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The keyword and the value of the first record, and what follows it. Records go by their length: values may have
/// anything in them.
fn split(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = body.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&body[..blank])?).ok()?;
    let record = body.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &body[length..]))
}

/// A decimal number of seconds, with or without a fraction. What follows is ignored.
fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let split = |text: &[u8]| text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(split(text));
    let fraction = rest.strip_prefix(b".").unwrap_or_default();
    let fraction = &fraction[..split(fraction)];
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let seconds = if whole.is_empty() { 0 } else { i64::try_from(decimal(whole)?).ok()? };
    let digits = fraction.iter().copied().chain(core::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        // -1.25 is three quarters of a second after -2.
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_fractions_and_signs() {
        let time = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        assert_eq!(parse_time(b"12"), time(12, 0));
        assert_eq!(parse_time(b"12.5"), time(12, 500_000_000));
        assert_eq!(parse_time(b"-1.25"), time(-2, 750_000_000));
        assert_eq!(parse_time(b"-0.25"), time(-1, 750_000_000));
        assert_eq!(parse_time(b"-3"), time(-3, 0));
        assert_eq!(parse_time(b".5"), time(0, 500_000_000));
        assert_eq!(parse_time(b"1.1234567899"), time(1, 123_456_789));
        assert_eq!(parse_time(b"999xxx9324.4"), time(999, 0));
        for text in [&b"x"[..], b"", b".", b"-", b"99999999999999999999"] {
            assert_eq!(parse_time(text), None);
        }
    }

    #[test]
    fn records_go_by_their_length_and_the_last_one_counts() {
        let mut extensions = Extensions::default();
        let body = b"31 SCHILY.xattr.x=\x01\n\0=11 uid=5\n9 path=a\n9 path=b\n10 size=7\n8 size=\n\0\0\0";
        extensions.add(body).unwrap();
        assert_eq!(extensions.path.as_deref(), Some(&b"b"[..]));
        assert_eq!((extensions.size, extensions.uid), (None, None));
    }

    #[test]
    fn broken_records_and_numbers_are_refused() {
        for body in [
            &b"9 path=a"[..],
            b"8 path=a\n",
            b"x path=a\n",
            b"99 path=a\n",
            b"5 abc\n",
            b"0 \n",
            b"9 size=-\n",
            b"8 uid=x\n",
            b"28 GNU.sparse.map=1,2,x,4,5\n",
            b"25 GNU.sparse.numbytes=1\n",
        ] {
            assert!(Extensions::default().add(body).is_err(), "{}", body.escape_ascii());
        }
    }
}
