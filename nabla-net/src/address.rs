//! Addresses of interfaces.

use crate::{change::Change, config::Cidr, error::Error, network::Network, owned::Owned};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};
use rustix::io::Errno;
use std::net::IpAddr;

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// Index of the interface.
    pub link: u32,
    /// The address, and the network that is reached directly.
    pub cidr: Cidr,
    /// Whether it is valid on the link only, as fe80:: addresses are.
    pub is_link_local: bool,
}

impl Network {
    /// Every address of every interface.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let cidr = "10.0.0.1/24".parse()?;
    /// let added = network.add_address("lo", cidr)?;
    /// assert_eq!(network.addresses()?[0].cidr, cidr);
    /// added.release()?;
    /// assert_eq!(network.addresses()?, []);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn addresses(&self) -> Result<Vec<Address>, Error> {
        let answers = self
            .routing()
            .list(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(|error| Error::system("list", "the addresses", error))?;
        let address = |answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => from_message(&message),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(address).collect())
    }

    /// Gives an interface an address until this is undone.
    ///
    /// IPv6 addresses can be used at once: duplicates are not looked for, since the other end of a veth pair is
    /// known.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let address = network.add_address("lo", "10.0.0.1/8".parse()?)?;
    /// assert_eq!(network.addresses()?.len(), 1);
    /// address.release()?;
    /// assert_eq!(network.addresses()?, []);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, it has the address already, or the kernel refuses.
    pub fn add_address(&self, link: &str, cidr: Cidr) -> Result<Owned<Address>, Error> {
        let index = self.link(link)?.index;
        let request = RouteNetlinkMessage::NewAddress(message(index, cidr));
        Change::new("add", object(link, cidr), request).creating().apply(self)?;
        let is_link_local = matches!(cidr.address(), IpAddr::V6(address) if address.is_unicast_link_local());
        let request = RouteNetlinkMessage::DelAddress(message(index, cidr));
        let remove = Change::new("remove", object(link, cidr), request).missing(Errno::ADDRNOTAVAIL);
        Ok(Owned::new(Address { link: index, cidr, is_link_local }, self, remove))
    }
}

fn object(link: &str, cidr: Cidr) -> String {
    format!("address {cidr} of interface '{link}'")
}

fn message(index: u32, cidr: Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = cidr.prefix();
    message.header.family = if cidr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.attributes.push(AddressAttribute::Local(cidr.address()));
    if cidr.is_ipv4() {
        message.attributes.push(AddressAttribute::Address(cidr.address()));
    } else {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn from_message(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    // IPv6 has only one of the two; on a point-to-point interface, the other one is the peer's.
    let cidr = Cidr::new(local.or(other)?, message.header.prefix_len)?;
    let is_link_local = message.header.scope == AddressScope::Link;
    Some(Address { link: message.header.index, cidr, is_link_local })
}
