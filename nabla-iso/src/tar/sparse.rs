//! Sparse files: the old formats of GNU and star, and GNU's in pax headers, 0.0, 0.1 and 1.0.

use super::{
    block::{BLOCK, broken, padding},
    field,
    header::Header,
    input::Input,
    pax::{MAX_PARTS, SparseExtensions},
};
use std::io;

/// Where the bytes of a sparse file are that follow in the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Bytes of the file.
    pub size: u64,
    /// Offset and length of each part that is no hole, in order.
    pub parts: Vec<(u64, u64)>,
}

impl Sparse {
    const fn new(size: u64) -> Self {
        Self { size, parts: Vec::new() }
    }

    /// Adds a part. Those without bytes, which mark the end, are left out.
    fn push(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.parts.last().map_or(0, |(offset, length)| offset + length);
        if length == 0 {
            return Ok(());
        }
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.size);
        if offset < end || !fits || self.parts.len() == MAX_PARTS {
            return Err(broken("the map of its parts is broken, or has more than 1048576 parts"));
        }
        self.parts.push((offset, length));
        Ok(())
    }

    /// Bytes in the stream.
    pub fn stored(&self) -> u64 {
        // They do not overlap, so that their sum is at most the size.
        self.parts.iter().map(|(_, length)| length).sum()
    }

    /// The old formats: the map is in the header and in blocks that follow it.
    pub fn old(header: &Header, input: &mut Input) -> io::Result<Self> {
        let (parts, mut more, size) = header.sparse();
        let size = size.and_then(|size| u64::try_from(size).ok());
        let mut sparse = Self::new(size.ok_or_else(|| broken("its size is no number"))?);
        sparse.push_fields(parts)?;
        while more {
            let mut block = [0; BLOCK];
            input.read_all(&mut block)?;
            sparse.push_fields(&block[..504])?;
            more = block[504] != 0;
        }
        Ok(sparse)
    }

    fn push_fields(&mut self, fields: &[u8]) -> io::Result<()> {
        for part in fields.chunks_exact(24) {
            // Those that are not used are empty.
            if part[0] == 0 {
                continue;
            }
            let number = |field| field::number(field).and_then(|number| u64::try_from(number).ok());
            match (number(&part[..12]), number(&part[12..])) {
                (Some(offset), Some(length)) => self.push(offset, length)?,
                _ => return Err(broken("the map of its parts is broken")),
            }
        }
        Ok(())
    }

    /// The formats in pax headers, if there is one. In version 1.0 the map comes first in the `stored` bytes that follow,
    /// which become fewer.
    pub fn pax(
        extensions: &SparseExtensions,
        input: &mut Input,
        stored: &mut u64,
    ) -> io::Result<Option<Self>> {
        let size = || extensions.size.ok_or_else(|| broken("it is sparse, and its size is not given"));
        match (extensions.major, extensions.minor, &extensions.map) {
            (Some(1), None | Some(0), _) => Self::version_1(size()?, input, stored).map(Some),
            (None | Some(0), _, Some(map)) => {
                let mut sparse = Self::new(size()?);
                let (parts, rest) = map.as_chunks();
                if !rest.is_empty() {
                    return Err(broken("the map of its parts is broken"));
                }
                for &[offset, length] in parts {
                    sparse.push(offset, length)?;
                }
                Ok(Some(sparse))
            }
            (None | Some(0), _, None) => Ok(None),
            _ => Err(broken("it is in a sparse format that is not known")),
        }
    }

    /// A map in decimal lines, padded to a block.
    fn version_1(size: u64, input: &mut Input, stored: &mut u64) -> io::Result<Self> {
        let mut map = Lines { input, stored, taken: 0 };
        let count = map.number()?;
        let mut sparse = Self::new(size);
        for _ in 0..count {
            let (offset, length) = (map.number()?, map.number()?);
            sparse.push(offset, length)?;
        }
        let rest = padding(map.taken);
        *stored = stored.checked_sub(rest).ok_or_else(|| broken("the map of its parts is cut off"))?;
        input.skip(rest)?;
        Ok(sparse)
    }
}

struct Lines<'a> {
    input: &'a mut Input,
    stored: &'a mut u64,
    taken: u64,
}

impl Lines<'_> {
    fn number(&mut self) -> io::Result<u64> {
        // The largest number has 20 digits.
        let mut digits = [0; 21];
        let mut at = 0;
        while at < digits.len() {
            let byte = self.byte()?;
            match byte {
                // A comment.
                b'#' if at == 0 => while self.byte()? != b'\n' {},
                b'\n' => {
                    return field::decimal(&digits[..at])
                        .ok_or_else(|| broken("the map of its parts is broken"));
                }
                _ => {
                    digits[at] = byte;
                    at += 1;
                }
            }
        }
        Err(broken("the map of its parts is broken"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        *self.stored = self.stored.checked_sub(1).ok_or_else(|| broken("the map of its parts is cut off"))?;
        self.taken += 1;
        let mut byte = [0];
        self.input.read_all(&mut byte)?;
        Ok(byte[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str, size: u64) -> io::Result<Sparse> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let mut stored = bytes.len() as u64;
        Sparse::version_1(size, &mut Input::stream(Box::new(io::Cursor::new(bytes))), &mut stored)
    }

    #[test]
    fn parts_are_in_order_and_within_the_file() {
        let sparse = map("3\n0\n5\n100\n10\n110\n0\n", 110).unwrap();
        assert_eq!(sparse.parts, [(0, 5), (100, 10)]);
        assert_eq!(sparse.stored(), 15);
        for (text, size) in [
            ("2\n0\n5\n4\n10\n", 110),
            ("1\n0\n5\n", 4),
            ("x\n", 1),
            ("1\n0\n", 9),
            ("99999999\n", 9),
            ("\n", 1),
            ("1\n18446744073709551615\n2\n", u64::MAX),
            ("1\n000000000000000000000000000001\n2\n", u64::MAX),
        ] {
            assert!(map(text, size).is_err(), "{text:?}");
        }
    }
}
