//! MAC addresses.

use alloc::{borrow::ToOwned, string::String};
use core::{fmt, str::FromStr};
use thiserror::Error;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address with these bits that is locally administered and no multicast one. For random bits.
    ///
    /// ```
    /// use nabla_core::MacAddress;
    ///
    /// assert_eq!(MacAddress::local([0xff; 6]).to_string(), "fe:ff:ff:ff:ff:ff");
    /// ```
    #[must_use]
    pub const fn local(mut bits: [u8; 6]) -> Self {
        bits[0] = bits[0] & 0xfc | 0x02;
        Self(bits)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not a MAC address: expected six pairs of hexadecimal digits, such as 02:00:00:00:00:01")]
pub struct ParseMacError(String);

impl FromStr for MacAddress {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseMacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part =
                parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(fail)?;
        }
        if parts.next().is_some() { Err(fail()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn mac_addresses_parse_and_print() {
        let mac: MacAddress = "02:00:5e:AB:cd:01".parse().unwrap();
        assert_eq!(mac, MacAddress([2, 0, 0x5e, 0xab, 0xcd, 1]));
        assert_eq!(mac.to_string(), "02:00:5e:ab:cd:01");
        for text in [
            "",
            "02:00:5e:ab:cd",
            "02:00:5e:ab:cd:01:02",
            "2:0:5e:ab:cd:1",
            "02-00-5e-ab-cd-01",
            "+2:00:5e:ab:cd:01",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
