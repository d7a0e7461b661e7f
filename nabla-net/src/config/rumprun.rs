//! The command line of rumprun guests.

use super::net_config::NetConfig;
use std::{
    fmt::{self, Write},
    net::IpAddr,
};

/// The command line of a rumprun guest: one JSON object, in which members may be repeated.
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
    cmdline: String,
    net: Vec<String>,
    interfaces: usize,
    root_disk: bool,
    cwd: Option<String>,
}

impl Rumprun {
    /// A command line that starts a program with arguments: words with spaces between them.
    #[must_use]
    pub fn new(cmdline: impl Into<String>) -> Self {
        Self { cmdline: cmdline.into(), ..Self::default() }
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
        f.write_char('{')?;
        for variable in &self.env {
            write!(f, "\"env\":{},", Json(variable))?;
        }
        write!(f, "\"cmdline\":{}", Json(&self.cmdline))?;
        for net in &self.net {
            write!(f, ",\"net\":{net}")?;
        }
        if self.root_disk {
            f.write_str(r#","blk":{"source":"etfs","path":"/dev/ld0a","fstype":"blk","mountpoint":"/"}"#)?;
        }
        if let Some(directory) = &self.cwd {
            write!(f, ",\"cwd\":{}", Json(directory))?;
        }
        f.write_char('}')
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
}
