//! An open tap.

use crate::{
    error::{TapError, TapErrorKind as Kind},
    ioctl::{self, Interfaces},
    options::TapOptions,
};
use linux_raw_sys::if_tun::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL, IFF_VNET_HDR};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the kernel makes a name out of when none was said.
const PATTERN: &str = "nb%d";
/// Each read gives a frame and nothing else.
const PLAIN: u32 = IFF_TAP | IFF_NO_PI;

/// An open tap. The kernel does not let it be opened again until this is dropped.
///
/// Its descriptor is non-blocking. Each read gives a whole Ethernet frame, no longer than MTU and header, with its checksums
/// computed; each write sends one.
#[derive(Debug)]
pub struct Tap {
    descriptor: OwnedFd,
    name: Option<String>,
}

impl Tap {
    /// Opens the tap called `name`, which exists, in the network namespace of the calling thread. Takes CAP_NET_ADMIN,
    /// or that it was made for this user or group.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// let existing = nabla_testkit::TestTap::new();
    /// let tap = nabla_tap::Tap::open(existing.name())?;
    /// assert!(!tap.is_up()?);
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such tap, it is another kind of interface, in use, or another user's.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let fail = |kind: Kind| kind.of(name);
        check_name(name).map_err(fail)?;
        // Without this, opening a tap that does not exist would create it.
        let interfaces = Interfaces::open().map_err(|errno| fail(Kind::Open { source: errno.into() }))?;
        interfaces.is_up(name).map_err(|errno| {
            fail(match errno {
                Errno::NODEV => Kind::NotFound,
                errno => Kind::Open { source: errno.into() },
            })
        })?;
        let descriptor = open_tun().map_err(fail)?;
        ioctl::attach(descriptor.as_fd(), name, PLAIN).map_err(|errno| {
            fail(match errno {
                Errno::BUSY => Kind::Busy,
                Errno::PERM => Kind::NotPermitted,
                Errno::INVAL => Kind::NotATap,
                errno => Kind::Open { source: errno.into() },
            })
        })?;
        let tap = Self { descriptor, name: Some(name.to_owned()) };
        tap.finish_frames().map_err(fail)?;
        Ok(tap)
    }

    /// A tap, macvtap or ipvtap that the caller opened. A virtio header is switched off where the kernel lets it be.
    ///
    /// What is no tap at all is taken, too, as long as each read gives a frame and each write sends one, such as a packet
    /// socket. It has no name and no MTU.
    ///
    /// ```
    /// use std::os::{fd::OwnedFd, unix::net::UnixDatagram};
    ///
    /// let (guest, _host) = UnixDatagram::pair()?;
    /// let tap = nabla_tap::Tap::from_fd(OwnedFd::from(guest))?;
    /// assert_eq!((tap.name(), tap.mtu()?), (None, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When it is a tun device, or an open `/dev/net/tun` that is no tap yet; when frames have a header that cannot be
    /// switched off; when the descriptor cannot be made non-blocking.
    pub fn from_fd(descriptor: OwnedFd) -> Result<Self, TapError> {
        let fail = |name: Option<&str>, kind| TapError { name: name.map(str::to_owned), kind };
        let broken = |errno: Errno| fail(None, Kind::Descriptor { source: errno.into() });
        rustix::io::ioctl_fionbio(&descriptor, true).map_err(broken)?;
        let (name, mut flags) = match ioctl::attached(descriptor.as_fd()) {
            Ok(attached) => attached,
            Err(Errno::NOTTY | Errno::INVAL | Errno::OPNOTSUPP) => {
                return Ok(Self { descriptor, name: None });
            }
            Err(Errno::BADFD) => return Err(fail(None, Kind::NotATap)),
            Err(errno) => return Err(broken(errno)),
        };
        let fail = |kind| fail(Some(&name), kind);
        if flags & IFF_TAP == 0 {
            return Err(fail(Kind::NotATap));
        }
        if flags & IFF_VNET_HDR != 0 {
            // A macvtap takes it. A tap takes flags only once.
            let plain = PLAIN | flags & IFF_MULTI_QUEUE;
            if ioctl::attach(descriptor.as_fd(), &name, plain).is_ok() {
                flags = ioctl::attached(descriptor.as_fd()).map_err(broken)?.1;
            }
        }
        if flags & IFF_VNET_HDR != 0 {
            return Err(fail(Kind::VirtioHeader));
        }
        if ioctl::has_packet_information(descriptor.as_fd()).map_err(broken)? {
            return Err(fail(Kind::PacketInformation));
        }
        let tap = Self { descriptor, name: Some(name.clone()) };
        tap.finish_frames().map_err(fail)?;
        Ok(tap)
    }

    /// Creates a tap and opens it, in the network namespace of the calling thread. It is down. Takes CAP_NET_ADMIN.
    ///
    /// ```
    /// # if !nabla_testkit::need::tap() { return Ok(()) }
    /// # let _in_a_namespace = nabla_testkit::TestTap::new();
    /// use nabla_tap::{Tap, TapOptions};
    ///
    /// let tap = Tap::create(&TapOptions::new().name("vm%d").mtu(9000))?;
    /// assert_eq!((tap.name(), tap.mtu()?), (Some("vm0"), Some(9000)));
    /// # Ok::<(), nabla_tap::TapError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is an interface of that name, `/dev/net/tun` cannot be opened, or the kernel refuses.
    pub fn create(options: &TapOptions) -> Result<Self, TapError> {
        let wanted = options.name.as_deref().unwrap_or(PATTERN);
        let fail = |kind: Kind| kind.of(wanted);
        check_name(&wanted.replacen("%d", "0", 1)).map_err(fail)?;
        let descriptor = open_tun().map_err(fail)?;
        let queues = if options.multi_queue { IFF_MULTI_QUEUE } else { 0 };
        let name =
            ioctl::attach(descriptor.as_fd(), wanted, PLAIN | queues | IFF_TUN_EXCL).map_err(|errno| {
                fail(match errno {
                    Errno::BUSY | Errno::EXIST => Kind::Exists,
                    // An interface of another kind has the name.
                    Errno::INVAL if Interfaces::open().is_ok_and(|all| all.is_up(wanted).is_ok()) => {
                        Kind::Exists
                    }
                    Errno::PERM => Kind::MayNotCreate,
                    errno => Kind::Open { source: errno.into() },
                })
            })?;
        let fail = |kind: Kind| kind.of(&name);
        let tap = Self { descriptor, name: Some(name.clone()) };
        tap.finish_frames().map_err(fail)?;
        let set = |property, result: rustix::io::Result<()>| {
            result.map_err(|errno| fail(Kind::Property { property, source: errno.into() }))
        };
        let tun = tap.as_fd();
        if let Some(user) = options.owner {
            set("owner", ioctl::set::<{ ioctl::TUNSETOWNER }>(tun, user))?;
        }
        if let Some(group) = options.group {
            set("group", ioctl::set::<{ ioctl::TUNSETGROUP }>(tun, group))?;
        }
        if let Some(bytes) = options.mtu {
            set("MTU", Interfaces::open().and_then(|interfaces| interfaces.set_mtu(&name, bytes)))?;
        }
        // The last: whatever fails before takes the tap with it.
        if options.persistent { tap.persist().map(|()| tap) } else { Ok(tap) }
    }

    /// Makes the tap stay when no program has it open, until it is deleted.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. What is no tap cannot stay.
    pub fn persist(&self) -> Result<(), TapError> {
        ioctl::set::<{ ioctl::TUNSETPERSIST }>(self.as_fd(), 1).map_err(|errno| TapError {
            name: self.name.clone(),
            kind: Kind::Property { property: "persistence", source: errno.into() },
        })
    }

    /// The name of the interface, as it was when the tap was opened. None for what is no tap.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The MTU in bytes: the largest frame without its Ethernet header. None for what is no tap.
    ///
    /// # Errors
    ///
    /// When the tap is in another network namespace than the calling thread, or gone.
    pub fn mtu(&self) -> Result<Option<u32>, TapError> {
        let Some(name) = &self.name else { return Ok(None) };
        let read = || self.here()?.ok_or(Errno::NODEV)?.mtu(name);
        read().map(Some).map_err(|errno| Kind::Mtu { source: errno.into() }.of(name))
    }

    /// Whether the interface is up. What is no tap is.
    ///
    /// # Errors
    ///
    /// As [`Self::mtu`].
    pub fn is_up(&self) -> Result<bool, TapError> {
        let Some(name) = &self.name else { return Ok(true) };
        let read = || self.here()?.ok_or(Errno::NODEV)?.is_up(name);
        read().map_err(|errno| Kind::Open { source: errno.into() }.of(name))
    }

    /// The interfaces of the calling thread's namespace, if the tap is one of them. Another one may have its name.
    fn here(&self) -> rustix::io::Result<Option<Interfaces>> {
        let Some(name) = &self.name else { return Ok(None) };
        let interfaces = Interfaces::open()?;
        match (ioctl::mac(self.as_fd(), name), interfaces.mac(name)) {
            (Ok(own), Ok(named)) => Ok((own == named).then_some(interfaces)),
            (Err(Errno::NODEV), _) | (_, Err(Errno::NODEV)) => Ok(None),
            (Err(errno), _) | (_, Err(errno)) => Err(errno),
        }
    }

    /// Has the kernel compute checksums and cut segments before it hands frames over, whatever the last user of the tap
    /// asked for, and checks that it does. Generic segmentation and receive offload may stay on: they end before a tap.
    fn finish_frames(&self) -> Result<(), Kind> {
        ioctl::set::<{ ioctl::TUNSETOFFLOAD }>(self.as_fd(), 0)
            .map_err(|errno| Kind::Offloads { source: Some(errno.into()) })?;
        // Without a virtio header, a macvtap finishes frames itself, whatever its interface says.
        if !ioctl::is_tun(self.as_fd()) {
            return Ok(());
        }
        let check = || match (self.here()?, &self.name) {
            (Some(interfaces), Some(name)) => interfaces.has_offloads(name),
            // It cannot be asked for from here.
            _ => Ok(false),
        };
        match check() {
            Ok(false) => Ok(()),
            Ok(true) => Err(Kind::Offloads { source: None }),
            Err(errno) => Err(Kind::Offloads { source: Some(errno.into()) }),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.descriptor
    }
}

fn open_tun() -> Result<OwnedFd, Kind> {
    ioctl::open_tun().map_err(|errno| Kind::DevNetTun { source: errno.into() })
}

/// Fails for what can be no name. Source: `dev_valid_name` of the kernel; `%` would be a pattern.
fn check_name(name: &str) -> Result<(), Kind> {
    let valid = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.bytes().any(|b| b == b'/' || b == b':' || b == b'%' || b.is_ascii_whitespace() || b == 0);
    if valid { Ok(()) } else { Err(Kind::Name) }
}

#[cfg(test)]
mod tests;
