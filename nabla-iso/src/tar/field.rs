//! Numbers in headers.

/// A number in octal digits, or in base 256 if the first bit is set, as GNU tar and star write what is too large for
/// digits. Leading blanks are skipped, and what follows the digits is ignored; nothing but blanks is zero.
///
/// Nothing if there are other characters before the digits, or the number has more than 63 bits.
pub fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|byte| !matches!(byte, b' ' | b'\t' | 0)).unwrap_or(field.len());
    let field = &field[start..];
    let end = field.iter().position(|byte| !matches!(byte, b'0'..=b'7')).unwrap_or(field.len());
    if end == 0 && !field.is_empty() {
        return None;
    }
    field[..end]
        .iter()
        .try_fold(0_i64, |value, digit| value.checked_mul(8)?.checked_add((digit - b'0').into()))
}

/// Two's complement, most significant byte first; the first bit is only the mark.
fn base_256(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    let start = i64::from(first & 0x3f) - if negative { 0x40 } else { 0 };
    rest.iter().try_fold(start, |value, &byte| value.checked_mul(256)?.checked_add(byte.into()))
}

/// A decimal number.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add((digit - b'0').into()),
        _ => None,
    })
}

/// The bytes before the first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers_have_blanks_around_them_or_are_nothing_else() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"  644 \0\0", Some(0o644)),
            (b"\0 644   ", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"        ", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"12x45678", Some(0o12)),
            (b"x2345678", None),
            (b"-1     \0", None),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
        assert_eq!(number(&[b'7'; 30]), None);
    }

    #[test]
    fn numbers_in_base_256_have_signs_and_limits() {
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff; 8]), Some(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
        assert_eq!(number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None);
        assert_eq!(number(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }

    #[test]
    fn decimal_numbers_are_digits_and_nothing_else() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for text in [&b""[..], b"18446744073709551616", b"-1", b"1 ", b"1.5"] {
            assert_eq!(decimal(text), None);
        }
    }
}
