//! Numbers as ECMA-119 records them (7.2 and 7.3).
//!
//! Readers return nothing when the bytes are not there.

/// A 16-bit number, least significant byte first (7.2.1).
#[must_use]
pub fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// A 32-bit number, least significant byte first (7.3.1).
#[must_use]
pub fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// A 32-bit number, most significant byte first (7.3.2).
#[must_use]
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// A 16-bit number, most significant byte first (7.2.2).
#[must_use]
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// A 16-bit number in both byte orders (7.2.3): the first half, which is the one that readers believe, and whether the
/// other one agrees.
#[must_use]
pub fn first16(bytes: &[u8], at: usize) -> Option<(u16, bool)> {
    let value = le16(bytes, at)?;
    Some((value, be16(bytes, at.checked_add(2)?)? == value))
}

/// A 32-bit number in both byte orders (7.3.3), as [`first16`].
#[must_use]
pub fn first32(bytes: &[u8], at: usize) -> Option<(u32, bool)> {
    let value = le32(bytes, at)?;
    Some((value, be32(bytes, at.checked_add(4)?)? == value))
}

/// The form of a 16-bit number in both byte orders (7.2.3).
#[must_use]
pub fn to_both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

/// The form of a 32-bit number in both byte orders (7.3.3).
#[must_use]
pub fn to_both32(value: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

/// `N` bytes at `at`, if they are there.
#[must_use]
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_orders_come_back() {
        assert_eq!(to_both16(0x1234), [0x34, 0x12, 0x12, 0x34]);
        assert_eq!(to_both32(0x1234_5678), [0x78, 0x56, 0x34, 0x12, 0x12, 0x34, 0x56, 0x78]);
        assert_eq!(first16(&to_both16(0xfffe), 0), Some((0xfffe, true)));
        assert_eq!(first32(&to_both32(0xffff_fffe), 0), Some((0xffff_fffe, true)));
    }

    #[test]
    fn the_first_half_counts_and_short_input_is_refused() {
        assert_eq!(first32(&[1, 0, 0, 0, 0, 0, 0, 2], 0), Some((1, false)));
        assert_eq!(first32(&[1, 0, 0, 0, 0, 0, 0], 0), None);
        assert_eq!(first16(&[0; 8], usize::MAX), None);
    }
}
