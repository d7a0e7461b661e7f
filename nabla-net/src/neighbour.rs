//! Neighbours: which MAC address belongs to an IP address.

use crate::{change::Change, error::Error, network::Network, owned::Owned};
use nabla_core::MacAddress;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use std::net::IpAddr;

/// Who has an address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface.
    pub link: u32,
    /// The IP address.
    pub address: IpAddr,
    /// The MAC address.
    pub mac: MacAddress,
}

impl Network {
    /// Every neighbour whose MAC address is known.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// use nabla_core::MacAddress;
    /// use nabla_net::{Neighbour, Network};
    ///
    /// let network = Network::isolated()?;
    /// let _pair = network.create_veth("a", "b")?;
    /// network.set_up("a")?;
    /// let link = network.link("a")?.index;
    /// let neighbour = Neighbour { link, address: [10, 0, 0, 2].into(), mac: MacAddress([2, 0, 0, 0, 0, 2]) };
    /// let added = network.add_neighbour(neighbour)?;
    /// assert!(network.neighbours()?.contains(&neighbour));
    /// added.release()?;
    /// assert!(!network.neighbours()?.contains(&neighbour));
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            let answers = self
                .routing()
                .list(&RouteNetlinkMessage::GetNeighbour(message))
                .map_err(|error| Error::system("list", "the neighbours", error))?;
            neighbours.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => from_message(message),
                _ => None,
            }));
        }
        Ok(neighbours)
    }

    /// Says for good who has an address, until this is undone. Nobody is asked then.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// use nabla_net::Neighbour;
    ///
    /// let _pair = network.create_veth("eth0", "peer")?;
    /// network.set_up("eth0")?;
    /// let link = network.link("eth0")?.index;
    /// let known = Neighbour { link, address: "10.0.0.9".parse()?, mac: "02:00:00:00:00:09".parse()? };
    /// let neighbour = network.add_neighbour(known)?;
    /// assert_eq!(network.neighbours()?, [known]);
    /// neighbour.release()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When that is known already, there is no such interface, or the kernel refuses.
    pub fn add_neighbour(&self, neighbour: Neighbour) -> Result<Owned<Neighbour>, Error> {
        let mut message = message(&neighbour);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.to_vec()));
        let add = RouteNetlinkMessage::NewNeighbour(message);
        Change::new("add", object(&neighbour), add).creating().apply(self)?;
        let remove = RouteNetlinkMessage::DelNeighbour(self::message(&neighbour));
        Ok(Owned::new(neighbour, self, Change::new("remove", object(&neighbour), remove)))
    }
}

fn object(neighbour: &Neighbour) -> String {
    format!("neighbour {} ({})", neighbour.address, neighbour.mac)
}

fn message(neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = neighbour.link;
    let (family, address) = match neighbour.address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}

fn from_message(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddress);
            }
            _ => {}
        }
    }
    Some(Neighbour { link: message.header.ifindex, address: address?, mac: mac? })
}
