//! A connection to one network namespace.

use crate::{error::Error, namespace::Namespace, netlink::RoutingSocket};
use std::{io, sync::Arc};

/// A connection to one network namespace, through which everything in it is asked for, made and changed.
///
/// Clones are the same connection. It stays in its namespace, and keeps it, whatever the threads that use it do.
///
/// ```
/// # if !nabla_testkit::need::root() { return Ok(()) }
/// use nabla_net::Network;
///
/// let network = Network::isolated()?;
/// let bridge = network.create_bridge("br0")?;
/// let _address = network.add_address("br0", "10.0.0.1/24".parse()?)?;
/// network.set_up("br0")?;
/// assert!(network.link("br0")?.is_up);
/// drop(bridge);
/// assert!(network.link("br0").is_err(), "what was made is gone again");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    namespace: Namespace,
    routing: RoutingSocket,
}

impl Network {
    /// The network of the calling thread's namespace.
    ///
    /// ```
    /// let network = nabla_net::Network::current()?;
    /// assert!(network.link("lo")?.is_loopback);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When /proc is not there or no socket can be opened.
    pub fn current() -> Result<Self, Error> {
        let namespace = Namespace::current()?;
        Self::new(namespace, RoutingSocket::open())
    }

    /// The network of a namespace. Takes CAP_SYS_ADMIN.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// use nabla_net::{Namespace, Network};
    ///
    /// let network = Network::inside(Namespace::new()?)?;
    /// assert_eq!(network.links()?.len(), 1);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or no socket be opened.
    pub fn inside(namespace: Namespace) -> Result<Self, Error> {
        let routing = namespace.run(RoutingSocket::open)?;
        Self::new(namespace, routing)
    }

    /// The network of a new namespace. It goes away with the last clone of this, and the last process and file that
    /// refer to the namespace.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let names: Vec<_> = network.links()?.into_iter().map(|link| link.name).collect();
    /// assert_eq!(names, ["lo"]);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Namespace::new`] and [`Network::inside`].
    pub fn isolated() -> Result<Self, Error> {
        Self::inside(Namespace::new()?)
    }

    fn new(namespace: Namespace, routing: io::Result<RoutingSocket>) -> Result<Self, Error> {
        let routing = routing.map_err(|error| Error::system("open a socket in", namespace.name(), error))?;
        Ok(Self(Arc::new(Inner { namespace, routing })))
    }

    /// The namespace.
    ///
    /// ```
    /// use nabla_net::{Namespace, Network};
    ///
    /// let network = Network::current()?;
    /// assert!(network.namespace().is_same(&Namespace::current()?)?);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    pub(crate) fn routing(&self) -> &RoutingSocket {
        &self.0.routing
    }
}
