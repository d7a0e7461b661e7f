//! Giving a guest the interface that a container engine prepared.

use crate::{
    config::{NetConfig, NetRoute},
    error::{Error, ErrorKind},
    gc,
    link::{self, Link, object},
    network::Network,
    owned::Owned,
    owner::Owner,
    procfs,
    tap::CreatedTap,
    tc,
};
use nabla_core::MacAddress;
use nabla_tap::{Tap, TapOptions};

/// How a guest's tap is connected to the interface that it adopts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Connection {
    /// By redirecting what either receives to the other. The interface keeps its addresses, and nothing of the namespace
    /// changes but that the guest gets what comes.
    #[default]
    Redirect,
    /// By a bridge between both. For kernels without redirection; the interface gets another MAC address meanwhile.
    Bridge,
}

/// Which interface a guest is to be given, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptOptions {
    interface: String,
    connection: Connection,
    tap: TapOptions,
}

impl AdoptOptions {
    /// The interface of this name, by [redirection](Connection::Redirect).
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// let adopted = container.adopt(&AdoptOptions::new("eth0"))?;
    /// assert!(container.is_redirected("eth0")?);
    /// # drop(adopted);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn new(interface: impl Into<String>) -> Self {
        Self { interface: interface.into(), connection: Connection::default(), tap: TapOptions::new() }
    }

    /// How it is connected.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Connection, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// let options = AdoptOptions::new("eth0").connection(Connection::Bridge);
    /// let adopted = container.adopt(&options)?;
    /// let bridge = container.link("eth0")?.controller;
    /// assert!(container.bridge(&container.link_by_index(bridge.unwrap_or(0))?.name).is_ok());
    /// # drop(adopted);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn connection(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// The name of the tap.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// let adopted = container.adopt(&AdoptOptions::new("eth0").tap_name("guest0"))?;
    /// assert!(container.link("guest0")?.is_up);
    /// # drop(adopted);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn tap_name(mut self, name: impl Into<String>) -> Self {
        self.tap = self.tap.name(name);
        self
    }
}

/// An interface that a guest has been given. It is given back when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the interface back"]
pub struct Adopted {
    tap: CreatedTap,
    config: NetConfig,
    untold: Vec<String>,
    guard: Owned<Link>,
}

impl Adopted {
    /// What the guest must be configured with: MAC address, MTU, addresses and routes of the interface.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// let adopted = container.adopt(&AdoptOptions::new("eth0"))?;
    /// assert_eq!(adopted.config().mac, container.link("eth0")?.mac);
    /// assert_eq!(adopted.config().mtu, Some(1500));
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn config(&self) -> &NetConfig {
        &self.config
    }

    /// What the namespace's own stack heeds and no guest can be told, in words: rules of policy routing, and routes that
    /// lead nowhere.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// for what in container.adopt(&AdoptOptions::new("eth0"))?.untold() {
    ///     eprintln!("the guest is not told {what}");
    /// }
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn untold(&self) -> &[String] {
        &self.untold
    }

    /// The interface.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// let adopted = container.adopt(&AdoptOptions::new("eth0"))?;
    /// assert_eq!(adopted.link().name, "eth0");
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.guard
    }

    /// The tap for the guest's monitor, what the guest is to be told, and the guard that gives the interface
    /// back when it is dropped.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// let (tap, config, guard) = container.adopt(&AdoptOptions::new("eth0"))?.into_parts();
    /// // The monitor takes the tap, the guest is told the configuration, and the guard stays until the guest has ended.
    /// # drop((tap, config));
    /// guard.release()?;
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    pub fn into_parts(self) -> (Tap, NetConfig, Owned<Link>) {
        (self.tap.into_tap(), self.config, self.guard)
    }

    /// Gives the interface back.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?;
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// container.adopt(&AdoptOptions::new("eth0"))?.release()?;
    /// assert!(!container.is_redirected("eth0")?);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When something cannot be undone.
    pub fn release(self) -> Result<(), Error> {
        self.guard.release()
    }
}

impl Network {
    /// Interfaces that a guest could be given: Ethernet interfaces that are up, without taps and bridges.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// assert_eq!(network.adoptable()?, [], "as in a container without network");
    /// let _pair = network.create_veth("eth0", "peer")?;
    /// network.set_up("eth0")?;
    /// assert_eq!(network.adoptable()?[0].name, "eth0");
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn adoptable(&self) -> Result<Vec<Link>, Error> {
        let is_adoptable = |link: &Link| {
            let kind = link.kind.as_deref();
            link.is_up && !link.is_loopback && link.mac.is_some() && !matches!(kind, Some("tun" | "bridge"))
        };
        Ok(self.links()?.into_iter().filter(is_adoptable).collect())
    }

    /// Gives a guest an interface of this namespace, with its MAC address, its addresses and its routes, as a container
    /// engine has prepared them.
    ///
    /// What guests that were killed have left in the namespace is cleaned up first.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{AdoptOptions, Network};
    ///
    /// let container = Network::isolated()?; // or Network::inside(Namespace::open_path("/run/netns/..")?)
    /// let _pair = container.create_veth("eth0", "peer")?;
    /// container.set_up("eth0")?;
    /// let _address = container.add_address("eth0", "172.17.0.2/16".parse()?)?;
    ///
    /// let adopted = container.adopt(&AdoptOptions::new("eth0"))?;
    /// assert_eq!(adopted.config().ipv4(), Some("172.17.0.2/16".parse()?));
    /// let (_tap, _config, guard) = adopted.into_parts();
    /// // .. the guest runs ..
    /// guard.release()?;
    /// assert!(!container.is_redirected("eth0")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, it is down or no Ethernet, another guest has it, or something cannot be made.
    pub fn adopt(&self, options: &AdoptOptions) -> Result<Adopted, Error> {
        let name = &options.interface;
        self.collect_garbage()?;
        let link = self.link(name).map_err(|error| self.name_others(error))?;
        let fail = |kind| Error::new("adopt", object(name), kind);
        let Some(mac) = link.mac.filter(|_| !link.is_loopback) else {
            return Err(fail(ErrorKind::Kind { expected: "Ethernet interface" }));
        };
        if !link.is_up {
            return Err(fail(ErrorKind::Other(
                "it is down; whoever prepared it must bring it up".to_owned(),
            )));
        }
        if link.controller.is_some() || tc::redirect_of(self, &link)?.is_some() {
            return Err(fail(ErrorKind::Busy));
        }
        let config = self.config_of(&link, mac)?;
        let untold = self.other_routing()?;
        let tap = self.create_tap(&options.tap.clone().mtu(link.mtu))?;
        let guard = match options.connection {
            Connection::Redirect => self.connect_by_redirection(&link, tap.link())?,
            Connection::Bridge => self.connect_by_bridge(&link, mac, tap.link())?,
        };
        Ok(Adopted { tap, config, untold, guard })
    }

    /// Says which interfaces there are, where one was not found.
    fn name_others(&self, error: Error) -> Error {
        if !error.is_not_found() {
            return error;
        }
        let names: Vec<_> = self.adoptable().unwrap_or_default().into_iter().map(|link| link.name).collect();
        let text = if names.is_empty() {
            "it does not exist, and the namespace has no other one that a guest could be given".to_owned()
        } else {
            format!("it does not exist; there is {}", names.join(", "))
        };
        Error { operation: "adopt", kind: ErrorKind::Other(text), ..error }
    }

    fn config_of(&self, link: &Link, mac: MacAddress) -> Result<NetConfig, Error> {
        let mut config =
            NetConfig { mac: Some(mac), mtu: u16::try_from(link.mtu).ok(), ..NetConfig::default() };
        let addresses = self.addresses()?;
        // The guest makes link-local addresses itself, out of the same MAC address.
        let addresses =
            addresses.iter().filter(|address| address.link == link.index && !address.is_link_local);
        config.addresses.extend(addresses.map(|address| address.cidr));
        let mut routes = self.routes()?;
        routes.retain(|route| route.link == link.index && !route.by_kernel);
        // The first default route is the one that guests with one gateway get.
        routes.sort_by_key(|route| route.metric);
        config.routes.extend(
            routes.iter().map(|route| NetRoute { destination: route.destination, gateway: route.gateway }),
        );
        Ok(config)
    }

    fn connect_by_redirection(&self, link: &Link, tap: &Link) -> Result<Owned<Link>, Error> {
        let to_link = self.redirect(&tap.name, &link.name)?;
        let to_tap = self.redirect(&link.name, &tap.name)?;
        self.set_up(&tap.name)?;
        // The guest may still have it open, and then it would stay.
        let delete_tap = link::deleted_when_dropped(self, tap.clone());
        Ok(to_tap.with(to_link).with(delete_tap))
    }

    fn connect_by_bridge(&self, link: &Link, mac: MacAddress, tap: &Link) -> Result<Owned<Link>, Error> {
        let owner = Owner::this_process()?;
        let bridge = self.create_bridge(&Self::fresh_name())?;
        // It has no addresses, but the namespace's own would be answered for on it.
        link::set_no_arp(bridge.index, &bridge.name).apply(self)?;
        self.set_mtu(&bridge.name, link.mtu)?;
        // The guest has the interface's MAC address, so the interface must have another one. First what tells how it was.
        let set_alias = |alias: &str| link::set_alias(link.index, &link.name, alias);
        let before = link.alias.as_deref().unwrap_or_default();
        let marked = Owned::new(link.clone(), self, set_alias(before));
        set_alias(&gc::changed_alias(owner, mac, before)).apply(self)?;
        let other = bridge.mac.unwrap_or(MacAddress::local(mac.0));
        // CNI's bridge plugin has the kernel announce changes. The guest's addresses stay with the MAC address that they had.
        let changed = {
            let _silence = procfs::Silence::of(self.namespace(), &link.name)
                .map_err(|error| Error::system("silence", object(&link.name), error))?;
            self.set_mac(&link.name, other)?
        };
        let port = self.attach(&link.name, &bridge.name)?;
        // An engine's bridge in hairpin mode (Podman's, with CNI) sends the guest's broadcasts back. Learning from them would
        // place the guest behind this port, and what comes for it would be dropped.
        link::set_no_learning(link.index, &link.name).apply(self)?;
        let tap_port = self.attach(&tap.name, &bridge.name)?;
        self.set_up(&bridge.name)?;
        self.set_up(&tap.name)?;
        // The guest may still have it open, and then it would stay.
        let delete_tap = link::deleted_when_dropped(self, tap.clone());
        Ok(marked.with(changed).with(bridge).with(port).with(tap_port).with(delete_tap))
    }
}
