//! Cleaning up after those who could not do it themselves.

use crate::{
    error::Error,
    link::{self, Link},
    network::Network,
    owner::Owner,
    tc,
};
use nabla_core::MacAddress;

/// Something that was left behind, and has been cleaned up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// An interface was deleted.
    Link {
        /// Its name.
        name: String,
        /// Who made it.
        owner: Owner,
    },
    /// An interface that a guest had adopted was given back.
    Adopted {
        /// Its name.
        name: String,
        /// Who had adopted it.
        owner: Owner,
    },
}

impl Leftover {
    /// Who left it behind.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// for leftover in network.collect_garbage()? {
    ///     println!("process {} has left something", leftover.owner().pid());
    /// }
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn owner(&self) -> Owner {
        match self {
            Self::Link { owner, .. } | Self::Adopted { owner, .. } => *owner,
        }
    }
}

/// What follows the owner in the alias of an interface whose MAC address was changed: the address that it had.
const MAC: &str = ":mac=";
/// What follows that: the alias that it had.
const WAS: &str = ":was=";

/// The alias of an interface whose MAC address is changed for a time.
pub(crate) fn changed_alias(owner: Owner, mac: MacAddress, before: &str) -> String {
    format!("{owner}{MAC}{mac}{WAS}{before}")
}

/// The MAC address and the alias that an interface had before both were changed.
fn before(alias: &str) -> Option<(MacAddress, &str)> {
    let (_, rest) = alias.split_once(MAC)?;
    let (mac, alias) = rest.split_once(WAS)?;
    Some((mac.parse().ok()?, alias))
}

/// Whether an owner is gone. One of a process namespace that cannot be seen (another container's, or one that has ended)
/// is when its guest's tap is, which lives exactly as long as a guest.
fn is_gone(owner: Owner, has_no_tap: impl FnOnce() -> bool) -> bool {
    owner.look().map_or_else(has_no_tap, |is_alive| !is_alive)
}

/// Whether an interface was part of an adoption by a bridge, whose tap is gone: the bridge, or a member of it that got another
/// address.
fn has_lost_its_tap(link: &Link, links: &[Link]) -> bool {
    let bridge = match link.kind.as_deref() {
        Some("bridge") => Some(link.index),
        _ if link.alias.as_deref().and_then(before).is_some() => link.controller,
        _ => return false,
    };
    !links.iter().any(|link| {
        link.kind.as_deref() == Some("tun") && link.controller.is_some() && link.controller == bridge
    })
}

impl Network {
    /// Undoes what was made with this library by processes that are gone without having undone it: deletes their
    /// interfaces, and gives back what they had adopted. Doing it twice does no harm.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let bridge = network.create_bridge("br0")?;
    /// assert_eq!(network.collect_garbage()?, [], "this process is alive");
    /// # drop(bridge);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The first thing that could not be cleaned up. The rest has been, as far as possible.
    pub fn collect_garbage(&self) -> Result<Vec<Leftover>, Error> {
        let (mut found, mut result) = (Vec::new(), Ok(()));
        let links = self.links()?;
        for link in &links {
            match self.collect_link(link, &links) {
                Ok(leftovers) => found.extend(leftovers),
                // One end of a veth pair takes the other one with it.
                Err(error) if error.is_not_found() => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| found)
    }

    fn collect_link(&self, link: &Link, links: &[Link]) -> Result<Vec<Leftover>, Error> {
        let mut found = Vec::new();
        let name = || link.name.clone();
        if let Some(redirect) = tc::redirect_of(self, link)?
            && is_gone(redirect.owner, || !links.iter().any(|link| link.index == redirect.target))
        {
            tc::remove_redirect(link.index, &link.name, redirect.qdisc).apply(self)?;
            found.push(Leftover::Adopted { name: name(), owner: redirect.owner });
        }
        if let Some(owner) = link.owner()
            && is_gone(owner, || has_lost_its_tap(link, links))
        {
            if let Some((mac, alias)) = link.alias.as_deref().and_then(before) {
                link::set_mac(link.index, &link.name, mac).apply(self)?;
                link::set_alias(link.index, &link.name, alias).apply(self)?;
                found.push(Leftover::Adopted { name: name(), owner });
            } else {
                link::delete(link.index, &link.name).apply(self)?;
                found.push(Leftover::Link { name: name(), owner });
            }
        }
        Ok(found)
    }
}
