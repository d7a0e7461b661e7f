//! The command line of rumprun guests.

use super::net_config::NetConfig;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::{
    fmt::{self, Write},
    net::IpAddr,
};
use thiserror::Error;

/// The command line of a rumprun guest: one JSON object, in which members may be repeated. Made from its parts, or what
/// somebody else made with more in it.
///
/// ```
/// use nabla_net::{NetConfig, Rumprun};
///
/// let mut config = NetConfig::default();
/// config.addresses.push("172.17.0.2/16".parse()?);
/// config.add_gateway([172, 17, 0, 1].into());
/// let line = Rumprun::new("node.nabla app.js").env("PATH=/bin").net(&config).root_disk().to_string();
/// assert_eq!(
///     line,
///     concat!(
///         r#"{"env":"PATH=/bin","cmdline":"node.nabla app.js","#,
///         r#""net":{"if":"ukvmif0","cloner":"True","type":"inet","method":"static","addr":"172.17.0.2","mask":"16","gw":"172.17.0.1"},"#,
///         r#""blk":{"source":"etfs","path":"/dev/ld0a","fstype":"blk","mountpoint":"/"}}"#,
///     )
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rumprun {
    env: Vec<String>,
    /// What the object has between its braces from the start.
    members: String,
    /// The interfaces that it configures with that.
    configured: Configured,
    net: Vec<String>,
    interfaces: usize,
    root_disk: bool,
    cwd: Option<String>,
}

/// A command line that starts like rumprun's and is none.
#[derive(Debug, Error)]
#[error(
    "the guest's arguments start with '{{' and are not one object of JSON (a program with such arguments is started by \
     {{\"cmdline\":\"PROGRAM ARGUMENTS\"}})"
)]
pub struct RumprunError(#[source] serde_json::Error);

impl Rumprun {
    /// A command line that starts a program with arguments: words with spaces between them.
    #[must_use]
    pub fn new(cmdline: impl Into<String>) -> Self {
        Self { members: format!("\"cmdline\":{}", Json(&cmdline.into())), ..Self::default() }
    }

    /// A command line that somebody else made. Its members stay as they are, repeated ones too. [`Self::net`] adds nothing
    /// for an interface that it has a `net` for, and nothing at all where it has one that does not say for which (`if`).
    ///
    /// ```
    /// use nabla_net::{NetConfig, Rumprun};
    ///
    /// let config = NetConfig { addresses: vec!["10.0.0.2/24".parse()?], ..NetConfig::default() };
    /// let line = Rumprun::parse(r#"{"cmdline":"prog","env":"A=1","env":"B=2"}"#)?.net(&config).to_string();
    /// assert!(line.starts_with(r#"{"cmdline":"prog","env":"A=1","env":"B=2","net":{"if":"ukvmif0","#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RumprunError`] when it is not one object of JSON (RFC 8259).
    pub fn parse(line: &str) -> Result<Self, RumprunError> {
        let configured = serde_json::from_str(line).map_err(RumprunError)?;
        let inner = line.trim().strip_prefix('{').and_then(|line| line.strip_suffix('}')).unwrap_or_default();
        Ok(Self { members: inner.trim().to_owned(), configured, ..Self::default() })
    }

    /// Adds an environment variable, as `NAME=value`.
    #[must_use]
    pub fn env(mut self, variable: impl Into<String>) -> Self {
        self.env.push(variable.into());
        self
    }

    /// Adds the next network interface, with the first address of each family. One without addresses is left to the
    /// guest.
    ///
    /// Rumprun takes a gateway only in the network of the address. For one that is outside, as on-link gateways of /32
    /// addresses are, the prefix is made shorter until it has both; what lies in between, the guest then looks for on
    /// the link.
    #[must_use]
    pub fn net(mut self, config: &NetConfig) -> Self {
        let interface = format!("ukvmif{}", self.interfaces);
        self.interfaces += 1;
        if self.configured.has(&interface) {
            return self;
        }
        let families = [
            ("inet", config.ipv4(), config.gateway_v4().map(IpAddr::V4)),
            ("inet6", config.ipv6(), config.gateway_v6().map(IpAddr::V6)),
        ];
        for (family, address, gateway) in families {
            let Some(address) = address else { continue };
            let prefix = match gateway {
                // The link-local gateways of IPv6 are on every link.
                Some(IpAddr::V6(gateway)) if gateway.is_unicast_link_local() => address.prefix(),
                Some(gateway) if !address.contains(gateway) => {
                    address.common_prefix(gateway).min(address.prefix())
                }
                _ => address.prefix(),
            };
            let mut text = format!(
                r#"{{"if":"{interface}","cloner":"True","type":"{family}","method":"static","addr":"{}","mask":"{prefix}""#,
                address.address(),
            );
            if let Some(gateway) = gateway {
                let _ = write!(text, r#","gw":"{gateway}""#);
            }
            text.push('}');
            self.net.push(text);
        }
        self
    }

    /// Mounts the disk's ISO 9660 file system as the root.
    #[must_use]
    pub fn root_disk(mut self) -> Self {
        self.root_disk = true;
        self
    }

    /// Sets the current directory.
    #[must_use]
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.cwd = Some(directory.into());
        self
    }
}

impl fmt::Display for Rumprun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blk = r#""blk":{"source":"etfs","path":"/dev/ld0a","fstype":"blk","mountpoint":"/"}"#;
        let mut members: Vec<_> =
            self.env.iter().map(|variable| format!("\"env\":{}", Json(variable))).collect();
        members.extend([&self.members].into_iter().filter(|members| !members.is_empty()).cloned());
        members.extend(self.net.iter().map(|net| format!("\"net\":{net}")));
        members.extend(self.root_disk.then(|| blk.to_owned()));
        members.extend(self.cwd.iter().map(|directory| format!("\"cwd\":{}", Json(directory))));
        write!(f, "{{{}}}", members.join(","))
    }
}

/// Which interfaces an object configures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Configured {
    names: Vec<String>,
    /// Perhaps all: it has a `net` of a form that is not known here.
    all: bool,
}

impl Configured {
    fn has(&self, interface: &str) -> bool {
        self.all || self.names.iter().any(|name| name == interface)
    }
}

impl<'de> Deserialize<'de> for Configured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

/// A visitor, since the maps of serde and serde_json keep only one of several members of the same name.
impl<'de> Visitor<'de> for Configured {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            if name == "net" {
                let net: Value = members.next_value()?;
                match net.get("if").and_then(Value::as_str) {
                    Some(interface) => self.names.push(interface.to_owned()),
                    None => self.all = true,
                }
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(self)
    }
}

/// A string of JSON (RFC 8259, section 7).
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(addresses: &[&str], gateways: &[&str]) -> NetConfig {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let mut config = NetConfig { addresses, ..NetConfig::default() };
        for gateway in gateways {
            config.add_gateway(gateway.parse().unwrap());
        }
        config
    }

    #[test]
    fn rumprun_reaches_a_gateway_outside_of_its_network() {
        let line = Rumprun::new("x").net(&config(&["10.1.1.5/32"], &["10.1.1.1"])).to_string();
        assert!(line.contains(r#""mask":"29","gw":"10.1.1.1""#), "{line}");
        let line = Rumprun::new("x").net(&config(&["fd00::5/128"], &["fe80::1"])).to_string();
        assert!(line.contains(r#""type":"inet6","method":"static","addr":"fd00::5","mask":"128""#), "{line}");
        let line = Rumprun::new("x").net(&config(&[], &[])).net(&config(&["10.0.0.2/8"], &[])).to_string();
        assert_eq!(line.matches("ukvmif").count(), 1);
        assert!(line.contains("ukvmif1") && !line.contains("gw"), "{line}");
    }

    #[test]
    fn json_strings_are_escaped() {
        let line = Rumprun::new("a \"b\" \\ \n\u{1}é").env("A=\"").cwd("/\t").to_string();
        assert_eq!(
            line,
            "{\"env\":\"A=\\\"\",\"cmdline\":\"a \\\"b\\\" \\\\ \\u000a\\u0001é\",\"cwd\":\"/\\u0009\"}"
        );
    }

    /// The command line of somebody else, with these interfaces.
    fn merged(given: &str, interfaces: &[NetConfig]) -> String {
        interfaces.iter().fold(Rumprun::parse(given).unwrap(), Rumprun::net).to_string()
    }

    #[test]
    fn members_that_were_given_stay_as_they_are() {
        let interface = [config(&["10.0.0.2/24"], &[])];
        let net = r#""net":{"if":"ukvmif0","cloner":"True","type":"inet","method":"static","addr":"10.0.0.2","mask":"24"}"#;
        for members in [
            r#""cmdline":"prog""#,
            r#""env":"A=1", "env":"A=1","cmdline" : "prog \"x\" \u00e9","env":"B=}{\"net\"","blk":{"a":1},"blk":{"a":1}"#,
            r#""x":{"net":{"if":"ukvmif0"}},"y":[{"net":1}],"rc":[1e999,true,null,{}]"#,
        ] {
            assert_eq!(merged(&format!(" {{ {members} }}\n"), &interface), format!("{{{members},{net}}}"));
            assert_eq!(merged(&format!("{{{members}}}"), &[]), format!("{{{members}}}"));
        }
        assert_eq!(merged("{ }", &interface), format!("{{{net}}}"));
        assert_eq!(merged("{}", &[]), "{}");
    }

    #[test]
    fn interfaces_that_were_given_are_not_told_again() {
        let both = [config(&["10.0.0.2/24", "fd00::2/64"], &["10.0.0.1"]), config(&["10.1.0.2/24"], &[])];
        let told = |given: &str| {
            let line = merged(given, &both);
            assert!(line.starts_with(given.trim_end_matches('}')), "{line}");
            let count = |interface: &str| line[given.len() - 1..].matches(interface).count();
            (count("ukvmif0"), count("ukvmif1"))
        };
        assert_eq!(told(r#"{"cmdline":"x"}"#), (2, 1));
        assert_eq!(told(r#"{"net":{"if":"ukvmif0","method":"dhcp"},"cmdline":"x"}"#), (0, 1));
        assert_eq!(told(r#"{"net":{"if":"ukvmif1"},"net":{"if":"lo0"}}"#), (2, 0));
        assert_eq!(told(r#"{"net":{"if":"ukvmif1"},"n\u0065t":{"\u0069f":"ukvmif0"}}"#), (0, 0));
        // Of another form: who gave it configures everything.
        for net in [r#"{"interfaces":{"ukvmif0":{}}}"#, r#"{"if":1}"#, "{}", "[]", "\"ukvmif9\"", "null"] {
            assert_eq!(told(&format!(r#"{{"net":{net}}}"#)), (0, 0), "{net}");
        }
    }

    #[test]
    fn what_is_no_object_of_json_returns_error() {
        let deep = format!("{{\"net\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for line in [
            "",
            "{",
            "}",
            "[]",
            "1",
            "{}}",
            "{} {}",
            "{\"a\"}",
            "{\"a\":1,}",
            "{\"a\":'x'}",
            "{a:1}",
            "{\"a\":\"\n\"}",
            "{\"net\":{\"if\":}}",
            &deep,
        ] {
            let error = Rumprun::parse(line).unwrap_err();
            assert!(error.to_string().contains("not one object of JSON"), "{line}");
            assert!(std::error::Error::source(&error).is_some());
        }
    }
}
