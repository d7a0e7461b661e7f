//! The networks of a run: what has to be made for it, what the guest is told, and what is undone at its end.

use super::{
    RunArgs,
    device::TapSource,
    net_spec::{NetSource, NetSpec},
};
use crate::output;
use anyhow::{Context, bail};
use nabla_monitor::{NetDevice, OpenImage};
use nabla_net::{
    AdoptOptions, ConfigStyle, Forwarder, LeaseOptions, Link, Namespace, NetConfig, NetRoute, Network, Owned,
    TapOptions,
};
use std::{ffi::OsString, fs, net::SocketAddr, path::Path};

/// Said when nothing shows how the guest is told its address.
const NOT_TOLD: &str = "the guest is not told its address, since neither a note nor the symbols of its image show how; say it: \
    --net-config nabla for guests that use nabla-guest, or mirage, rumprun or none";

/// Whether something has to be undone when the guest has ended, so that nabla must stay. Taps that are made here go
/// away by themselves.
pub fn needs_parent(args: &RunArgs) -> bool {
    !args.publish.is_empty() || args.net.iter().any(|net| matches!(net.source, NetSource::Adopt { .. }))
}

/// The networks of a run. What was changed for them is undone when this is dropped.
#[derive(Debug, Default)]
pub struct Networks {
    taps: Vec<(Option<String>, NetDevice)>,
    configs: Vec<NetConfig>,
    adopted: Vec<Owned<Link>>,
    forwarders: Vec<Forwarder>,
    notes: Vec<String>,
}

impl Networks {
    /// Makes them. Descriptors that were passed to nabla are taken before anything else is opened.
    pub fn make(args: &RunArgs) -> anyhow::Result<Self> {
        let mut networks = Self::default();
        let (existing, others): (Vec<_>, Vec<_>) =
            args.net.iter().partition(|net| matches!(net.source, NetSource::Tap(_)));
        for net in existing {
            if let NetSource::Tap(source) = &net.source {
                networks.add(net, source.device()?, net.config.clone());
            }
        }
        for net in others {
            networks.make_one(net)?;
        }
        networks.publish(args)?;
        Ok(networks)
    }

    fn make_one(&mut self, net: &NetSpec) -> anyhow::Result<()> {
        match &net.source {
            NetSource::Tap(TapSource::Name(_) | TapSource::Descriptor(_)) => Ok(()),
            NetSource::New { host, guest, device } => {
                let mut options = LeaseOptions::new();
                if let Some(host) = host {
                    options = options.host(*host);
                }
                if let Some(guest) = guest {
                    options = options.guest(*guest);
                }
                if let Some(device) = device {
                    options = options.name(device);
                }
                if let Some(mtu) = net.config.mtu {
                    options = options.mtu(mtu);
                }
                let lease = Network::current()?.lease(&options)?;
                let interface = &lease.tap.link().name;
                self.notes.push(format!(
                    "the guest has {}, the host {} on interface {interface}",
                    lease.guest,
                    lease.host.address()
                ));
                let config = merged(lease.config, net);
                self.add(net, lease.tap.into_tap(), config);
                Ok(())
            }
            NetSource::Bridge { bridge, netns } => {
                let network = network(netns.as_deref())?;
                let mtu = network.bridge(bridge)?.mtu;
                let mtu = net.config.mtu.map_or(mtu, u32::from);
                let tap = network.create_tap(&TapOptions::new().mtu(mtu))?;
                let name = tap.link().name.clone();
                // It leaves the bridge when it goes.
                network.attach(&name, bridge)?.keep();
                network.set_up(&name)?;
                self.notes.push(format!("the guest is at bridge {bridge} with interface {name}"));
                let mut config = net.config.clone();
                config.mtu = config.mtu.or(u16::try_from(mtu).ok());
                self.add(net, tap.into_tap(), config);
                Ok(())
            }
            NetSource::Adopt { interface, netns, connection } => {
                let network = network(netns.as_deref())?;
                let adopted = network.adopt(&AdoptOptions::new(interface).connection(*connection))?;
                let untold = adopted.untold().iter().map(|what| format!("the guest is not told {what}"));
                let untold: Vec<_> = untold.collect();
                let (tap, config, guard) = adopted.into_parts();
                let mut config = merged(config, net);
                if config.dns.is_empty() {
                    read_resolv_conf(&mut config);
                }
                let addresses: Vec<_> = config.addresses.iter().map(ToString::to_string).collect();
                let addresses = if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") };
                self.notes.push(format!("the guest has {interface} and its addresses ({addresses})"));
                self.notes.extend(untold);
                self.add(net, tap, config);
                self.adopted.push(guard);
                Ok(())
            }
        }
    }

    fn add(&mut self, net: &NetSpec, device: impl Into<NetDevice>, config: NetConfig) {
        let mut device = device.into();
        if let Some(mac) = config.mac {
            device = device.mac(mac);
        }
        if let Some(mtu) = config.mtu {
            device = device.mtu(mtu);
        }
        self.taps.push((net.name.clone(), device));
        self.configs.push(config);
    }

    /// Listens for what is to be passed on to the guest.
    fn publish(&mut self, args: &RunArgs) -> anyhow::Result<()> {
        for publish in &args.publish {
            let address = self.configs.iter().flat_map(|config| &config.addresses).next();
            let Some(address) = address else {
                bail!(
                    "-p needs a guest whose address is known: --net new, or --net TAP,address=ADDRESS/PREFIX"
                )
            };
            let target = SocketAddr::new(address.address(), publish.port);
            let forwarder = Forwarder::start(publish.listen, target)?;
            let listen = forwarder.local_address();
            let address = match listen.ip() {
                ip if ip.is_unspecified() => {
                    format!(
                        "every address of this host ({ip}; -p 127.0.0.1:{}:{} is for this host alone)",
                        listen.port(),
                        publish.port
                    )
                }
                ip => ip.to_string(),
            };
            self.notes.push(format!(
                "port {} of the guest is port {} of {address}",
                publish.port,
                listen.port()
            ));
            self.forwarders.push(forwarder);
        }
        Ok(())
    }

    /// The taps, each with the guest's name for the device.
    pub fn take_taps(&mut self) -> Vec<(Option<String>, NetDevice)> {
        std::mem::take(&mut self.taps)
    }

    /// The guest's arguments: the caller's, and what it has to be told.
    pub fn arguments(&mut self, args: &RunArgs, image: &OpenImage) -> anyhow::Result<Vec<OsString>> {
        let is_known = self.configs.iter().any(|config| !config.addresses.is_empty());
        if !is_known && args.net_config.is_none() {
            return Ok(args.args.clone());
        }
        let Some(style) = (match args.net_config {
            Some(style) => Some(style),
            None => ConfigStyle::of_image(image.image(), image.file())
                .with_context(|| format!("cannot read the symbols of image '{}'", args.image.display()))?,
        }) else {
            self.notes.push(NOT_TOLD.to_owned());
            return Ok(args.args.clone());
        };
        tracing::info!(%style, "the guest is told about its network");
        if style == ConfigStyle::None {
            return Ok(args.args.clone());
        }
        let mut is_first = true;
        for config in &self.configs {
            let said = untold(style, config, is_first);
            is_first &= config.addresses.is_empty();
            self.notes.extend(said.map(|what| {
                format!("the guest is not told {what}: --net-config {style} has no form for it")
            }));
        }
        let own = args.args.iter().map(|arg| arg.clone().into_string());
        let own: Vec<_> = own.collect::<Result<_, _>>().map_err(|arg| {
            anyhow::anyhow!(
                "argument '{}' of the guest is not UTF-8, which --net-config {style} needs",
                arg.display()
            )
        })?;
        let program =
            args.image.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(style.arguments(&self.configs, &program, &own)?.into_iter().map(OsString::from).collect())
    }

    /// Says on standard error what was made.
    pub fn announce(&self, image: &Path) {
        for note in &self.notes {
            output::complain(&output::one_line(&format!("nabla: {}: {note}", image.display())));
        }
    }

    /// Undoes what was changed.
    pub fn release(self) -> anyhow::Result<()> {
        drop(self.forwarders);
        for adopted in self.adopted {
            adopted.release()?;
        }
        Ok(())
    }
}

fn network(netns: Option<&Path>) -> anyhow::Result<Network> {
    match netns {
        None => Ok(Network::current()?),
        Some(path) => Ok(Network::inside(Namespace::open_path(path)?)?),
    }
}

/// What was found out, with what was said on the command line in its place.
fn merged(mut config: NetConfig, net: &NetSpec) -> NetConfig {
    config.mac = net.config.mac.or(config.mac);
    config.mtu = net.config.mtu.or(config.mtu);
    config.dns.clone_from(&net.config.dns);
    config.hostname.clone_from(&net.config.hostname);
    config
}

/// Addresses and routes for which a style has no form. Only rumprun guests are told about more interfaces than the first one
/// that has an address.
fn untold(style: ConfigStyle, config: &NetConfig, is_first: bool) -> impl Iterator<Item = String> {
    let is_nabla = style == ConfigStyle::Nabla && is_first;
    let is_told = is_first || style == ConfigStyle::Rumprun;
    let firsts = [config.ipv4(), config.ipv6()].map(|address| address.filter(|_| is_told));
    let addresses =
        config.addresses.iter().filter(move |address| !is_nabla && !firsts.contains(&Some(**address)));
    let routes = config.other_routes().filter(move |route| !is_nabla || route.is_mixed());
    let route = |route: NetRoute| match route.gateway {
        Some(gateway) => format!("the route to {} through {gateway}", route.destination),
        None => format!("the route to {}", route.destination),
    };
    addresses.map(|address| format!("the address {address}")).chain(routes.map(route))
}

/// Takes the host's name servers, apart from those that only the host reaches.
fn read_resolv_conf(config: &mut NetConfig) {
    let text = fs::read_to_string("/etc/resolv.conf").context("no name servers");
    match text {
        Ok(text) => config.read_resolv_conf(&text),
        Err(error) => tracing::info!("{error:#}"),
    }
    config.dns.retain(|server| !server.is_loopback());
}
