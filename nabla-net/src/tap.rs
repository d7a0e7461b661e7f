//! Taps: what a guest sends and receives its frames by.

use crate::{
    error::{Error, ErrorKind},
    link::{Link, PASSING, check_name},
    network::Network,
    owned::{Owned, Undo},
    owner::Owner,
    sys,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a new tap is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapOptions {
    name: Option<String>,
    mtu: Option<u32>,
    owner: Option<u32>,
    group: Option<u32>,
    multi_queue: bool,
}

impl TapOptions {
    /// A tap with a [fresh name](Network::fresh_name), an MTU of 1500 bytes and one queue, for its maker alone.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_tap(&nabla_net::TapOptions::new())?;
    /// assert_eq!(tap.link().mtu, 1500);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Its name: 1 to 15 characters.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_tap(&nabla_net::TapOptions::new().name("tap0"))?;
    /// assert_eq!(tap.link().name, "tap0");
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Its MTU in bytes, from 68 to 65521.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_tap(&nabla_net::TapOptions::new().mtu(9000))?;
    /// assert_eq!(network.link(&tap.link().name)?.mtu, 9000);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// The user who may open it without any capability.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_persistent_tap(&nabla_net::TapOptions::new().name("tap0").owner(1000))?;
    /// // The user with the id 1000 can open it now, if /dev/net/tun is open to everybody.
    /// # drop(tap);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn owner(mut self, user: u32) -> Self {
        self.owner = Some(user);
        self
    }

    /// The group whose members may open it without any capability.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_persistent_tap(&nabla_net::TapOptions::new().name("tap0").group(100))?;
    /// # drop(tap);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Lets it be opened several times, each time for a queue of its own. Guests of today have one queue, and the
    /// monitor does not open such a tap by name.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_tap(&nabla_net::TapOptions::new().name("tap0").multi_queue(true))?;
    /// # drop(tap);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub const fn multi_queue(mut self, on: bool) -> Self {
        self.multi_queue = on;
        self
    }
}

/// A tap that is open. It goes away with its last descriptor, however the programs that have it end.
#[derive(Debug)]
pub struct Tap {
    link: Link,
    descriptor: OwnedFd,
}

impl Tap {
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

    /// The descriptor by which the guest's frames come and go.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let tap = network.create_tap(&nabla_net::TapOptions::new().name("tap0"))?;
    /// let descriptor = tap.into_descriptor();
    /// assert!(network.link("tap0").is_ok());
    /// drop(descriptor);
    /// assert!(network.link("tap0").is_err());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
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
    /// drop(tap.into_descriptor());
    /// assert!(network.link("tap0").unwrap_err().is_not_found());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is an interface of that name, `/dev/net/tun` cannot be opened, or the kernel refuses.
    pub fn create_tap(&self, options: &TapOptions) -> Result<Tap, Error> {
        let (descriptor, name) = self.make_tap(options)?;
        let link = self.link(&name)?;
        self.set_owner(&link, PASSING)?;
        self.configure_tap(&link, options)?;
        Ok(Tap { link: self.link(&name)?, descriptor })
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
        let (descriptor, name) = self.make_tap(options)?;
        let what = || format!("tap '{name}'");
        let fail = |errno: Errno| Error::system("set up", what(), errno.into());
        let link = self.link(&name)?;
        self.set_owner(&link, &owner.to_string())?;
        self.configure_tap(&link, options)?;
        sys::set_persistent(descriptor.as_fd(), true).map_err(fail)?;
        let undo = Undo::DeleteLink { index: link.index, name: name.clone() };
        Ok(Owned::new(self.link(&name)?, self.undo(undo)))
    }

    /// Opens a tap that exists, with one queue. Takes CAP_NET_ADMIN, or that it was made for this user or group.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let network = nabla_net::Network::isolated()?;
    /// let _tap = network.create_persistent_tap(&nabla_net::TapOptions::new().name("tap0"))?;
    /// let descriptor = network.open_tap("tap0")?;
    /// assert!(matches!(network.open_tap("tap0").unwrap_err().kind, nabla_net::ErrorKind::Busy));
    /// # drop(descriptor);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such tap, it is another kind of interface, in use, or somebody else's.
    pub fn open_tap(&self, name: &str) -> Result<OwnedFd, Error> {
        check_name("open", name)?;
        let what = || format!("tap '{name}'");
        // Without this, a tap that does not exist would be made.
        if !sys::interface_exists(self.control(), name) {
            return Err(Error::new("open", what(), ErrorKind::NotFound));
        }
        let descriptor = self.open_tun()?;
        sys::attach_tap(descriptor.as_fd(), name, false, false).map_err(|errno| match errno {
            Errno::INVAL => Error::new("open", what(), ErrorKind::Kind { expected: "tap with one queue" }),
            Errno::PERM => Error::new("open", what(), ErrorKind::NotOwner),
            errno => Error::system("open", what(), errno.into()),
        })?;
        sys::switch_offloads_off(descriptor.as_fd())
            .map_err(|errno| Error::system("switch offloads off for", what(), errno.into()))?;
        Ok(descriptor)
    }

    fn make_tap(&self, options: &TapOptions) -> Result<(OwnedFd, String), Error> {
        let name = options.name.clone().unwrap_or_else(Self::fresh_name);
        check_name("create", &name)?;
        let what = || format!("tap '{name}'");
        let descriptor = self.open_tun()?;
        let tap = descriptor.as_fd();
        sys::attach_tap(tap, &name, true, options.multi_queue).map_err(|errno| match errno {
            Errno::BUSY | Errno::EXIST => Error::new("create", what(), ErrorKind::Exists),
            // An interface of another kind has the name.
            Errno::INVAL if sys::interface_exists(self.control(), &name) => {
                Error::new("create", what(), ErrorKind::Exists)
            }
            errno => Error::system("create", what(), errno.into()),
        })?;
        let set_up = || {
            sys::switch_offloads_off(tap)?;
            options.owner.map_or(Ok(()), |user| sys::set_owner(tap, user))?;
            options.group.map_or(Ok(()), |group| sys::set_group(tap, group))
        };
        set_up().map_err(|errno: Errno| Error::system("set up", what(), errno.into()))?;
        Ok((descriptor, name))
    }

    fn configure_tap(&self, link: &Link, options: &TapOptions) -> Result<(), Error> {
        self.switch_autoconfiguration_off(link)?;
        match options.mtu {
            Some(mtu) if mtu != link.mtu => self.set_mtu(&link.name, mtu),
            _ => Ok(()),
        }
    }

    fn open_tun(&self) -> Result<OwnedFd, Error> {
        self.namespace().run(sys::open_tun)?.map_err(|errno| {
            let kind = match errno {
                Errno::NOENT | Errno::NODEV | Errno::NXIO => {
                    ErrorKind::Unsupported { needs: "CONFIG_TUN (modprobe tun)" }
                }
                Errno::ACCESS => ErrorKind::Other(
                    "its file mode does not let you; most systems let everybody, since it is the tap's owner that counts: \
                     chmod 0666 /dev/net/tun"
                        .to_owned(),
                ),
                errno => ErrorKind::System(errno.into()),
            };
            Error::new("open", "/dev/net/tun", kind)
        })
    }
}
