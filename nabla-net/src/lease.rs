//! A network that only the host and one guest are in.

use crate::{
    config::{Cidr, NetConfig},
    error::{Error, ErrorKind},
    link::object,
    network::Network,
    tap::CreatedTap,
};
use nabla_core::MacAddress;
use nabla_tap::TapOptions;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that nobody routes: RFC 2544 sets them aside for tests between machines under one's own control.
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);
/// Two addresses for use in each network.
const PREFIX: u8 = 30;

/// What the network of a guest is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseOptions {
    host: Option<Cidr>,
    guest: Option<IpAddr>,
    tap: TapOptions,
    mtu: Option<u16>,
    mac: Option<MacAddress>,
}

impl LeaseOptions {
    /// A network of two addresses in 198.18.0.0/15 that nothing here uses.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let lease = network.lease(&nabla_net::LeaseOptions::new())?;
    /// assert!(lease.host.contains(lease.guest));
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The host's address, and the network.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let lease = network.lease(&nabla_net::LeaseOptions::new().host("10.0.0.1/24".parse()?))?;
    /// assert_eq!(lease.guest.to_string(), "10.0.0.2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn host(mut self, address: Cidr) -> Self {
        self.host = Some(address);
        self
    }

    /// The guest's address; the one after the host's unless set, or the one before it if that is the last.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let options = nabla_net::LeaseOptions::new().host("10.0.0.1/24".parse()?).guest("10.0.0.9".parse()?);
    /// assert_eq!(network.lease(&options)?.guest.to_string(), "10.0.0.9");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn guest(mut self, address: IpAddr) -> Self {
        self.guest = Some(address);
        self
    }

    /// The name of the interface on the host's side.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let lease = network.lease(&nabla_net::LeaseOptions::new().name("box0"))?;
    /// assert!(network.link("box0")?.is_up);
    /// # drop(lease);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.tap = self.tap.name(name);
        self
    }

    /// The MTU of both sides in bytes, at least 68.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let lease = network.lease(&nabla_net::LeaseOptions::new().name("box0").mtu(9000))?;
    /// assert_eq!(network.link("box0")?.mtu, 9000);
    /// # drop(lease);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// The guest's MAC address.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let mac = "02:00:00:00:00:07".parse()?;
    /// let lease = network.lease(&nabla_net::LeaseOptions::new().mac(mac))?;
    /// assert_eq!(lease.config.mac, Some(mac));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn mac(mut self, mac: MacAddress) -> Self {
        self.mac = Some(mac);
        self
    }
}

/// A network that only the host and one guest are in. It goes away with the tap's last descriptor, however the programs
/// that have it end.
#[derive(Debug)]
pub struct Lease {
    /// The tap, which is up.
    pub tap: CreatedTap,
    /// The host's address.
    pub host: Cidr,
    /// The guest's address.
    pub guest: IpAddr,
    /// What the guest is to be told. The host is its gateway.
    pub config: NetConfig,
}

impl Network {
    /// Makes a network for a guest: a tap, with an address on the host's side. Nothing is forwarded to or from anywhere
    /// else unless the host does so already.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{LeaseOptions, Network};
    ///
    /// let network = Network::isolated()?;
    /// let lease = network.lease(&LeaseOptions::new().host("10.0.0.1/24".parse()?))?;
    /// assert_eq!(lease.config.ipv4(), Some("10.0.0.2/24".parse()?));
    /// let others = network.lease(&LeaseOptions::new())?;
    /// assert!(!lease.host.overlaps(&others.host));
    /// drop((lease, others));
    /// assert_eq!(network.links()?.len(), 1, "only lo is left");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When addresses do not fit or are in use here, or something cannot be made.
    pub fn lease(&self, options: &LeaseOptions) -> Result<Lease, Error> {
        let mut tap_options = options.tap.clone();
        if let Some(mtu) = options.mtu {
            tap_options = tap_options.mtu(u32::from(mtu));
        }
        let tap = self.create_tap(&tap_options)?;
        let (index, name) = (tap.link().index, tap.link().name.clone());
        let fail = |text: String| Error::new("give addresses to", object(&name), ErrorKind::Other(text));
        let host = match options.host {
            Some(host) => host,
            None => self.free_network(index)?.ok_or_else(|| {
                fail("every network of 198.18.0.0/15 is in use; say which addresses to use".to_owned())
            })?,
        };
        if options.host.is_some()
            && let Some(used) = self.overlapping(&host)?
        {
            return Err(fail(format!("{} is in use here ({used}); choose other addresses", host.network())));
        }
        let guest = match options.guest {
            Some(guest) if guest == host.address() => {
                return Err(fail(format!("{guest} cannot be the host's address and the guest's")));
            }
            Some(guest) if !host.contains(guest) => {
                return Err(fail(format!("the guest's address {guest} is not in the host's network {host}")));
            }
            Some(guest) => guest,
            None => neighbour_of(&host)
                .ok_or_else(|| fail(format!("there is no address for a guest in {}", host.network())))?,
        };
        // It goes with the interface.
        self.add_address(&name, host)?.keep();
        self.set_up(&name)?;
        let mut config = NetConfig { mac: options.mac, mtu: options.mtu, ..NetConfig::default() };
        config.addresses.extend(Cidr::new(guest, host.prefix()));
        config.add_gateway(host.address());
        Ok(Lease { tap, host, guest, config })
    }

    /// A network of the pool that nothing here uses. The search starts at a place that the interface's index gives, so that
    /// those who search at the same time do not find the same.
    fn free_network(&self, index: u32) -> Result<Option<Cidr>, Error> {
        let taken = self.networks_in_use()?;
        let count = 1_u32 << (PREFIX - POOL.1);
        let network = |number: u32| {
            let base = POOL.0.to_bits() + ((index.wrapping_add(number) % count) << (32 - PREFIX));
            Cidr::new(IpAddr::V4(Ipv4Addr::from_bits(base + 1)), PREFIX)
        };
        let is_free = |cidr: &Cidr| !taken.iter().any(|other| other.overlaps(cidr));
        Ok((0..count).filter_map(network).find(is_free))
    }

    fn overlapping(&self, network: &Cidr) -> Result<Option<Cidr>, Error> {
        Ok(self.networks_in_use()?.into_iter().find(|used| used.overlaps(network)))
    }

    /// Networks of addresses, and those to which routes lead, apart from the default route.
    fn networks_in_use(&self) -> Result<Vec<Cidr>, Error> {
        let mut networks: Vec<Cidr> = self.addresses()?.iter().map(|address| address.cidr).collect();
        let routes = self.routes()?;
        networks.extend(routes.iter().map(|route| route.destination).filter(|network| network.prefix() > 0));
        Ok(networks)
    }
}

/// The address after the host's that a machine can have, or the one before it.
fn neighbour_of(host: &Cidr) -> Option<IpAddr> {
    let usable = |address: &IpAddr| {
        let network = host.network().address();
        // The first and the last of an IPv4 network of more than two are not for machines.
        let last = match (address, network) {
            (IpAddr::V4(_), IpAddr::V4(network)) if host.prefix() < 31 => {
                Some(IpAddr::V4(Ipv4Addr::from_bits(network.to_bits() | u32::MAX >> host.prefix())))
            }
            _ => None,
        };
        let first = (host.prefix() < if host.is_ipv4() { 31 } else { 127 }).then_some(network);
        host.contains(*address) && Some(*address) != first && Some(*address) != last
    };
    let step = |up: bool| match host.address() {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
        }
    };
    step(true).filter(usable).or_else(|| step(false).filter(usable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_get_an_address_that_machines_can_have() {
        for (host, guest) in [
            ("10.0.0.1/24", Some("10.0.0.2")),
            ("10.0.0.254/24", Some("10.0.0.253")),
            ("10.0.0.1/30", Some("10.0.0.2")),
            ("10.0.0.2/30", Some("10.0.0.1")),
            ("10.0.0.0/31", Some("10.0.0.1")),
            ("10.0.0.1/31", Some("10.0.0.0")),
            ("10.0.0.1/32", None),
            ("255.255.255.255/31", Some("255.255.255.254")),
            ("fd00::1/64", Some("fd00::2")),
            ("fd00::1/127", Some("fd00::")),
            ("fd00::1/128", None),
        ] {
            let guest = guest.map(|text| text.parse().unwrap());
            assert_eq!(neighbour_of(&host.parse().unwrap()), guest, "{host}");
        }
    }
}
