//! Interfaces: bridges, pairs of virtual Ethernet, and what can be changed about any of them.

use crate::{
    change::Change,
    error::{Error, ErrorKind},
    network::Network,
    owned::Owned,
    owner::Owner,
};
use nabla_core::MacAddress;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
        InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    },
};
use rustix::rand::{GetRandomFlags, getrandom};
use std::{
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU32, Ordering},
};

/// The alias of interfaces that nobody owns any more.
pub(crate) const KEPT: &str = "nabla:kept";
/// The alias of taps that go away with their last descriptor, whoever has it.
pub(crate) const TRANSIENT: &str = "nabla:transient";

/// What is known about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Its number, which no other one gets.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is, in the kernel's words: `bridge`, `veth`, `tun`; nothing for hardware and loopback.
    pub kind: Option<String>,
    /// Its MAC address, if it has one of 6 bytes.
    pub mac: Option<MacAddress>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it was set up.
    pub is_up: bool,
    /// Whether it can carry frames: it is up, and something is at its other end.
    pub is_running: bool,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Index of the bridge that it is a port of.
    pub controller: Option<u32>,
    /// Free text that somebody gave it.
    pub alias: Option<String>,
}

impl Link {
    fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: None,
            mac: None,
            mtu: 0,
            is_up: flags.contains(LinkFlags::Up),
            is_running: flags.contains(LinkFlags::Running),
            is_loopback: flags.contains(LinkFlags::Loopback),
            controller: None,
            alias: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().ok().map(MacAddress);
                }
                LinkAttribute::Controller(index) => {
                    link.controller = Some(*index).filter(|&index| index != 0);
                }
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }

    /// Whether it was made with this library to stay: see [`Owned::keep`].
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let bridge = network.create_bridge("br0")?;
    /// assert!(!bridge.is_kept());
    /// bridge.keep();
    /// assert!(network.link("br0")?.is_kept());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.alias.as_deref() == Some(KEPT)
    }

    /// Whether it was made with this library, whatever is to become of it.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let _bridge = network.create_bridge("br0")?;
    /// assert!(network.link("br0")?.is_ours());
    /// assert!(!network.link("lo")?.is_ours());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.owner().is_some() || matches!(self.alias.as_deref(), Some(KEPT | TRANSIENT))
    }

    /// Who made it with this library, if its alias says so. Taps that go away with their last descriptor need no owner.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let _bridge = network.create_bridge("br0")?;
    /// assert_eq!(network.link("br0")?.owner(), Some(nabla_net::Owner::this_process()?));
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        Owner::from_alias(self.alias.as_deref()?)
    }
}

/// Both ends of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPair {
    /// The end with the first name.
    pub a: Link,
    /// The end with the second name.
    pub b: Link,
}

impl Network {
    /// Every interface.
    ///
    /// ```
    /// let links = nabla_net::Network::current()?.links()?;
    /// assert!(links.iter().any(|link| link.is_loopback));
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn links(&self) -> Result<Vec<Link>, Error> {
        let answers = self
            .routing()
            .list(&RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .map_err(|error| Error::system("list", "the interfaces", error))?;
        Ok(answers.iter().filter_map(from_answer).collect())
    }

    /// The interface called `name`.
    ///
    /// ```
    /// let network = nabla_net::Network::current()?;
    /// assert_eq!(network.link("lo")?.index, 1);
    /// assert!(network.link("none").unwrap_err().is_not_found());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn link(&self, name: &str) -> Result<Link, Error> {
        check_name("find", name)?;
        self.find(LinkAttribute::IfName(name.to_owned()), 0, name)
    }

    /// The interface with this index.
    ///
    /// ```
    /// assert_eq!(nabla_net::Network::current()?.link_by_index(1)?.name, "lo");
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn link_by_index(&self, index: u32) -> Result<Link, Error> {
        // The kernel asks for an index or a name; an attribute that it ignores takes the place of the latter.
        self.find(LinkAttribute::Group(0), index, &format!("with index {index}"))
    }

    /// The bridge called `name`.
    ///
    /// ```
    /// let network = nabla_net::Network::current()?;
    /// assert!(network.bridge("lo").unwrap_err().to_string().contains("it is no bridge"));
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, or it is no bridge.
    pub fn bridge(&self, name: &str) -> Result<Link, Error> {
        let link = self.link(name)?;
        if link.kind.as_deref() == Some("bridge") {
            Ok(link)
        } else {
            Err(Error::new("use", object(name), ErrorKind::Kind { expected: "bridge" }))
        }
    }

    fn find(&self, attribute: LinkAttribute, index: u32, name: &str) -> Result<Link, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if index == 0 {
            message.attributes.push(attribute);
        }
        let fail = |error| Error::system("find", object(name), error);
        let answers = self.routing().get(RouteNetlinkMessage::GetLink(message)).map_err(fail)?;
        let link = answers.iter().find_map(from_answer);
        link.ok_or_else(|| Error::new("find", object(name), ErrorKind::NotFound))
    }

    /// Creates a bridge. It is down.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let bridge = network.create_bridge("br0")?;
    /// assert_eq!(network.link("br0")?.index, bridge.index);
    /// drop(bridge);
    /// assert!(network.link("br0").is_err());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is an interface of that name, or the kernel refuses.
    pub fn create_bridge(&self, name: &str) -> Result<Owned<Link>, Error> {
        check_name("create", name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.create(message, name, "bridge", "CONFIG_BRIDGE (modprobe bridge)")
    }

    /// Creates a pair of virtual Ethernet interfaces, which is a cable with two ends. Both are down.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// use nabla_net::Network;
    ///
    /// let (host, container) = (Network::isolated()?, Network::isolated()?);
    /// let pair = host.create_veth("veth0", "eth0")?;
    /// host.move_link("eth0", &container)?;
    /// container.set_up("eth0")?;
    /// host.set_up("veth0")?;
    /// assert!(host.link("veth0")?.is_running);
    /// drop(pair);
    /// assert!(container.link("eth0").is_err(), "both ends go together");
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is an interface of one of the names, or the kernel refuses.
    pub fn create_veth(&self, a: &str, b: &str) -> Result<Owned<VethPair>, Error> {
        check_name("create", a)?;
        check_name("create", b)?;
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(b.to_owned()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(a.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let first = self.create(message, a, "veth", "CONFIG_VETH (modprobe veth)")?;
        let second = self.link(b)?;
        Ok(first.map(|a| VethPair { a: a.clone(), b: second }))
    }

    fn create(
        &self,
        message: LinkMessage,
        name: &str,
        kind: &str,
        needs: &'static str,
    ) -> Result<Owned<Link>, Error> {
        let what = format!("{kind} '{name}'");
        let owner = Owner::this_process()?;
        self.routing().change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).map_err(
            |error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::OPNOTSUPP) => {
                    Error::new("create", what.clone(), ErrorKind::Unsupported { needs })
                }
                _ => Error::system("create", what.clone(), error),
            },
        )?;
        let link = self.link(name)?;
        let created = deleted_when_dropped(self, link);
        set_alias(created.index, name, &owner.to_string()).apply(self)?;
        self.switch_autoconfiguration_off(&created)?;
        Ok(created)
    }

    /// Brings an interface up.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// network.set_up("lo")?;
    /// assert!(network.link("lo")?.is_up);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, or the kernel refuses.
    pub fn set_up(&self, name: &str) -> Result<(), Error> {
        self.set_state("bring up", name, LinkFlags::Up)
    }

    /// Takes an interface down.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// network.set_up("lo")?;
    /// network.set_down("lo")?;
    /// assert!(!network.link("lo")?.is_up);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, or the kernel refuses.
    pub fn set_down(&self, name: &str) -> Result<(), Error> {
        self.set_state("take down", name, LinkFlags::empty())
    }

    fn set_state(&self, operation: &'static str, name: &str, flags: LinkFlags) -> Result<(), Error> {
        let link = self.link(name)?;
        let mut message = LinkMessage::default();
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        change(operation, link.index, name, message).apply(self)
    }

    /// Sets the MTU of an interface, in bytes.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// network.set_mtu("lo", 1400)?;
    /// assert_eq!(network.link("lo")?.mtu, 1400);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, or it does not take this MTU.
    pub fn set_mtu(&self, name: &str, bytes: u32) -> Result<(), Error> {
        let link = self.link(name)?;
        change_attribute("set the MTU of", link.index, name, LinkAttribute::Mtu(bytes)).apply(self)
    }

    /// Sets the MAC address of an interface until this is undone.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// use nabla_core::MacAddress;
    ///
    /// let network = nabla_net::Network::isolated()?;
    /// let bridge = network.create_bridge("br0")?;
    /// let mac = MacAddress([2, 0, 0, 0, 0, 1]);
    /// let changed = network.set_mac("br0", mac)?;
    /// assert_eq!(network.link("br0")?.mac, Some(mac));
    /// changed.release()?;
    /// assert_eq!(network.link("br0")?.mac, bridge.mac);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, or the kernel refuses.
    pub fn set_mac(&self, name: &str, mac: MacAddress) -> Result<Owned<MacAddress>, Error> {
        let link = self.link(name)?;
        set_mac(link.index, name, mac).apply(self)?;
        let before = link.mac.map(|mac| set_mac(link.index, name, mac));
        Ok(before.map_or(Owned::nothing(mac), |before| Owned::new(mac, self, before)))
    }

    /// Makes an interface a port of a bridge until this is undone.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let bridge = network.create_bridge("br0")?;
    /// let _pair = network.create_veth("a", "b")?;
    /// let port = network.attach("a", "br0")?;
    /// assert_eq!(network.link("a")?.controller, Some(bridge.index));
    /// port.release()?;
    /// assert_eq!(network.link("a")?.controller, None);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When one of them does not exist, the second is no bridge, or the kernel refuses.
    pub fn attach(&self, port: &str, bridge: &str) -> Result<Owned<Link>, Error> {
        let controller = self.bridge(bridge)?;
        let link = self.link(port)?;
        set_controller(link.index, port, controller.index).apply(self)?;
        let before = set_controller(link.index, port, link.controller.unwrap_or(0));
        Ok(Owned::new(Link { controller: Some(controller.index), ..link }, self, before))
    }

    /// Moves an interface to another namespace, where it is down.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let container = nabla_net::Network::isolated()?;
    /// let _pair = network.create_veth("outside", "eth0")?;
    /// network.move_link("eth0", &container)?;
    /// assert!(container.link("eth0").is_ok() && network.link("eth0").is_err());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, one of its name is there already, or the kernel refuses.
    pub fn move_link(&self, name: &str, to: &Self) -> Result<(), Error> {
        let link = self.link(name)?;
        let namespace = LinkAttribute::NetNsFd(to.namespace().as_fd().as_raw_fd());
        change_attribute("move", link.index, name, namespace).apply(self)
    }

    /// Deletes an interface, whoever made it.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// network.create_bridge("br0")?.keep();
    /// network.delete_link("br0")?;
    /// assert!(network.delete_link("br0").unwrap_err().is_not_found());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such interface, or it is one that cannot be deleted.
    pub fn delete_link(&self, name: &str) -> Result<(), Error> {
        let link = self.link(name)?;
        delete(link.index, name).apply(self)
    }

    /// A name for an interface that is made for a short time: `nb-` and random digits. Process ids would be the same in the
    /// process namespaces of several containers with one network.
    ///
    /// ```
    /// let (first, second) = (nabla_net::Network::fresh_name(), nabla_net::Network::fresh_name());
    /// assert!(first != second && first.len() <= 15);
    /// ```
    #[must_use]
    pub fn fresh_name() -> String {
        let mut bits = [0; 6];
        // Without a source of random numbers, names differ within a process.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if getrandom(&mut bits, GetRandomFlags::empty()) != Ok(bits.len()) {
            bits[2..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        }
        let [a, b, c, d, e, f] = bits;
        format!("nb-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
    }

    /// Keeps the kernel from giving an interface addresses by itself, and from sending what belongs to that.
    pub(crate) fn switch_autoconfiguration_off(&self, link: &Link) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        match change("set up", link.index, &link.name, message).apply(self) {
            // A kernel without IPv6, or with IPv6 switched off for this interface.
            Err(Error { kind: ErrorKind::System(_), .. }) => Ok(()),
            result => result,
        }
    }
}

fn from_answer(answer: &RouteNetlinkMessage) -> Option<Link> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
        _ => None,
    }
}

/// An interface in a message.
pub(crate) fn object(name: &str) -> String {
    if name.starts_with("with index") {
        format!("the interface {name}")
    } else {
        format!("interface '{name}'")
    }
}

/// Fails for what can be no name. Source: `dev_valid_name` of the kernel.
pub(crate) fn check_name(operation: &'static str, name: &str) -> Result<(), Error> {
    let valid = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.bytes().any(|b| b == b'/' || b == b':' || b == b'%' || b.is_ascii_whitespace() || b == 0);
    if valid { Ok(()) } else { Err(Error::new(operation, object(name), ErrorKind::Name)) }
}

fn change(operation: &'static str, index: u32, name: &str, mut message: LinkMessage) -> Change {
    message.header.index = index;
    // RTM_SETLINK ignores the settings of a bridge's port.
    Change::new(operation, object(name), RouteNetlinkMessage::NewLink(message))
}

fn change_attribute(operation: &'static str, index: u32, name: &str, attribute: LinkAttribute) -> Change {
    let mut message = LinkMessage::default();
    message.attributes.push(attribute);
    change(operation, index, name, message)
}

pub(crate) fn delete(index: u32, name: &str) -> Change {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Change::new("delete", object(name), RouteNetlinkMessage::DelLink(message))
}

/// An interface that was made here: kept, it loses the mark of its owner.
pub(crate) fn deleted_when_dropped(network: &Network, link: Link) -> Owned<Link> {
    let (delete, keep) = (delete(link.index, &link.name), set_alias(link.index, &link.name, KEPT));
    Owned::new(link, network, delete).when_kept(keep)
}

pub(crate) fn set_controller(index: u32, name: &str, controller: u32) -> Change {
    change_attribute("set the bridge of", index, name, LinkAttribute::Controller(controller))
}

pub(crate) fn set_mac(index: u32, name: &str, mac: MacAddress) -> Change {
    change_attribute("set the MAC address of", index, name, LinkAttribute::Address(mac.0.to_vec()))
}

pub(crate) fn set_alias(index: u32, name: &str, alias: &str) -> Change {
    change_attribute("set the alias of", index, name, LinkAttribute::IfAlias(alias.to_owned()))
}

pub(crate) fn set_no_arp(index: u32, name: &str) -> Change {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Noarp;
    message.header.change_mask = LinkFlags::Noarp;
    change("switch ARP off for", index, name, message)
}

/// Has a bridge's port not learn behind which port a MAC address is.
pub(crate) fn set_no_learning(index: u32, name: &str) -> Change {
    let mut message = LinkMessage::default();
    let data = InfoPortData::BridgePort(vec![InfoBridgePort::Learning(false)]);
    let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)];
    message.attributes.push(LinkAttribute::LinkInfo(info));
    change("switch learning off for", index, name, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for name in ["a", "tap0", "abcdefghijklmno", "br-0.1@x", "é"] {
            assert!(check_name("find", name).is_ok(), "{name}");
        }
        for name in ["", "abcdefghijklmnop", "a/b", "a b", "a:1", "tap%d", ".", "..", "a\0"] {
            let error = check_name("find", name).unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Name), "{name}");
        }
    }
}
