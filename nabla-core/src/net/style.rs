//! How guests are told about their network: three conventions.

use super::{Cidr, NetConfig};
use crate::ReadAt;
use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::{
    fmt::{self, Write},
    net::IpAddr,
    str::FromStr,
};
use thiserror::Error;

/// The convention by which a guest learns its addresses from its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigStyle {
    /// The guest is told nothing.
    None,
    /// One JSON object is the whole command line: see [`Rumprun`].
    Rumprun,
    /// Arguments of MirageOS guests: `--ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1`.
    Mirage,
    /// Arguments of guests that use `nabla_guest::net`: those of MirageOS, where each may be repeated, and
    /// `--dns=`, `--hostname=`.
    Nabla,
}

/// What is in the code of guests that read their arguments with `nabla_guest::net`.
const NABLA_MARK: &[u8] = b"nabla-guest: network arguments";
/// What is in every rumprun guest: the name of its first network interface's driver or of itself.
const RUMPRUN_MARKS: [&[u8]; 2] = [b"rumprun", b"ukvmif"];
/// The name of an argument, as MirageOS guests have it for their help.
const MIRAGE_MARK: &[u8] = b"ipv4-gateway";

/// A name that is none of a [`ConfigStyle`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no convention of network arguments; there are none, rumprun, mirage and nabla")]
pub struct ParseConfigStyleError(String);

impl ConfigStyle {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Rumprun, Self::Mirage, Self::Nabla];

    /// Its name on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rumprun => "rumprun",
            Self::Mirage => "mirage",
            Self::Nabla => "nabla",
        }
    }

    /// Looks for tell-tales in a guest's image: this is a guess. [`ConfigStyle::None`] when there
    /// is none, and when the image cannot be read.
    ///
    /// ```
    /// use nabla_core::net::ConfigStyle;
    ///
    /// let image = b"\x7fELF ... --ipv4-gateway ...";
    /// assert_eq!(ConfigStyle::of_image(&image[..]), ConfigStyle::Mirage);
    /// ```
    #[must_use]
    pub fn of_image(image: impl ReadAt) -> Self {
        const PART: usize = 64 << 10;
        /// More than the longest mark.
        const OVERLAP: usize = 64;
        let mut buffer = vec![0; PART];
        let (size, mut offset, mut found) = (image.size(), 0_u64, Self::None);
        while offset < size {
            let length = usize::try_from(size - offset).unwrap_or(PART).min(PART);
            let Some(part) = buffer.get_mut(..length) else { return found };
            if image.read_at(offset, part).is_err() {
                return found;
            }
            let has = |mark: &[u8]| contains(part, mark);
            if has(NABLA_MARK) {
                return Self::Nabla;
            } else if RUMPRUN_MARKS.into_iter().any(has) {
                return Self::Rumprun;
            } else if has(MIRAGE_MARK) {
                // Guests on the SDK have it too, and their own mark may come later.
                found = Self::Mirage;
            }
            offset += if length == PART { (PART - OVERLAP) as u64 } else { length as u64 };
        }
        found
    }

    /// The whole command line, as arguments: what the guest is told about its interfaces, and the caller's own
    /// arguments behind that. Where it is [`ConfigStyle::Rumprun`], the arguments become the object's `cmdline`, with
    /// `program` in front.
    #[must_use]
    pub fn arguments(self, interfaces: &[NetConfig], program: &str, args: &[String]) -> Vec<String> {
        let mut all: Vec<String> = match self {
            Self::None => Vec::new(),
            Self::Rumprun => {
                let words = [program].into_iter().chain(args.iter().map(String::as_str));
                let mut line = Rumprun::new(words.collect::<Vec<_>>().join(" "));
                for config in interfaces {
                    line = line.net(config);
                }
                return [line.to_string()].into();
            }
            Self::Mirage => interfaces.iter().take(1).flat_map(mirage).collect(),
            Self::Nabla => interfaces.iter().take(1).flat_map(nabla).collect(),
        };
        all.extend_from_slice(args);
        all
    }
}

impl fmt::Display for ConfigStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ConfigStyle {
    type Err = ParseConfigStyleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|style| style.name() == text).ok_or_else(|| ParseConfigStyleError(text.to_owned()))
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((&first, _)) = needle.split_first() else { return true };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(needle) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// One address and one gateway of each family.
fn mirage(config: &NetConfig) -> Vec<String> {
    let mut args = Vec::new();
    args.extend(config.ipv4().map(|address| format!("--ipv4={address}")));
    args.extend(config.gateway_v4().map(|gateway| format!("--ipv4-gateway={gateway}")));
    args.extend(config.ipv6().map(|address| format!("--ipv6={address}")));
    args.extend(config.gateway_v6().map(|gateway| format!("--ipv6-gateway={gateway}")));
    args
}

fn nabla(config: &NetConfig) -> Vec<String> {
    let family = |address: &Cidr| if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let mut args: Vec<String> =
        config.addresses.iter().map(|address| format!("--{}={address}", family(address))).collect();
    args.extend(config.gateway_v4().map(|gateway| format!("--ipv4-gateway={gateway}")));
    args.extend(config.gateway_v6().map(|gateway| format!("--ipv6-gateway={gateway}")));
    args.extend(config.dns.iter().map(|server| format!("--dns={server}")));
    args.extend(config.hostname.iter().map(|name| format!("--hostname={name}")));
    args
}

/// The command line of a rumprun guest: one JSON object, in which members may be repeated.
///
/// ```
/// use nabla_core::net::{NetConfig, Rumprun};
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
    fn each_convention_gets_its_arguments() {
        let mut config = config(&["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64"], &["10.0.0.1", "fe80::1"]);
        config.dns.push([10, 0, 0, 53].into());
        config.hostname = Some("box".to_owned());
        let own = ["--port".to_owned(), "80".to_owned()];
        let line = |style: ConfigStyle| style.arguments(&[config.clone()], "x", &own).join(" ");
        assert_eq!(line(ConfigStyle::None), "--port 80");
        assert_eq!(
            line(ConfigStyle::Mirage),
            "--ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1 --ipv6=fd00::2/64 --ipv6-gateway=fe80::1 --port 80"
        );
        assert_eq!(
            line(ConfigStyle::Nabla),
            "--ipv4=10.0.0.2/24 --ipv4=10.0.0.3/24 --ipv6=fd00::2/64 --ipv4-gateway=10.0.0.1 --ipv6-gateway=fe80::1 --dns=10.0.0.53 --hostname=box --port 80"
        );
        assert!(line(ConfigStyle::Rumprun).starts_with(r#"{"cmdline":"x --port 80","net":{"if":"ukvmif0","#));
        assert_eq!(ConfigStyle::Nabla.arguments(&[], "x", &own), own);
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

    #[test]
    fn marks_are_found_across_parts_of_a_large_image() {
        let mut image = vec![0_u8; 200_000];
        assert_eq!(ConfigStyle::of_image(&image[..]), ConfigStyle::None);
        let at = (64 << 10) - 5;
        image[at..at + MIRAGE_MARK.len()].copy_from_slice(MIRAGE_MARK);
        assert_eq!(ConfigStyle::of_image(&image[..]), ConfigStyle::Mirage);
        image[199_000..199_000 + NABLA_MARK.len()].copy_from_slice(NABLA_MARK);
        assert_eq!(ConfigStyle::of_image(&image[..]), ConfigStyle::Nabla);
        // Cut short: what cannot be read has no marks.
        assert_eq!(ConfigStyle::of_image(&image[..10]), ConfigStyle::None);
    }

    #[test]
    fn names_parse() {
        for style in ConfigStyle::ALL {
            assert_eq!(style.name().parse(), Ok(style));
        }
        assert!("Mirage".parse::<ConfigStyle>().is_err());
    }
}
