//! Addresses from the guest's arguments.

use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use smoltcp::wire::{IpAddress, IpCidr};

use crate::note::NetNote;

/// Tells monitors that the guest takes these arguments. The linker script makes it a note; it is in no note's section
/// here, since linkers keep those of every object file, whether the guest uses what is in there or not.
#[unsafe(link_section = ".nabla.net")]
static NOTE: NetNote = NetNote::THIS;

/// The addresses of a guest and what belongs to them.
///
/// `nabla run` passes them as arguments to every guest that is linked with [`from_args`](Self::from_args), in the way of
/// MirageOS: `--ipv4=10.0.0.2/24`, `--ipv4-gateway=10.0.0.1`, `--ipv6=fd00::2/64`, `--ipv6-gateway=fe80::1`; and
/// `--route=192.0.2.0/24,10.0.0.9` (or without a gateway, for what is on the link), `--dns=10.0.0.53`, `--hostname=NAME`.
/// Addresses, routes and name servers may be given several times. Without any address, or with `--dhcp`, the guest asks a
/// DHCP server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Addresses, each with its network.
    pub addresses: Vec<IpCidr>,
    /// The gateway of the IPv4 default route.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The gateway of the IPv6 default route.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Routes besides those.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<IpAddress>,
    /// The guest's name.
    pub hostname: Option<String>,
    /// Whether to ask a DHCP server.
    pub dhcp: bool,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; a prefix of 0 bits is the default route.
    pub destination: IpCidr,
    /// Through whom; directly where it is `None`.
    pub gateway: Option<IpAddress>,
}

/// An argument that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsError {
    /// The argument.
    pub argument: &'static str,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "network arguments are --ipv4=IP/PREFIX, --ipv4-gateway=IP, --ipv6=IP/PREFIX, --ipv6-gateway=IP, \
             --route=IP/PREFIX[,GATEWAY], --dns=IP, --hostname=NAME, --dhcp; '{}' is none",
            self.argument
        )
    }
}

impl core::error::Error for SettingsError {}

impl Settings {
    /// Takes them from the guest's arguments. Returns the arguments that are none of these, too.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] for an argument of these with a value that cannot be understood.
    pub fn from_args() -> Result<(Self, Vec<&'static str>), SettingsError> {
        // A use of the note that the compiler may not remove: the note is in the guest exactly when this is.
        // SAFETY: it points to a static.
        let _ = unsafe { (&raw const NOTE).read_volatile() };
        Self::parse(crate::args())
    }

    fn parse(words: impl Iterator<Item = &'static str>) -> Result<(Self, Vec<&'static str>), SettingsError> {
        let (mut settings, mut rest) = (Self::default(), Vec::new());
        for word in words {
            if settings.take(word).ok_or(SettingsError { argument: word })? {
                continue;
            }
            rest.push(word);
        }
        settings.dhcp |= settings.addresses.is_empty();
        Ok((settings, rest))
    }

    /// Whether a word is one of these arguments; `None` when its value cannot be understood.
    fn take(&mut self, word: &str) -> Option<bool> {
        let Some((name, value)) = word.split_once('=') else {
            self.dhcp |= word == "--dhcp";
            return Some(word == "--dhcp");
        };
        match name {
            "--ipv4" => self.addresses.push(cidr::<Ipv4Addr>(value, 32)?),
            "--ipv6" => self.addresses.push(cidr::<Ipv6Addr>(value, 128)?),
            "--ipv4-gateway" => self.gateway_v4 = Some(value.parse().ok()?),
            "--ipv6-gateway" => self.gateway_v6 = Some(value.parse().ok()?),
            "--route" => self.routes.push(route(value)?),
            "--dns" => self.dns.push(value.parse::<IpAddr>().ok()?.into()),
            "--hostname" => self.hostname = Some(value.into()),
            _ => return Some(false),
        }
        Some(true)
    }
}

/// A destination, and a gateway of the same family after a comma.
fn route(text: &str) -> Option<Route> {
    let (destination, gateway) = match text.split_once(',') {
        Some((destination, gateway)) => (destination, Some(gateway.parse::<IpAddr>().ok()?.into())),
        None => (text, None),
    };
    let destination = cidr::<Ipv4Addr>(destination, 32).or_else(|| cidr::<Ipv6Addr>(destination, 128))?;
    let fits = |gateway: &IpAddress| gateway.version() == destination.address().version();
    gateway.as_ref().is_none_or(fits).then_some(Route { destination, gateway })
}

/// An address with the length of its prefix, of the family of `A`.
fn cidr<A: FromStr + Into<IpAddr>>(text: &str, bits: u8) -> Option<IpCidr> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse::<A>().ok()?.into();
    let prefix = prefix.parse().ok().filter(|&prefix| prefix <= bits)?;
    Some(IpCidr::new(address.into(), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &'static str) -> Result<(Settings, Vec<&'static str>), SettingsError> {
        Settings::parse(line.split(' ').filter(|word| !word.is_empty()))
    }

    #[test]
    fn arguments_are_taken_and_the_rest_is_left() {
        let line = "--ipv4=10.0.0.2/24 --port=80 --ipv4=10.0.0.3/24 --ipv6=fd00::2/64 --ipv4-gateway=10.0.0.1 \
                    --ipv6-gateway=fe80::1 --dns=10.0.0.53 --dns=::1 --hostname=box --route=0.0.0.0/0 \
                    --route=fd01::/16,fe80::9 file";
        let (settings, rest) = parse(line).unwrap();
        assert_eq!(rest, ["--port=80", "file"]);
        assert_eq!(settings.addresses.len(), 3);
        assert_eq!(settings.addresses[0], IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24));
        assert_eq!(settings.gateway_v4, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(settings.gateway_v6, Some("fe80::1".parse().unwrap()));
        assert_eq!(settings.dns.len(), 2);
        let routes = settings.routes.iter().map(|route| (route.destination.prefix_len(), route.gateway));
        let gateway = IpAddress::v6(0xfe80, 0, 0, 0, 0, 0, 0, 9);
        assert_eq!(routes.collect::<Vec<_>>(), [(0, None), (16, Some(gateway))]);
        assert_eq!(settings.hostname.as_deref(), Some("box"));
        assert!(!settings.dhcp);
    }

    #[test]
    fn without_an_address_a_server_is_asked() {
        assert!(parse("").unwrap().0.dhcp);
        assert!(parse("--hostname=x").unwrap().0.dhcp);
        assert!(parse("--ipv4=10.0.0.2/24 --dhcp").unwrap().0.dhcp);
    }

    #[test]
    fn wrong_values_name_the_argument() {
        for word in [
            "--ipv4=",
            "--ipv4=10.0.0.2",
            "--ipv4=10.0.0.2/33",
            "--ipv4=::1/64",
            "--ipv6=10.0.0.2/24",
            "--ipv6=::1/129",
            "--ipv4-gateway=::1",
            "--ipv6-gateway=x",
            "--dns=10.0.0.1/8",
            "--route=10.0.0.0",
            "--route=10.0.0.0/8,",
            "--route=10.0.0.0/8,::1",
        ] {
            assert_eq!(parse(word), Err(SettingsError { argument: word }));
        }
    }
}
