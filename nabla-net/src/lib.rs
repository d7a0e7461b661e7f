//! What a guest's network needs from the host.
//!
//! A guest sees Ethernet frames through a tap. This crate makes taps, and what is around them: bridges, veth pairs,
//! addresses, routes, neighbours, in the current network namespace or any other. It speaks to the kernel itself (rtnetlink,
//! and tun(4) by nabla-tap), synchronously, and runs no other program.
//!
//! # A connection to a namespace
//!
//! [`Network`] is a connection to one namespace: the current one, a new one, or one given by path or process. Everything is
//! done through it. No thread of the caller ever changes its namespace: what has to be done inside is done by a thread that is
//! made for it.
//!
//! ```
//! # if !nabla_testkit::need::tap() { return Ok(()) }
//! use nabla_net::{Network, TapOptions};
//!
//! let network = Network::isolated()?; // or Network::current()
//! let bridge = network.create_bridge("br0")?;
//! let tap = network.create_tap(&TapOptions::new().name("tap0"))?;
//! let member = network.attach("tap0", "br0")?;
//! network.set_up("br0")?;
//! network.set_up("tap0")?;
//! // tap.into_tap() is what the monitor takes.
//! # drop((tap, member, bridge));
//! # Ok::<(), nabla_net::Error>(())
//! ```
//!
//! What is made or changed is an [`Owned`] guard, which undoes it when dropped. It can be [released](Owned::release) with an
//! error, or [kept](Owned::keep). [Taps](CreatedTap) go away with their last descriptor, so not even `kill -9` leaves one. For
//! everything else there is [`Network::collect_garbage`]: what is made here carries the mark of its [`Owner`].
//!
//! # What guests get
//!
//! [`Network::lease`] gives a guest a network of its own that only the host is in. [`Network::adopt`] gives it the interface
//! that a container engine has prepared for a container. Both say in a [`NetConfig`] what the guest is to be told;
//! [`ConfigStyle`] says how, by which arguments, and how its image shows that.
//! [`Forwarder`] passes connections to a port of the host on to a guest.
//!
//! ```
//! # if !nabla_testkit::need::tap() { return Ok(()) }
//! use nabla_net::{LeaseOptions, Network};
//!
//! # let network = Network::isolated()?;
//! let lease = network.lease(&LeaseOptions::new().host("10.0.0.1/24".parse()?))?;
//! assert_eq!(lease.guest.to_string(), "10.0.0.2");
//! assert_eq!(lease.config.gateway_v4(), Some([10, 0, 0, 1].into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing process-wide is touched.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]

mod address;
mod adopt;
mod change;
mod config;
mod error;
mod forward;
mod gc;
pub mod host;
mod lease;
mod link;
mod namespace;
mod neighbour;
mod netlink;
mod network;
mod owned;
mod owner;
mod procfs;
mod route;
mod tap;
mod tc;

pub use crate::{
    address::Address,
    adopt::{AdoptOptions, Adopted, Connection},
    config::{
        Cidr, ConfigStyle, NetConfig, NetRoute, ParseCidrError, ParseConfigStyleError, Rumprun, RumprunError,
    },
    error::{Error, ErrorKind},
    forward::Forwarder,
    gc::Leftover,
    lease::{Lease, LeaseOptions},
    link::{Link, VethPair},
    namespace::Namespace,
    neighbour::Neighbour,
    network::Network,
    owned::Owned,
    owner::Owner,
    route::Route,
    tap::CreatedTap,
};
pub use nabla_core::MacAddress;
pub use nabla_tap::{Tap, TapOptions};

/// The program in the README is tested, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
