//! Routes of the main table.

use crate::{
    change::Change,
    config::Cidr,
    error::{Error, ErrorKind},
    network::Network,
    owned::Owned,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags,
        RouteProtocol, RouteScope, RouteType, RouteVia,
    },
    rule::{RuleAttribute, RuleMessage},
};
use rustix::io::Errno;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// Priorities of the rules that every namespace has: of the tables local, main and default. Source: ip-rule(8).
const USUAL_RULES: [u32; 3] = [0, 32766, 32767];

/// A route of the main table to addresses of one family. One with several next hops is as many routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; a prefix of 0 bits is the default route.
    pub destination: Cidr,
    /// Through whom; directly where it is `None`.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub link: u32,
    /// Whether the gateway is on the link although no address of the interface says so.
    pub on_link: bool,
    /// Priority: the lowest wins.
    pub metric: u32,
    /// Whether the kernel added it along with an address.
    pub by_kernel: bool,
}

impl Route {
    /// A route through an interface to those who are directly there.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// use nabla_net::Route;
    ///
    /// network.set_up("lo")?;
    /// let lo = network.link("lo")?.index;
    /// let route = network.add_route(Route::direct("10.5.0.0/16".parse()?, lo))?;
    /// assert_eq!(route.gateway, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn direct(destination: Cidr, link: u32) -> Self {
        Self { destination, gateway: None, link, on_link: false, metric: 0, by_kernel: false }
    }

    /// The default route through a gateway.
    ///
    /// ```
    /// let route = nabla_net::Route::default_through([10, 0, 0, 1].into(), 2);
    /// assert_eq!(route.destination.to_string(), "0.0.0.0/0");
    /// ```
    #[must_use]
    pub fn default_through(gateway: IpAddr, link: u32) -> Self {
        let destination = any(gateway.is_ipv4());
        Self { destination, gateway: Some(gateway), link, on_link: false, metric: 0, by_kernel: false }
    }
}

fn any(ipv4: bool) -> Cidr {
    let address = if ipv4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    Cidr::new(address, 0).unwrap_or(Cidr::host(address))
}

impl Network {
    /// Every unicast route of the main table, of both families.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// use nabla_net::{Network, Route};
    ///
    /// let network = Network::isolated()?;
    /// let _pair = network.create_veth("a", "b")?;
    /// network.set_up("a")?;
    /// network.set_up("b")?;
    /// let _address = network.add_address("a", "10.0.0.2/24".parse()?)?;
    /// let link = network.link("a")?.index;
    /// let route = network.add_route(Route::default_through([10, 0, 0, 1].into(), link))?;
    /// assert!(network.routes()?.contains(&route));
    /// route.release()?;
    /// assert!(network.routes()?.iter().all(|route| route.by_kernel));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn routes(&self) -> Result<Vec<Route>, Error> {
        Ok(self.route_messages()?.iter().flat_map(from_message).collect())
    }

    fn route_messages(&self) -> Result<Vec<RouteMessage>, Error> {
        let mut messages = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self
                .routing()
                .list(&RouteNetlinkMessage::GetRoute(message))
                .map_err(|error| Error::system("list", "the routes", error))?;
            messages.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => Some(message),
                _ => None,
            }));
        }
        Ok(messages)
    }

    /// What else decides where packets of this namespace go, in words: rules besides those that every namespace has, and
    /// routes of the main table that lead nowhere.
    pub(crate) fn other_routing(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            // Kernels without rules do not know the question.
            for rule in self.routing().list(&RouteNetlinkMessage::GetRule(message)).unwrap_or_default() {
                let RouteNetlinkMessage::NewRule(rule) = rule else { continue };
                if rule.header.family != family {
                    continue;
                }
                let priority = rule.attributes.iter().find_map(|attribute| match attribute {
                    RuleAttribute::Priority(priority) => Some(*priority),
                    _ => None,
                });
                let priority = priority.unwrap_or(0);
                if !USUAL_RULES.contains(&priority) {
                    found.push(format!("the rule of routing with priority {priority}"));
                }
            }
        }
        for message in self.route_messages()? {
            let kind = message.header.kind;
            let leads_nowhere = matches!(
                kind,
                RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
            );
            if leads_nowhere && message.header.protocol != RouteProtocol::Kernel && table(&message) == MAIN {
                let mut unicast = message;
                unicast.header.kind = RouteType::Unicast;
                unicast.attributes.push(RouteAttribute::Oif(1));
                let destination = from_message(&unicast).first().map(|route| route.destination);
                found.extend(
                    destination
                        .map(|to| format!("the route to {to} ({})", format!("{kind:?}").to_lowercase())),
                );
            }
        }
        Ok(found)
    }

    /// Adds a route until this is undone.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// use nabla_net::Route;
    ///
    /// let _pair = network.create_veth("eth0", "peer")?;
    /// network.set_up("peer")?;
    /// network.set_up("eth0")?;
    /// let _address = network.add_address("eth0", "10.0.0.2/24".parse()?)?;
    /// let eth0 = network.link("eth0")?.index;
    /// let route = network.add_route(Route::default_through("10.0.0.1".parse()?, eth0))?;
    /// assert!(network.routes()?.iter().any(|route| route.gateway == Some([10, 0, 0, 1].into())));
    /// route.release()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is such a route already, the interface is missing or down, or the kernel refuses.
    pub fn add_route(&self, route: Route) -> Result<Owned<Route>, Error> {
        let request = RouteNetlinkMessage::NewRoute(message(&route));
        Change::new("add", object(&route), request).creating().apply(self).map_err(|error| {
            match error.kind {
            ErrorKind::System(source) if source.kind() == io::ErrorKind::NetworkUnreachable => Error {
                kind: ErrorKind::Other(
                    "no address of the interface reaches the gateway; set on_link if it is there all the same"
                        .to_owned(),
                ),
                ..error
            },
            kind => Error { kind, ..error },
        }
        })?;
        let request = RouteNetlinkMessage::DelRoute(message(&route));
        let remove = Change::new("remove", object(&route), request).missing(Errno::SRCH);
        Ok(Owned::new(route, self, remove))
    }
}

fn object(route: &Route) -> String {
    match route.gateway {
        Some(gateway) => format!("route to {} through {gateway}", route.destination),
        None => format!("route to {}", route.destination),
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family =
        if route.destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    header.destination_prefix_length = route.destination.prefix();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Static;
    header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    header.kind = RouteType::Unicast;
    if route.on_link {
        header.flags = RouteFlags::Onlink;
    }
    if route.destination.prefix() > 0 {
        let destination = route.destination.network().address();
        message.attributes.push(RouteAttribute::Destination(route_address(destination)));
    }
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(route_address(gateway)));
    }
    if route.metric > 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message.attributes.push(RouteAttribute::Oif(route.link));
    message
}

fn table(message: &RouteMessage) -> u32 {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    table.unwrap_or(message.header.table.into())
}

/// The routes of a message: one for each next hop.
fn from_message(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let mut route = Route::direct(any(header.address_family == AddressFamily::Inet), 0);
    let mut hops = &[][..];
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                let destination = ip_address(address)
                    .and_then(|address| Cidr::new(address, header.destination_prefix_length));
                let Some(destination) = destination else { return Vec::new() };
                route.destination = destination;
            }
            RouteAttribute::Oif(index) => route.link = *index,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(several) => hops = several,
            _ => {}
        }
    }
    route.gateway = gateway(&message.attributes);
    route.on_link = header.flags.contains(RouteFlags::Onlink);
    route.by_kernel = header.protocol == RouteProtocol::Kernel;
    if header.kind != RouteType::Unicast || table(message) != MAIN {
        return Vec::new();
    }
    let hops = hops.iter().map(|hop| Route {
        link: hop.interface_index,
        gateway: gateway(&hop.attributes),
        on_link: hop.flags.contains(RouteNextHopFlags::Onlink),
        ..route
    });
    hops.chain((route.link != 0).then_some(route)).collect()
}

/// Of either family: IPv4 destinations can have gateways of IPv6.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip_address(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}
