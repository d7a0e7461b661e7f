//! What a guest is told about one network interface.

use super::cidr::Cidr;
use nabla_core::MacAddress;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What a guest is told about one network interface, whoever found it out and however the guest is told.
///
/// MAC address and MTU reach the guest through its manifest; the rest goes onto its command line, see
/// [`ConfigStyle`](super::ConfigStyle).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetConfig {
    /// The MAC address; any where it is `None`.
    pub mac: Option<MacAddress>,
    /// The MTU in bytes, Ethernet header not included; the interface's own where it is `None`.
    pub mtu: Option<u16>,
    /// Addresses; the first of a family is the one that guests with one address get.
    pub addresses: Vec<Cidr>,
    /// Routes apart from those to the networks of the addresses.
    pub routes: Vec<NetRoute>,
    /// Name servers in their order.
    pub dns: Vec<IpAddr>,
    /// Domains in which names are looked up.
    pub search: Vec<String>,
    /// The guest's name.
    pub hostname: Option<String>,
}

/// A route of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetRoute {
    /// Where it leads; a prefix of 0 bits is the default route.
    pub destination: Cidr,
    /// Through whom; directly where it is `None`.
    pub gateway: Option<IpAddr>,
}

impl NetRoute {
    /// Whether destination and gateway are of different families, which not every guest can have.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.gateway.is_some_and(|gateway| gateway.is_ipv4() != self.destination.is_ipv4())
    }
}

/// The destination, and after a comma the gateway.
impl fmt::Display for NetRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, ",{gateway}"))
    }
}

impl NetConfig {
    /// The first IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<Cidr> {
        self.addresses.iter().copied().find(Cidr::is_ipv4)
    }

    /// The first IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<Cidr> {
        self.addresses.iter().copied().find(|address| !address.is_ipv4())
    }

    /// The gateway of the IPv4 default route.
    #[must_use]
    pub fn gateway_v4(&self) -> Option<Ipv4Addr> {
        self.gateways().find_map(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(gateway),
            IpAddr::V6(_) => None,
        })
    }

    /// The gateway of the IPv6 default route.
    #[must_use]
    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        self.gateways().find_map(|gateway| match gateway {
            IpAddr::V6(gateway) => Some(gateway),
            IpAddr::V4(_) => None,
        })
    }

    /// Adds a default route.
    pub fn add_gateway(&mut self, gateway: IpAddr) {
        let any = match gateway {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let destination = Cidr::host(any);
        let destination = Cidr::new(any, 0).unwrap_or(destination);
        self.routes.push(NetRoute { destination, gateway: Some(gateway) });
    }

    /// Routes that are neither of the default ones of [`gateway_v4`](Self::gateway_v4) and [`gateway_v6`](Self::gateway_v6).
    ///
    /// ```
    /// use nabla_net::{NetConfig, NetRoute};
    ///
    /// let mut config = NetConfig::default();
    /// config.add_gateway([10, 0, 0, 1].into());
    /// config.routes.push(NetRoute { destination: "192.0.2.0/24".parse()?, gateway: Some([10, 0, 0, 9].into()) });
    /// config.routes.push(NetRoute { destination: "10.1.0.0/16".parse()?, gateway: None });
    /// let routes: Vec<_> = config.other_routes().map(|route| route.to_string()).collect();
    /// assert_eq!(routes, ["192.0.2.0/24,10.0.0.9", "10.1.0.0/16"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn other_routes(&self) -> impl Iterator<Item = NetRoute> {
        let defaults = [self.gateway_v4().map(IpAddr::from), self.gateway_v6().map(IpAddr::from)];
        let is_said = move |route: &&NetRoute| {
            defaults.iter().flatten().any(|gateway| match route.destination.prefix() {
                // One default route of each family counts.
                0 => gateway.is_ipv4() == route.destination.is_ipv4(),
                // That the gateway is on the link.
                _ => route.gateway.is_none() && route.destination == Cidr::host(*gateway),
            })
        };
        self.routes.iter().filter(move |route| !is_said(route)).copied()
    }

    fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let of_default =
            |route: &NetRoute| route.gateway.filter(|_| route.destination.prefix() == 0 && !route.is_mixed());
        self.routes.iter().filter_map(of_default)
    }

    /// Takes name servers and domains from the text of a `resolv.conf`. What it does not understand is skipped, as
    /// resolvers do.
    ///
    /// ```
    /// use nabla_net::NetConfig;
    ///
    /// let mut config = NetConfig::default();
    /// config.read_resolv_conf("# comment\nnameserver 10.0.0.53\nsearch a.example b.example\noptions ndots:0\n");
    /// assert_eq!(config.dns, [std::net::IpAddr::from([10, 0, 0, 53])]);
    /// assert_eq!(config.search, ["a.example", "b.example"]);
    /// ```
    pub fn read_resolv_conf(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone, as in fe80::1%eth0, names an interface that the guest does not have.
                    let address = words.next().and_then(|word| word.split('%').next());
                    self.dns.extend(address.and_then(|address| address.parse::<IpAddr>().ok()));
                }
                // The last one counts.
                Some("search" | "domain") => self.search = words.map(String::from).collect(),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_of_each_family_counts() {
        let mut config = NetConfig::default();
        assert_eq!((config.ipv4(), config.ipv6(), config.gateway_v4()), (None, None, None));
        for address in ["fd00::2/64", "10.0.0.2/24", "10.0.0.3/24"] {
            config.addresses.push(address.parse().unwrap());
        }
        config.add_gateway(IpAddr::from([10, 0, 0, 1]));
        config.add_gateway("fe80::1".parse().unwrap());
        assert_eq!(config.ipv4(), Some("10.0.0.2/24".parse().unwrap()));
        assert_eq!(config.ipv6(), Some("fd00::2/64".parse().unwrap()));
        assert_eq!(config.gateway_v4(), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(config.gateway_v6(), Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn odd_lines_of_resolv_conf_are_skipped() {
        let mut config = NetConfig::default();
        config.read_resolv_conf(
            "nameserver\nnameserver x\nnameserver fe80::1%eth0\nfoo bar\nsearch a\ndomain b\n;x\n",
        );
        assert_eq!(config.dns, ["fe80::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.search, ["b"]);
    }
}
