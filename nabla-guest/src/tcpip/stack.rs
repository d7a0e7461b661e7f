//! An interface, its sockets, DHCP, and waiting.

use alloc::vec::Vec;
use core::{fmt, net::Ipv4Addr};

use smoltcp::{
    iface::{self, Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet},
    socket::dhcpv4,
    time::Instant,
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv6Address},
};

use super::{Device, Route, Settings, arp::Addresses, seed::seed};
use crate::{Net, NetError, event, sys, time};

/// A network device with TCP/IP.
pub struct Stack {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    own: Vec<IpCidr>,
    settings: Settings,
}

impl Stack {
    /// The most frames that one [`Stack::poll`] receives.
    pub const FRAMES_AT_ONCE: usize = 32;

    /// The stack of a device. With DHCP, it has no address until [`Stack::poll`] has received one.
    ///
    /// A gateway that is in the network of no address is reached all the same, as in containers whose address has a prefix
    /// of 32 bits. What does not fit into smoltcp's tables (8 addresses and 8 routes) is left out. What is on the link by a
    /// route without a gateway goes before routes with one.
    #[must_use]
    pub fn new(net: Net, settings: &Settings) -> Self {
        let mut device = Device::new(net);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(net.mac())));
        config.random_seed = seed(&net);
        let mut interface = Interface::new(config, &mut device, now());
        if let Some(gateway) = settings.gateway_v4 {
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        if let Some(gateway) = settings.gateway_v6 {
            let _ = interface.routes_mut().add_default_ipv6_route(gateway);
        }
        interface.routes_mut().update(|routes| {
            for &Route { destination: cidr, gateway } in &settings.routes {
                let route =
                    |via_router| iface::Route { cidr, via_router, preferred_until: None, expires_at: None };
                let _ = gateway.map(|gateway| routes.push(route(gateway)));
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = settings.dhcp.then(|| sockets.add(dhcpv4::Socket::new()));
        let (own, settings) = (own_addresses(settings, net.mac()), settings.clone());
        let mut stack = Self { device, interface, sockets, dhcp, own: Vec::new(), settings };
        stack.set_addresses(own);
        stack
    }

    fn set_addresses(&mut self, own: Vec<IpCidr>) {
        let stack = addresses_for_stack(&own, &self.settings);
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            for address in &stack {
                let _ = addresses.push(*address);
            }
        });
        self.own.clone_from(&own);
        self.device.answer_for(Addresses { own, stack });
    }

    /// Receives and sends what there is, and returns whether a socket may have changed.
    ///
    /// After [`Self::FRAMES_AT_ONCE`] frames it returns, too, although there may be more: a program that keeps more sockets
    /// listening than that has one for each client of a burst. [`Stack::wait`] does not wait then.
    pub fn poll(&mut self) -> bool {
        let (now, mut changed) = (now(), false);
        self.interface.poll_maintenance(now);
        for _ in 0..Self::FRAMES_AT_ONCE {
            match self.interface.poll_ingress_single(now, &mut self.device, &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => changed = true,
            }
        }
        while self.interface.poll_egress(now, &mut self.device, &mut self.sockets)
            == PollResult::SocketStateChanged
        {
            changed = true;
        }
        changed | self.dhcp.is_some_and(|dhcp| self.configure(dhcp))
    }

    /// Waits until there is something for [`Stack::poll`] to do. Nothing is to be done for a frame of another device, but
    /// it ends this, too.
    ///
    /// # Errors
    ///
    /// [`NetError::Io`] when the host has taken the device away, such as by deleting a tap: there is nothing left to wait
    /// for, and hosts do not let a guest wait for a device that is gone.
    pub fn wait(&mut self) -> Result<(), NetError> {
        self.wait_at_most(None)
    }

    /// The same, until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// As [`Stack::wait`].
    pub fn wait_until(&mut self, deadline: time::Instant) -> Result<(), NetError> {
        self.wait_at_most(Some(deadline))
    }

    fn wait_at_most(&mut self, deadline: Option<time::Instant>) -> Result<(), NetError> {
        if self.device.is_gone() {
            return Err(NetError::Io);
        }
        let next = self.interface.poll_delay(now(), &self.sockets);
        let next = next.map(|delay| time::Instant::now() + delay.into());
        let _ = match [next, deadline].into_iter().flatten().min() {
            None => event::yield_forever(),
            // There is something to send.
            Some(time) if time <= time::Instant::now() => return Ok(()),
            Some(time) => event::yield_until(time),
        };
        Ok(())
    }

    /// The sockets.
    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// The interface, and the sockets with it, for what takes both: connecting is one of those.
    pub fn split(&mut self) -> (&mut Interface, &mut SocketSet<'static>) {
        (&mut self.interface, &mut self.sockets)
    }

    /// The addresses that the guest has now.
    #[must_use]
    pub fn addresses(&self) -> &[IpCidr] {
        &self.own
    }

    /// The name servers that the guest knows now.
    #[must_use]
    pub fn dns(&self) -> &[IpAddress] {
        &self.settings.dns
    }

    /// Takes over what the DHCP server has said, and returns whether it has said something.
    fn configure(&mut self, dhcp: SocketHandle) -> bool {
        let (address, router, dns) = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll() {
            None => return false,
            Some(dhcpv4::Event::Deconfigured) => (None, None, Vec::new()),
            Some(dhcpv4::Event::Configured(config)) => {
                let dns = config.dns_servers.iter().map(|&server| server.into()).collect();
                (Some(config.address), config.router, dns)
            }
        };
        let mut own = core::mem::take(&mut self.own);
        own.retain(|own| matches!(own, IpCidr::Ipv6(_)));
        own.extend(address.map(IpCidr::Ipv4));
        // A server may name a gateway that is in no network of the guest's.
        self.settings.gateway_v4 = router;
        self.set_addresses(own);
        self.interface.routes_mut().remove_default_ipv4_route();
        if let Some(router) = router {
            let _ = self.interface.routes_mut().add_default_ipv4_route(router);
        }
        self.settings.dns = dns;
        true
    }
}

/// The guest's addresses of a device: those of the settings, and an address of the link if there is one of IPv6, which
/// neighbours and gateways expect everybody to have. Source: RFC 4291, appendix A.
fn own_addresses(settings: &Settings, mac: [u8; 6]) -> Vec<IpCidr> {
    let mut addresses = settings.addresses.clone();
    if addresses.iter().any(|address| matches!(address, IpCidr::Ipv6(_))) {
        let [a, b, c, d, e, f] = mac;
        let half = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let own = Ipv6Address::new(0xfe80, 0, 0, 0, half(a ^ 2, b), half(c, 0xff), half(0xfe, d), half(e, f));
        addresses.push(IpCidr::new(IpAddress::from(own), 64));
    }
    addresses
}

/// The addresses that smoltcp is given: the guest's, and one for everything else that is on the link. smoltcp reaches its own
/// networks only, and has no routes without a gateway.
fn addresses_for_stack(own: &[IpCidr], settings: &Settings) -> Vec<IpCidr> {
    let mut addresses = own.to_vec();
    let host = |address: IpAddress| {
        let bits = if matches!(address, IpAddress::Ipv4(_)) { 32 } else { 128 };
        IpCidr::new(address, bits)
    };
    let gateways = [settings.gateway_v4.map(IpAddress::from), settings.gateway_v6.map(IpAddress::from)];
    let gateways = gateways.into_iter().chain(settings.routes.iter().map(|route| route.gateway)).flatten();
    let direct =
        settings.routes.iter().filter(|route| route.gateway.is_none()).map(|route| route.destination);
    for destination in gateways.map(host).chain(direct) {
        let contains = |outer: &IpCidr, inner: &IpCidr| {
            outer.prefix_len() <= inner.prefix_len() && outer.contains_addr(&inner.address())
        };
        if !addresses.iter().any(|address| contains(address, &destination)) {
            let prefix = destination.prefix_len();
            addresses.push(match own.iter().find(|address| contains(&destination, address)) {
                Some(own) => IpCidr::new(own.address(), prefix),
                None => beside(destination),
            });
        }
    }
    addresses
}

/// A network that has the destination in it, with an address that is taken for the guest's: the first one, which no machine
/// has; of a single address, the one beside it.
fn beside(destination: IpCidr) -> IpCidr {
    let prefix = destination.prefix_len();
    match destination.address() {
        IpAddress::Ipv4(address) if prefix >= 31 => {
            IpCidr::new(IpAddress::from(Ipv4Addr::from_bits(address.to_bits() ^ 1)), 31)
        }
        IpAddress::Ipv6(address) if prefix >= 127 => {
            IpCidr::new(IpAddress::from(Ipv6Address::from_bits(address.to_bits() ^ 1)), 127)
        }
        IpAddress::Ipv4(address) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
            IpCidr::new(IpAddress::from(Ipv4Addr::from_bits(address.to_bits() & mask)), prefix)
        }
        IpAddress::Ipv6(address) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
            IpCidr::new(IpAddress::from(Ipv6Address::from_bits(address.to_bits() & mask)), prefix)
        }
    }
}

/// The monotonic clock. In 292,000 years it will not fit any more.
fn now() -> Instant {
    Instant::from_micros(i64::try_from(sys::monotonic() / 1000).unwrap_or(i64::MAX))
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("device", &self.device)
            .field("addresses", &self.addresses())
            .field("dns", &self.dns())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: IpCidr, gateway: Option<Ipv4Addr>) -> Settings {
        Settings { addresses: [address].into(), gateway_v4: gateway, ..Settings::default() }
    }

    fn for_stack(settings: &Settings) -> Vec<IpCidr> {
        addresses_for_stack(&own_addresses(settings, [2; 6]), settings)
    }

    #[test]
    fn gateway_outside_of_every_network_gets_one() {
        let address = IpCidr::new(IpAddress::v4(10, 1, 1, 5), 32);
        let gateway = Ipv4Addr::new(169, 254, 1, 1);
        let addresses = for_stack(&settings(address, Some(gateway)));
        assert_eq!(addresses, [address, IpCidr::new(IpAddress::v4(169, 254, 1, 0), 31)]);
        assert!(addresses[1].contains_addr(&gateway.into()));
        let inside = IpCidr::new(IpAddress::v4(10, 1, 1, 5), 24);
        assert_eq!(for_stack(&settings(inside, Some(Ipv4Addr::new(10, 1, 1, 1)))), [inside]);
    }

    #[test]
    fn what_is_on_the_link_gets_a_network() {
        let own = IpCidr::new(IpAddress::v4(10, 9, 0, 2), 24);
        let with_routes = |routes: &[(IpCidr, Option<IpAddress>)]| {
            let route = |&(destination, gateway): &_| Route { destination, gateway };
            let routes = routes.iter().map(route).collect();
            for_stack(&Settings { routes, ..settings(own, None) })
        };
        let v4 = |a, b, c, d, prefix| IpCidr::new(IpAddress::v4(a, b, c, d), prefix);
        assert_eq!(with_routes(&[(v4(0, 0, 0, 0, 0), None)]), [own, v4(10, 9, 0, 2, 0)]);
        assert_eq!(with_routes(&[(v4(192, 0, 2, 0, 24), None)]), [own, v4(192, 0, 2, 0, 24)]);
        assert_eq!(with_routes(&[(v4(192, 0, 2, 7, 24), None)]), [own, v4(192, 0, 2, 0, 24)]);
        assert_eq!(with_routes(&[(v4(10, 9, 0, 128, 25), None)]), [own]);
        let gateway = Some(IpAddress::v4(10, 9, 0, 1));
        assert_eq!(with_routes(&[(v4(192, 0, 2, 0, 24), gateway)]), [own]);
        let outside = Some(IpAddress::v4(10, 8, 0, 1));
        assert_eq!(with_routes(&[(v4(192, 0, 2, 0, 24), outside)]), [own, v4(10, 8, 0, 0, 31)]);
        let everything = IpCidr::new(IpAddress::v6(0, 0, 0, 0, 0, 0, 0, 0), 0);
        assert_eq!(beside(everything), everything);
    }

    #[test]
    fn ipv6_has_an_address_of_the_link() {
        let address = IpCidr::new(IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2), 64);
        let addresses = own_addresses(&settings(address, None), [0x02, 0, 0, 0, 0, 1]);
        let own = IpAddress::v6(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);
        assert_eq!(addresses, [address, IpCidr::new(own, 64)]);
    }
}
