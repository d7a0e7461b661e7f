//! Joliet's names: UCS-2, most significant byte first.

/// The longest name in characters that every reader takes.
pub const NAME_MAX: usize = 64;

/// Whether Joliet allows the character in names.
#[must_use]
pub const fn is_allowed(unit: u16) -> bool {
    // Control characters, * / : ; ? \ and surrogates, which UCS-2 does not have.
    !matches!(unit, 0..0x20 | 0x2a | 0x2f | 0x3a | 0x3b | 0x3f | 0x5c | 0xd800..=0xdfff)
}

/// The name in UTF-8, at the start of `out`, as far as it fits; what is no character becomes U+FFFD.
///
/// The version that Joliet's standard wants (`;1`) is left out.
pub fn decode<'a>(identifier: &[u8], out: &'a mut [u8]) -> &'a [u8] {
    let units = identifier.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut length = 0;
    for character in char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)) {
        let mut text = [0; 4];
        let text = character.encode_utf8(&mut text).as_bytes();
        let Some(place) = out.get_mut(length..length + text.len()) else { break };
        place.copy_from_slice(text);
        length += text.len();
    }
    let name = &out[..length];
    name.strip_suffix(b";1").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_utf8_and_lose_their_version() {
        let mut out = [0; 20];
        assert_eq!(decode(b"\0a\x20\xac\0;\x001", &mut out), "a\u{20ac}".as_bytes());
        assert_eq!(decode(b"\xd8\x00\0x", &mut out), "\u{fffd}x".as_bytes());
        assert_eq!(decode(b"\x20\xac\x20\xac", &mut [0; 4]), "\u{20ac}".as_bytes());
    }
}
