//! Taps: what a guest sends and receives its frames by.

use crate::{
    error::{Error, ErrorKind},
    link::{Link, TRANSIENT, deleted_when_dropped, set_alias},
    network::Network,
    owned::Owned,
    owner::Owner,
};
use nabla_tap::{Tap, TapError, TapErrorKind, TapOptions};

/// A tap that was created here. It goes away with its last descriptor, however the programs that have it end.
#[derive(Debug)]
pub struct CreatedTap {
    link: Link,
    tap: Tap,
}

impl CreatedTap {
    /// The interface on the host's side.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_tap(&nabla_net::TapOptions::new())?;
    /// network.set_up(&tap.link().name)?;
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// The tap, which the guest's monitor takes.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_tap(&nabla_net::TapOptions::new().name("tap0"))?.into_tap();
    /// assert!(network.link("tap0").is_ok());
    /// drop(tap);
    /// assert!(network.link("tap0").is_err());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn into_tap(self) -> Tap {
        self.tap
    }
}

impl Network {
    /// Creates a tap and opens it. It is down, and goes away with its last descriptor: nothing has to be cleaned up,
    /// not even after `kill -9`.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{Network, TapOptions};
    ///
    /// let network = Network::isolated()?;
    /// let tap = network.create_tap(&TapOptions::new().name("tap0").mtu(9000))?;
    /// network.set_up("tap0")?;
    /// assert_eq!(network.link("tap0")?.mtu, 9000);
    /// drop(tap.into_tap());
    /// assert!(network.link("tap0").unwrap_err().is_not_found());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is an interface of that name, `/dev/net/tun` cannot be opened, or the kernel refuses.
    pub fn create_tap(&self, options: &TapOptions) -> Result<CreatedTap, Error> {
        let options = options.clone().persistent(false);
        let tap = self.in_namespace("create", move || Tap::create(&options))?;
        let link = self.set_up_tap(&tap, TRANSIENT)?;
        Ok(CreatedTap { link, tap })
    }

    /// Creates a tap that is there until it is deleted. It is down, and nobody has it open.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// use nabla_net::{Network, TapOptions};
    ///
    /// let network = Network::isolated()?;
    /// let tap = network.create_persistent_tap(&TapOptions::new().name("tap0").owner(1000))?;
    /// let descriptor = network.open_tap("tap0")?;
    /// drop(descriptor);
    /// assert!(network.link("tap0").is_ok());
    /// drop(tap);
    /// assert!(network.link("tap0").is_err());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::create_tap`].
    pub fn create_persistent_tap(&self, options: &TapOptions) -> Result<Owned<Link>, Error> {
        let owner = Owner::this_process()?;
        let options = options.clone().persistent(false);
        let tap = self.in_namespace("create", move || Tap::create(&options))?;
        let link = self.set_up_tap(&tap, &owner.to_string())?;
        // The last: whatever fails before takes the tap with it.
        tap.persist().map_err(|error| from_tap("create", error))?;
        Ok(deleted_when_dropped(self, link))
    }

    /// Opens a tap that exists, with one queue. Takes CAP_NET_ADMIN, or that it was made for this user or group.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let _tap = network.create_persistent_tap(&nabla_net::TapOptions::new().name("tap0"))?;
    /// let tap = network.open_tap("tap0")?;
    /// assert!(matches!(network.open_tap("tap0").unwrap_err().kind, nabla_net::ErrorKind::Busy));
    /// # drop(tap);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such tap, it is another kind of interface, in use, or somebody else's.
    pub fn open_tap(&self, name: &str) -> Result<Tap, Error> {
        self.in_namespace("open", || Tap::open(name))
    }

    /// Whether some program has a tap open: a guest that would lose its network with it.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_persistent_tap(&nabla_net::TapOptions::new().name("tap0"))?;
    /// assert!(!network.is_in_use(&tap)?);
    /// let opened = network.open_tap("tap0")?;
    /// assert!(network.is_in_use(&tap)?);
    /// # drop(opened);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When it cannot be tried.
    pub fn is_in_use(&self, tap: &Link) -> Result<bool, Error> {
        match self.open_tap(&tap.name) {
            Ok(_) => Ok(false),
            Err(error) => match error.kind {
                ErrorKind::Busy => Ok(true),
                // Several may open a tap of several queues; it has a carrier as long as one does.
                ErrorKind::Kind { .. } => Ok(tap.is_running),
                _ => Err(error),
            },
        }
    }

    fn in_namespace(
        &self,
        operation: &'static str,
        work: impl FnOnce() -> Result<Tap, TapError> + Send,
    ) -> Result<Tap, Error> {
        self.namespace().run(work)?.map_err(|error| from_tap(operation, error))
    }

    fn set_up_tap(&self, tap: &Tap, alias: &str) -> Result<Link, Error> {
        let link = self.link(tap.name().unwrap_or_default())?;
        set_alias(link.index, &link.name, alias).apply(self)?;
        self.switch_autoconfiguration_off(&link)?;
        self.link(&link.name)
    }
}

fn from_tap(operation: &'static str, error: TapError) -> Error {
    let kind = match error.kind {
        TapErrorKind::Name => ErrorKind::Name,
        TapErrorKind::NotFound => ErrorKind::NotFound,
        TapErrorKind::Exists => ErrorKind::Exists,
        TapErrorKind::Busy => ErrorKind::Busy,
        TapErrorKind::NotATap => ErrorKind::Kind { expected: "tap with one queue" },
        TapErrorKind::NotPermitted => ErrorKind::NotOwner,
        TapErrorKind::MayNotCreate => ErrorKind::NotPermitted { needs: "CAP_NET_ADMIN" },
        kind => ErrorKind::Tap(kind),
    };
    Error::new(operation, format!("tap '{}'", error.name.unwrap_or_default()), kind)
}
