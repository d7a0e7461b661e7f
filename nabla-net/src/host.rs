//! What this host can do for the networks of guests.

use crate::{AdoptOptions, Error, Network};
use rustix::thread::{CapabilitySet, capabilities};
use std::fs;

/// Whether this program has CAP_NET_ADMIN in its user namespace.
///
/// ```
/// // As root, or with file capabilities, it has; the answer is about this program, not about a user.
/// let _ = nabla_net::host::has_net_admin();
/// ```
#[must_use]
pub fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Whether the host passes on packets that are not for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarding {
    /// Those of IPv4.
    pub ipv4: bool,
    /// Those of IPv6.
    pub ipv6: bool,
}

/// Looks up whether the host forwards.
///
/// ```
/// let forwarding = nabla_net::host::forwarding();
/// println!("guests reach other networks: {}", forwarding.ipv4);
/// ```
#[must_use]
pub fn forwarding() -> Forwarding {
    let is_on = |path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    Forwarding {
        ipv4: is_on("/proc/sys/net/ipv4/ip_forward"),
        ipv6: is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
    }
}

/// Tries out, in a namespace of its own, whether guests can be given interfaces: cables, taps and redirection.
///
/// ```
/// # if !nabla_testkit::need::tap() { return Ok(()) }
/// nabla_net::host::try_adopting()?;
/// # Ok::<(), nabla_net::Error>(())
/// ```
///
/// # Errors
///
/// The first thing that does not work.
pub fn try_adopting() -> Result<(), Error> {
    let network = Network::isolated()?;
    let _pair = network.create_veth("eth0", "peer")?;
    network.set_up("eth0")?;
    network.adopt(&AdoptOptions::new("eth0"))?.release()
}
