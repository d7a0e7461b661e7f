//! Addresses with the length of their network's prefix.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};
use thiserror::Error;

/// An IP address and the length of its network's prefix in bits, as in `10.0.0.1/24`.
///
/// ```
/// use nabla_net::Cidr;
///
/// let cidr: Cidr = "10.0.0.1/24".parse()?;
/// assert!(cidr.contains("10.0.0.200".parse()?));
/// assert_eq!(cidr.network().to_string(), "10.0.0.0/24");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no address with a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not an address with the length of its prefix, such as 10.0.0.1/24 or fd00::1/64")]
pub struct ParseCidrError(String);

impl Cidr {
    /// An address in a network of `prefix` bits; `None` when that is more than the address has.
    #[must_use]
    pub const fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix <= bits(address) { Some(Self { address, prefix }) } else { None }
    }

    /// An address alone: with a prefix of 32 or 128 bits.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self { address, prefix: bits(address) }
    }

    /// The address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits of the network's prefix, from 0 to 32 or 128.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is IPv4.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// The network: the address with zeros behind the prefix.
    #[must_use]
    pub const fn network(&self) -> Self {
        let prefix = self.prefix as u32;
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = if prefix == 0 { 0 } else { u32::MAX << (u32::BITS - prefix) };
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = if prefix == 0 { 0 } else { u128::MAX << (u128::BITS - prefix) };
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self { address, prefix: self.prefix }
    }

    /// Whether an address is in the network. None of the other family is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix).is_some_and(|other| {
            other.is_ipv4() == self.is_ipv4() && other.network().address == self.network().address
        })
    }

    /// Whether two networks have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// The longest prefix, in bits, that the address has in common with another of its family; 0 for one of the
    /// other family.
    #[must_use]
    pub const fn common_prefix(&self, other: IpAddr) -> u8 {
        #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() as u8,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() as u8,
            _ => 0,
        }
    }
}

/// Bits that an address of this family has.
const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let digits = (1..=3).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit());
            Self::new(address.parse().ok()?, prefix.parse().ok().filter(|_| digits)?)
        };
        parse().ok_or_else(|| ParseCidrError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn texts_parse_and_print() {
        for text in ["10.0.0.1/24", "0.0.0.0/0", "1.2.3.4/32", "fd00::1/64", "::/0", "::1/128"] {
            assert_eq!(cidr(text).to_string(), text);
        }
        for text in
            ["", "/", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "::1/129", "10.0.0/8", "1.2.3.4/+8", "::/0000"]
        {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_contain_and_overlap() {
        assert!(cidr("0.0.0.0/0").contains(IpAddr::from([1, 2, 3, 4])));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(!cidr("::/0").contains(IpAddr::from([1, 2, 3, 4])));
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.9.0.0/16")));
        assert!(cidr("10.9.0.0/16").overlaps(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.9.0.0/16").overlaps(&cidr("10.8.0.0/16")));
        assert_eq!(cidr("fd00::1:2/112").network(), cidr("fd00::1:0/112"));
        assert_eq!(cidr("1.2.3.4/0").network(), cidr("0.0.0.0/0"));
    }

    #[test]
    fn common_prefixes_are_exact() {
        assert_eq!(cidr("10.1.1.5/32").common_prefix(IpAddr::from([169, 254, 1, 1])), 0);
        assert_eq!(cidr("10.1.1.5/32").common_prefix(IpAddr::from([10, 1, 1, 1])), 29);
        assert_eq!(cidr("10.1.1.5/32").common_prefix(IpAddr::from([10, 1, 1, 5])), 32);
    }
}
