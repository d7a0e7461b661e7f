//! An interface, its sockets, DHCP, and waiting.

use alloc::vec::Vec;
use core::{fmt, net::Ipv4Addr};

use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    socket::dhcpv4,
    time::Instant,
    wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv6Address},
};

use super::{Device, Settings, seed::seed};
use crate::{Net, event, sys, time};

/// A network device with TCP/IP.
pub struct Stack {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    dns: Vec<IpAddress>,
}

impl Stack {
    /// The stack of a device. With DHCP, it has no address until [`Stack::poll`] has received one.
    ///
    /// A gateway that is in the network of no address is reached in any case, as in containers whose address has a prefix
    /// of 32 bits. What does not fit into smoltcp's tables (8 addresses) is left out.
    #[must_use]
    pub fn new(net: Net, settings: &Settings) -> Self {
        let mut device = Device::new(net);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(net.mac())));
        config.random_seed = seed(&net);
        let mut interface = Interface::new(config, &mut device, now());
        interface.update_ip_addrs(|addresses| {
            for address in addresses_of(settings, net.mac()) {
                let _ = addresses.push(address);
            }
        });
        if let Some(gateway) = settings.gateway_v4 {
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        if let Some(gateway) = settings.gateway_v6 {
            let _ = interface.routes_mut().add_default_ipv6_route(gateway);
        }
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = settings.dhcp.then(|| sockets.add(dhcpv4::Socket::new()));
        Self { device, interface, sockets, dhcp, dns: settings.dns.clone() }
    }

    /// Receives and sends all that is ready, and returns whether a socket may have changed.
    pub fn poll(&mut self) -> bool {
        let result = self.interface.poll(now(), &mut self.device, &mut self.sockets);
        let configured = self.dhcp.is_some_and(|dhcp| self.configure(dhcp));
        result == PollResult::SocketStateChanged || configured
    }

    /// Waits until there is something for [`Stack::poll`] to do. Nothing is to be done for a frame of another device, but
    /// it ends this, too.
    pub fn wait(&mut self) {
        self.wait_at_most(None);
    }

    /// The same, until `deadline` at the latest.
    pub fn wait_until(&mut self, deadline: time::Instant) {
        self.wait_at_most(Some(deadline));
    }

    fn wait_at_most(&mut self, deadline: Option<time::Instant>) {
        let next = self.interface.poll_delay(now(), &self.sockets);
        let next = next.map(|delay| time::Instant::now() + delay.into());
        let _ = match [next, deadline].into_iter().flatten().min() {
            None => event::yield_forever(),
            // There is something to send.
            Some(time) if time <= time::Instant::now() => return,
            Some(time) => event::yield_until(time),
        };
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
        self.interface.ip_addrs()
    }

    /// The name servers that the guest knows now.
    #[must_use]
    pub fn dns(&self) -> &[IpAddress] {
        &self.dns
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
        self.interface.update_ip_addrs(|addresses| {
            addresses.retain(|address| matches!(address, IpCidr::Ipv6(_)));
            if let Some(address) = address {
                let _ = addresses.push(IpCidr::Ipv4(address));
            }
        });
        self.interface.routes_mut().remove_default_ipv4_route();
        if let Some(router) = router {
            let _ = self.interface.routes_mut().add_default_ipv4_route(router);
        }
        self.dns = dns;
        true
    }
}

/// The addresses of the settings, and those that the stack needs besides.
fn addresses_of(settings: &Settings, mac: [u8; 6]) -> Vec<IpCidr> {
    let mut addresses = settings.addresses.clone();
    let on_link = |gateway: &Ipv4Addr| {
        let gateway = IpAddress::from(*gateway);
        addresses.iter().any(|address| address.contains_addr(&gateway))
    };
    // smoltcp believes answers of its own networks only, so the gateway gets one: of two addresses, of which the other is
    // taken for the guest's own.
    let outside = settings.gateway_v4.filter(|gateway| !on_link(gateway));
    if let Some(gateway) = outside {
        let other = Ipv4Addr::from_bits(gateway.to_bits() ^ 1);
        addresses.push(IpCidr::new(IpAddress::from(other), 31));
    }
    // RFC 4291, appendix A: what neighbours and gateways of the link expect everybody to have.
    if addresses.iter().any(|address| matches!(address, IpCidr::Ipv6(_))) {
        let [a, b, c, d, e, f] = mac;
        let half = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let own = Ipv6Address::new(0xfe80, 0, 0, 0, half(a ^ 2, b), half(c, 0xff), half(0xfe, d), half(e, f));
        addresses.push(IpCidr::new(IpAddress::from(own), 64));
    }
    addresses
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
            .field("dns", &self.dns)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: IpCidr, gateway: Option<Ipv4Addr>) -> Settings {
        Settings { addresses: [address].into(), gateway_v4: gateway, ..Settings::default() }
    }

    #[test]
    fn gateway_outside_of_every_network_gets_one() {
        let address = IpCidr::new(IpAddress::v4(10, 1, 1, 5), 32);
        let gateway = Ipv4Addr::new(169, 254, 1, 1);
        let addresses = addresses_of(&settings(address, Some(gateway)), [2; 6]);
        assert_eq!(addresses, [address, IpCidr::new(IpAddress::v4(169, 254, 1, 0), 31)]);
        assert!(addresses[1].contains_addr(&gateway.into()));
        let inside = IpCidr::new(IpAddress::v4(10, 1, 1, 5), 24);
        assert_eq!(addresses_of(&settings(inside, Some(Ipv4Addr::new(10, 1, 1, 1))), [2; 6]), [inside]);
    }

    #[test]
    fn ipv6_has_an_address_of_the_link() {
        let address = IpCidr::new(IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2), 64);
        let addresses = addresses_of(&settings(address, None), [0x02, 0, 0, 0, 0, 1]);
        let own = IpAddress::v6(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);
        assert_eq!(addresses, [address, IpCidr::new(own, 64)]);
    }
}
