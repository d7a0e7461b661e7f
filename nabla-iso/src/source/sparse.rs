//! Sparse files in tar streams: PAX's format 1.0, which GNU tar and libarchive write.

use super::{blob::Blob, spool::Spool, tree::Tree};
use crate::error::Error;
use std::io::{self, ErrorKind, Read};

/// The largest map that is believed.
const MAX_PARTS: u64 = 1 << 20;

/// Reads the contents of a sparse file of `size` bytes: a map in decimal lines, padded to 512 bytes, then the parts.
///
/// The inner result is the stream's.
pub fn pax_sparse(
    spool: &mut Spool,
    tree: &Tree,
    stream: &mut dyn Read,
    size: u64,
) -> Result<io::Result<Blob>, Error> {
    let map = match read_map(stream, size) {
        Ok(map) => map,
        Err(error) => return Ok(Err(error)),
    };
    let mut writer = spool.start();
    let mut buffer = vec![0; 64 << 10];
    for (offset, length) in map {
        writer.skip(offset - writer.length());
        let mut left = length;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            if let Err(error) = stream.read_exact(&mut buffer[..part]) {
                return Ok(Err(error));
            }
            writer.write(spool, tree, &buffer[..part])?;
            left -= part as u64;
        }
    }
    writer.skip(size - writer.length());
    spool.finish(tree, &writer).map(Ok)
}

/// The parts of a file, in order: offset and length.
fn read_map(stream: &mut dyn Read, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let broken = || io::Error::new(ErrorKind::InvalidData, "the map of its parts is broken");
    let mut taken = 0_u64;
    let mut number = |stream: &mut dyn Read| -> io::Result<u64> {
        let mut value: Option<u64> = None;
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            taken += 1;
            match byte[0] {
                b'\n' => return value.ok_or_else(broken),
                digit @ b'0'..=b'9' => {
                    let next =
                        value.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add((digit - b'0').into()));
                    value = Some(next.ok_or_else(broken)?);
                }
                _ => return Err(broken()),
            }
        }
    };
    let count = number(stream)?;
    if count > MAX_PARTS {
        return Err(broken());
    }
    let mut parts = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let (offset, length) = (number(stream)?, number(stream)?);
        if offset < end {
            return Err(broken());
        }
        end = offset.checked_add(length).filter(|&end| end <= size).ok_or_else(broken)?;
        parts.push((offset, length));
    }
    let mut padding = [0; 512];
    let padding = &mut padding[..usize::try_from(taken.next_multiple_of(512) - taken).unwrap_or(0)];
    stream.read_exact(padding)?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str, size: u64) -> io::Result<Vec<(u64, u64)>> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        read_map(&mut &bytes[..], size)
    }

    #[test]
    fn parts_are_in_order_and_within_the_file() {
        assert_eq!(map("2\n0\n5\n100\n10\n", 110).unwrap(), [(0, 5), (100, 10)]);
        for (text, size) in [
            ("2\n0\n5\n4\n10\n", 110),
            ("1\n0\n5\n", 4),
            ("x\n", 1),
            ("1\n0\n", 9),
            ("99999999\n", 9),
            ("\n", 1),
        ] {
            assert!(map(text, size).is_err(), "{text:?}");
        }
        assert!(map("1\n18446744073709551615\n2\n", u64::MAX).is_err());
    }
}
