//! What `--net` and `-p` take.

use super::device::{Parts, TapSource};
use nabla_monitor::MacAddress;
use nabla_net::{Cidr, Connection, NetConfig};
use std::{
    ffi::OsStr,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// What is expected, for messages.
const EXPECTED: &str = "expected [NAME=]TAP, new, bridge=BRIDGE or adopt=INTERFACE, and options after commas";

/// A value of `--net`: `[NAME=]SOURCE[,OPTION]...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetSpec {
    /// The name that the guest has for it; its only interface without one.
    pub name: Option<String>,
    /// Where its frames go.
    pub source: NetSource,
    /// What the guest is told, as far as it was said.
    pub config: NetConfig,
}

/// Where the frames of a guest's network interface go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetSource {
    /// A tap that exists.
    Tap(TapSource),
    /// A network made for this run, which only the host and the guest are in.
    New {
        /// The host's address.
        host: Option<Cidr>,
        /// The guest's address.
        guest: Option<IpAddr>,
        /// The name of the interface on the host's side.
        device: Option<String>,
    },
    /// A tap made for this run, at a bridge that exists.
    Bridge {
        /// The bridge.
        bridge: String,
        /// Where it is; here without one.
        netns: Option<PathBuf>,
    },
    /// An interface that the guest gets.
    Adopt {
        /// The interface.
        interface: String,
        /// Where it is; here without one.
        netns: Option<PathBuf>,
        /// How it is connected.
        connection: Connection,
    },
}

impl NetSource {
    /// The part of a value that says it, and whether a word is a name in front of it. A device that is called like one of
    /// these needs what follows to be one of these, too.
    fn keyword(subject: &str) -> Option<(&str, &str)> {
        subject.split_once('=').filter(|(word, _)| matches!(*word, "tap" | "bridge" | "adopt"))
    }

    fn parse(subject: &str) -> Result<Self, String> {
        let value = |value: &str, what: &str| {
            if value.is_empty() {
                Err(format!("the {what} is missing; {EXPECTED}"))
            } else {
                Ok(value.to_owned())
            }
        };
        match Self::keyword(subject) {
            Some(("bridge", bridge)) => Ok(Self::Bridge { bridge: value(bridge, "bridge")?, netns: None }),
            Some(("adopt", interface)) => Ok(Self::Adopt {
                interface: value(interface, "interface")?,
                netns: None,
                connection: Connection::Redirect,
            }),
            Some((_, tap)) => Ok(Self::Tap(TapSource::Name(value(tap, "tap")?))),
            None if subject == "new" => Ok(Self::New { host: None, guest: None, device: None }),
            None => TapSource::parse(subject).map(Self::Tap).map_err(|error| format!("{error}; {EXPECTED}")),
        }
    }
}

impl fmt::Display for NetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(tap) => tap.fmt(f),
            Self::New { .. } => f.write_str("new"),
            Self::Bridge { bridge, .. } => write!(f, "bridge={bridge}"),
            Self::Adopt { interface, .. } => write!(f, "adopt={interface}"),
        }
    }
}

impl NetSpec {
    /// Parses the value of `--net`.
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let Parts { name, subject, options } = Parts::of(text);
        let mut subject = String::from_utf8_lossy(&subject).into_owned();
        let mut name = name;
        if let Some(word) = &name
            && matches!(word.as_str(), "tap" | "bridge" | "adopt")
            && NetSource::keyword(&subject).is_none()
        {
            subject = format!("{word}={subject}");
            name = None;
        }
        let mut net = Self { name, source: NetSource::parse(&subject)?, config: NetConfig::default() };
        for option in options {
            net.option(&option)?;
        }
        Ok(net)
    }

    fn option(&mut self, option: &str) -> Result<(), String> {
        let Some((key, value)) = option.split_once('=') else { return Err(self.unknown(option)) };
        let text = || value.to_owned();
        match (key, &mut self.source) {
            ("mac", _) => self.config.mac = Some(parse::<MacAddress>(value)?),
            ("mtu", _) => {
                let bytes = value.parse().ok().filter(|&bytes: &u16| bytes > 0);
                let wrong = || format!("mtu '{value}' is not a number from 1 to 65535");
                self.config.mtu = Some(bytes.ok_or_else(wrong)?);
            }
            ("hostname", _) if !value.is_empty() => self.config.hostname = Some(text()),
            ("dns", _) => self.config.dns.push(address(key, value)?),
            ("host", NetSource::New { host, .. }) => *host = Some(parse(value)?),
            ("guest", NetSource::New { guest, .. }) => *guest = Some(address(key, value)?),
            ("dev", NetSource::New { device, .. }) if !value.is_empty() => *device = Some(text()),
            ("netns", NetSource::Bridge { netns, .. } | NetSource::Adopt { netns, .. })
                if !value.is_empty() =>
            {
                *netns = Some(value.into());
            }
            ("by", NetSource::Adopt { connection, .. }) => {
                *connection = match value {
                    "redirect" => Connection::Redirect,
                    "bridge" => Connection::Bridge,
                    _ => return Err(format!("by '{value}' is neither redirect nor bridge")),
                }
            }
            ("address", NetSource::Tap(_) | NetSource::Bridge { .. }) => {
                self.config.addresses.push(parse(value)?);
            }
            ("gateway", NetSource::Tap(_) | NetSource::Bridge { .. }) => {
                self.config.add_gateway(address(key, value)?);
            }
            _ => return Err(self.unknown(option)),
        }
        Ok(())
    }

    fn unknown(&self, option: &str) -> String {
        let own = match self.source {
            NetSource::Tap(_) => "address=, gateway=",
            NetSource::New { .. } => "host=, guest=, dev=",
            NetSource::Bridge { .. } => "address=, gateway=, netns=",
            NetSource::Adopt { .. } => "netns=, by=",
        };
        format!(
            "a network interface of this kind has no option '{option}', only mac=ADDRESS, mtu=BYTES, dns=, hostname=, {own}"
        )
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn address(key: &str, text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{key} '{text}' is not an IP address"))
}

/// A value of `-p`: `[ADDRESS:]PORT:GUEST_PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishSpec {
    /// Where the host listens; port 0 is any.
    pub listen: SocketAddr,
    /// The guest's port.
    pub port: u16,
}

impl FromStr for PublishSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || {
            format!(
                "'{text}' is not [ADDRESS:]PORT:GUEST_PORT, such as 8080:80, 127.0.0.1:8080:80 or [::]:8080:80"
            )
        };
        let number =
            |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let (listen, port) = text.rsplit_once(':').ok_or_else(fail)?;
        let port = number(port).filter(|&port| port > 0).ok_or_else(fail)?;
        let listen = match number(listen) {
            Some(number) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, number)),
            None => listen.parse().map_err(|_| fail())?,
        };
        Ok(Self { listen, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Result<NetSpec, String> {
        NetSpec::parse(OsStr::new(text))
    }

    #[test]
    fn taps_parse() {
        let plain = |name: Option<&str>, tap| NetSpec {
            name: name.map(str::to_owned),
            source: NetSource::Tap(tap),
            config: NetConfig::default(),
        };
        let named = |name: &str| TapSource::Name(name.to_owned());
        assert_eq!(net("tap0"), Ok(plain(None, named("tap0"))));
        assert_eq!(net("service0=tap0"), Ok(plain(Some("service0"), named("tap0"))));
        assert_eq!(net("service0=@3"), Ok(plain(Some("service0"), TapSource::Descriptor(3))));
        assert_eq!(net("a=b=c"), Ok(plain(Some("a"), named("b=c"))));
        assert_eq!(net("tap=new"), Ok(plain(None, named("new"))));
        assert_eq!(net("bridge=tap=new"), Ok(plain(Some("bridge"), named("new"))));
        let full = net("@0,mtu=9000,mac=02:00:00:00:00:01,address=10.0.0.2/24,gateway=10.0.0.1").unwrap();
        assert_eq!(full.source, NetSource::Tap(TapSource::Descriptor(0)));
        let config = full.config;
        assert_eq!((config.mac, config.mtu), (Some(MacAddress([2, 0, 0, 0, 0, 1])), Some(9000)));
        assert_eq!(config.ipv4(), Some("10.0.0.2/24".parse().unwrap()));
        assert_eq!(config.gateway_v4(), Some([10, 0, 0, 1].into()));
    }

    #[test]
    fn what_is_made_parses() {
        let source = |text: &str| net(text).map(|net| (net.name, net.source));
        let new = |host: Option<&str>, guest: Option<&str>| NetSource::New {
            host: host.map(|text| text.parse().unwrap()),
            guest: guest.map(|text| text.parse().unwrap()),
            device: None,
        };
        assert_eq!(source("new"), Ok((None, new(None, None))));
        assert_eq!(source("a=new,host=10.0.0.1/24"), Ok((Some("a".into()), new(Some("10.0.0.1/24"), None))));
        assert_eq!(
            source("new,host=fd00::1/64,guest=fd00::2"),
            Ok((None, new(Some("fd00::1/64"), Some("fd00::2"))))
        );
        let bridge = |bridge: &str| NetSource::Bridge { bridge: bridge.into(), netns: None };
        assert_eq!(source("bridge=br0"), Ok((None, bridge("br0"))));
        assert_eq!(source("net0=bridge=br0"), Ok((Some("net0".into()), bridge("br0"))));
        assert_eq!(source("bridge=new"), Ok((None, bridge("new"))));
        assert_eq!(source("adopt=bridge=br0"), Ok((Some("adopt".into()), bridge("br0"))));
        let adopt = NetSource::Adopt {
            interface: "eth0".into(),
            netns: Some("/run/netns/x".into()),
            connection: Connection::Bridge,
        };
        assert_eq!(source("adopt=eth0,netns=/run/netns/x,by=bridge"), Ok((None, adopt)));
    }

    #[test]
    fn bad_nets_say_what_is_wrong() {
        for (text, part) in [
            ("", "tap is missing"),
            ("service0=", "tap is missing"),
            ("@", "'@' is not the number"),
            ("@x", "'@x' is not the number"),
            ("@-1", "'@-1' is not the number"),
            ("@+1", "'@+1' is not the number"),
            ("bridge=", "bridge is missing"),
            ("adopt=", "interface is missing"),
            ("tap0,mac=1", "'1' is not a MAC address"),
            ("tap0,mtu=0", "mtu '0'"),
            ("tap0,mtu=65536", "mtu '65536'"),
            ("tap0,ro", "no option 'ro'"),
            ("tap0,host=10.0.0.1/24", "no option 'host=10.0.0.1/24'"),
            ("new,host=10.0.0.1", "'10.0.0.1' is not an address with"),
            ("new,guest=10.0.0.2/24", "guest '10.0.0.2/24' is not an IP address"),
            ("new,address=10.0.0.2/24", "no option 'address"),
            ("adopt=eth0,by=magic", "by 'magic'"),
            ("adopt=eth0,netns=", "no option 'netns='"),
            ("bridge=br0,gateway=x", "gateway 'x'"),
        ] {
            let error = net(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn ports_parse() {
        for (text, listen, port) in [
            ("8080:80", "0.0.0.0:8080", 80),
            ("0:80", "0.0.0.0:0", 80),
            ("127.0.0.1:8080:80", "127.0.0.1:8080", 80),
            ("[::1]:8080:65535", "[::1]:8080", 65535),
        ] {
            assert_eq!(text.parse(), Ok(PublishSpec { listen: listen.parse().unwrap(), port }), "{text}");
        }
        for text in [
            "",
            "80",
            ":80",
            "8080:",
            "8080:0",
            "8080:65536",
            "+1:80",
            "x:80",
            "localhost:8080:80",
            "::1:1:80x",
        ] {
            assert!(text.parse::<PublishSpec>().is_err(), "{text}");
        }
    }
}
