//! How guests are told about their network: three conventions.

use super::{
    cidr::Cidr,
    net_config::NetConfig,
    rumprun::{Rumprun, RumprunError},
};
use nabla_core::{Image, ReadAt, SourceError, abi::net1};
use std::{fmt, str::FromStr};
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
    /// Arguments of guests that use `nabla_guest::tcpip::Settings`: those of MirageOS, where addresses may be repeated,
    /// and `--dns=`, `--hostname=`. See [`net1`].
    Nabla,
}

/// What is looked for in images without a note.
const SYMBOLS: [&str; 6] = [
    // Every rumprun guest: the start of a rump kernel, called by the start of rumprun.
    "rumprun_boot",
    "rump_init",
    // Every MirageOS guest: the start of the OCaml runtime, and the function through which MirageOS waits for events of
    // Solo5, which has had three names.
    "caml_startup",
    "caml_poll",
    "mirage_solo5_yield",
    "mirage_solo5_yield_2",
];

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

    /// The convention that an image shows: by its note [NET1](net1), or by functions of a rump kernel or of MirageOS in
    /// its symbol table. `None` when it shows none, for instance because its symbols were stripped, and when its note
    /// has a version that is not known here. `source` is what the image was parsed from.
    ///
    /// The cost is that of [`Image::find_symbols`], and none where there is a note.
    ///
    /// ```no_run
    /// use nabla_core::Image;
    /// use nabla_net::ConfigStyle;
    ///
    /// let file = std::fs::read("app.nabla")?;
    /// let image = Image::parse(&file[..])?;
    /// match ConfigStyle::of_image(&image, &file[..])? {
    ///     Some(style) => println!("takes arguments of {style}"),
    ///     None => println!("has to be said"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the symbol table cannot be read.
    pub fn of_image<S: ReadAt + ?Sized>(image: &Image, source: &S) -> Result<Option<Self>, SourceError> {
        if let Some(note) = image.net_note() {
            return Ok((note.version == net1::VERSION).then_some(Self::Nabla));
        }
        Ok(match image.find_symbols(source, SYMBOLS)? {
            [true, true, ..] => Some(Self::Rumprun),
            [_, _, true, stubs @ ..] if stubs.contains(&true) => Some(Self::Mirage),
            _ => None,
        })
    }

    /// The whole command line, as arguments: what the guest is told about its interfaces, and the caller's own
    /// arguments after that. Where it is [`ConfigStyle::Rumprun`], the arguments become the object's `cmdline`, with
    /// `program` in front. Arguments that are such an object already get what is missing about interfaces.
    ///
    /// # Errors
    ///
    /// [`RumprunError`] when arguments for [`ConfigStyle::Rumprun`] start with `{` and are no object of JSON.
    pub fn arguments(
        self,
        interfaces: &[NetConfig],
        program: &str,
        args: &[String],
    ) -> Result<Vec<String>, RumprunError> {
        // These have one interface.
        let first = interfaces.iter().find(|config| !config.addresses.is_empty());
        let mut all: Vec<String> = match self {
            Self::None => Vec::new(),
            Self::Rumprun => {
                let words: Vec<_> = [program].into_iter().chain(args.iter().map(String::as_str)).collect();
                // Monitors join arguments like this.
                let given = args.join(" ");
                let line = match given.trim_start().starts_with('{') {
                    true => Rumprun::parse(&given)?,
                    false => Rumprun::new(words.join(" ")),
                };
                return Ok([interfaces.iter().fold(line, Rumprun::net).to_string()].into());
            }
            Self::Mirage => first.map(mirage).unwrap_or_default(),
            Self::Nabla => first.map(nabla).unwrap_or_default(),
        };
        all.extend_from_slice(args);
        Ok(all)
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
    args.extend(
        config.other_routes().filter(|route| !route.is_mixed()).map(|route| format!("--route={route}")),
    );
    args.extend(config.dns.iter().map(|server| format!("--dns={server}")));
    args.extend(config.hostname.iter().map(|name| format!("--hostname={name}")));
    args
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
        let line = |style: ConfigStyle| style.arguments(&[config.clone()], "x", &own).unwrap().join(" ");
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
        assert_eq!(ConfigStyle::Nabla.arguments(&[], "x", &own).unwrap(), own);
    }

    #[test]
    fn interface_without_address_is_skipped_and_counted() {
        let interfaces = [config(&[], &[]), config(&["10.0.0.2/24"], &[])];
        let told = |style: ConfigStyle| style.arguments(&interfaces, "x", &[]).unwrap().join(" ");
        assert_eq!(told(ConfigStyle::Mirage), "--ipv4=10.0.0.2/24");
        assert_eq!(told(ConfigStyle::Nabla), "--ipv4=10.0.0.2/24");
        assert!(told(ConfigStyle::Rumprun).contains(r#""if":"ukvmif1""#));
    }

    #[test]
    fn rumprun_arguments_that_are_json_are_merged() {
        let interfaces = [config(&["10.0.0.2/24"], &[])];
        let told = |style: ConfigStyle, args: &[&str]| {
            let args: Vec<_> = args.iter().map(ToString::to_string).collect();
            style.arguments(&interfaces, "x", &args)
        };
        let [line] = &told(ConfigStyle::Rumprun, &[r#" {"cmdline":"a"#, r#"b"}"#]).unwrap()[..] else {
            panic!()
        };
        assert!(line.starts_with(r#"{"cmdline":"a b","net":{"#), "{line}");
        assert!(told(ConfigStyle::Rumprun, &["a", "{"]).unwrap()[0].starts_with(r#"{"cmdline":"x a {","#));
        assert!(told(ConfigStyle::Rumprun, &["{", "a"]).is_err());
        // To others it is an argument.
        assert_eq!(told(ConfigStyle::Nabla, &["{"]).unwrap(), ["--ipv4=10.0.0.2/24", "{"]);
    }

    #[test]
    fn names_parse() {
        for style in ConfigStyle::ALL {
            assert_eq!(style.name().parse(), Ok(style));
        }
        assert!("Mirage".parse::<ConfigStyle>().is_err());
    }
}
