//! Sizes in bytes, as people write them.

use alloc::string::{String, ToString};
use core::{fmt, num::IntErrorKind, str::FromStr};
use thiserror::Error;

/// A number of bytes.
///
/// Parses `N`, `NK`, `NM`, `NG` and `NT`, optionally followed by `iB` or `B`, in capital or small letters: powers of 1024
/// in every case, as memory and disks are counted. A bare number is a number of bytes.
///
/// ```
/// use nabla_core::ByteSize;
///
/// assert_eq!("64M".parse(), Ok(ByteSize::mib(64)));
/// assert_eq!("4096".parse(), Ok(ByteSize::bytes(4096)));
/// assert_eq!("1GiB".parse::<ByteSize>().unwrap().to_string(), "1 GiB");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `n` bytes.
    #[must_use]
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// `n` KiB; the largest size when that does not fit.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }

    /// `n` MiB; the largest size when that does not fit.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// `n` GiB; the largest size when that does not fit.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<u64> for ByteSize {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut unit, mut shift) = ("bytes", 0);
        for (name, bits) in [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)] {
            if self.0 != 0 && self.0.trailing_zeros() >= bits {
                (unit, shift) = (name, bits);
            }
        }
        write!(f, "{} {unit}", self.0 >> shift)
    }
}

/// Why a text is no [`ByteSize`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseByteSizeError {
    /// It does not start with a decimal number.
    #[error("'{0}' is not a size: expected a number with an optional unit, such as 512M or 4G")]
    NotANumber(String),
    /// The letters after the number are no unit.
    #[error("'{0}' has an unknown unit: use k, M, G or T (powers of 1024)")]
    UnknownUnit(String),
    /// The size does not fit into 64 bits.
    #[error("'{0}' is too large")]
    TooLarge(String),
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|e: core::num::ParseIntError| match e.kind() {
            IntErrorKind::PosOverflow => ParseByteSizeError::TooLarge(text.to_string()),
            _ => ParseByteSizeError::NotANumber(text.to_string()),
        })?;
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(ParseByteSizeError::UnknownUnit(text.to_string())),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| ParseByteSizeError::TooLarge(text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_every_unit_and_spelling() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1k", 1 << 10),
            ("1K", 1 << 10),
            ("1KiB", 1 << 10),
            ("2M", 2 << 20),
            ("2 MB", 2 << 20),
            ("3G", 3 << 30),
            ("1T", 1 << 40),
            ("64mb", 64 << 20),
            ("64 mib", 64 << 20),
            ("4GIB", 4 << 30),
            ("7b", 7),
            ("2t", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn parse_of_nonsense_names_it() {
        use ParseByteSizeError::{NotANumber, TooLarge, UnknownUnit};
        for text in ["", "M", "-1", "+1", " 1", "iB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(NotANumber(text.into())), "{text}");
        }
        for text in ["1x", "1Mi", "1 ib", "1Kb/s", "1.5G", "1iB", "1MM", "1 M B"] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnknownUnit(text.into())), "{text}");
        }
        for text in ["18446744073709551616", "16777216T"] {
            assert_eq!(text.parse::<ByteSize>(), Err(TooLarge(text.into())), "{text}");
        }
    }

    #[test]
    fn display_uses_the_largest_exact_unit() {
        for (size, text) in [
            (ByteSize::bytes(0), "0 bytes"),
            (ByteSize::bytes(1023), "1023 bytes"),
            (ByteSize::kib(3), "3 KiB"),
            (ByteSize::mib(512), "512 MiB"),
            (ByteSize::gib(4), "4 GiB"),
            (ByteSize::gib(1 << 30), "1048576 TiB"),
        ] {
            assert_eq!(size.to_string(), text);
        }
        assert_eq!(ByteSize::gib(u64::MAX).as_u64(), u64::MAX);
    }
}
