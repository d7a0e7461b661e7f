//! Network interfaces: taps that exist already.

use super::{DeviceError, DeviceProperties, DeviceSource, OpenDevice};
use nabla_core::{Attachment, DeviceKind, MacAddress};
use rustix::fs::OFlags;
use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};
use thiserror::Error;

const DEFAULT_MTU: u16 = 1500;

/// A random address that is locally administered and no multicast one.
fn random_mac() -> io::Result<MacAddress> {
    let mut bits = [0; 6];
    rustix::io::retry_on_intr(|| {
        rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty()).map(|_| ())
    })?;
    Ok(MacAddress::local(bits))
}

/// A network interface of a guest: a tap device that exists and is up.
///
/// Creating taps and giving them addresses is not the monitor's business. Nothing is opened before the guest
/// starts.
///
/// ```
/// use nabla_monitor::{MacAddress, NetDevice};
///
/// let tap = NetDevice::new("tap0").mac(MacAddress([2, 0, 0, 0, 0, 1]));
/// # let _ = tap;
/// ```
#[derive(Debug)]
pub struct NetDevice {
    source: Source,
    mac: Option<MacAddress>,
    mtu: Option<u16>,
}

#[derive(Debug)]
enum Source {
    Name(String),
    Descriptor(OwnedFd),
}

impl NetDevice {
    /// The tap called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { source: Source::Name(name.into()), mac: None, mtu: None }
    }

    /// A tap that the caller opened, with `IFF_TAP | IFF_NO_PI`. It is made non-blocking.
    #[must_use]
    pub fn from_fd(descriptor: OwnedFd) -> Self {
        Self { source: Source::Descriptor(descriptor), mac: None, mtu: None }
    }

    /// The MAC address that the guest gets. A random one unless set.
    #[must_use]
    pub fn mac(mut self, mac: MacAddress) -> Self {
        self.mac = Some(mac);
        self
    }

    /// The MTU in bytes that the guest is told. The tap's own unless set.
    #[must_use]
    pub fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = Some(bytes);
        self
    }
}

impl DeviceSource for NetDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Net
    }

    fn open(self: Box<Self>) -> Result<OpenDevice, DeviceError> {
        Ok((*self).open_net()?)
    }
}

impl NetDevice {
    fn open_net(self) -> Result<OpenDevice, NetError> {
        let name = match &self.source {
            Source::Name(name) => Some(name.clone()),
            Source::Descriptor(_) => None,
        };
        let fail = |kind| NetError { name: name.clone(), kind };
        let (descriptor, name) = match self.source {
            Source::Name(name) => (open_by_name(&name).map_err(fail)?, Some(name)),
            Source::Descriptor(descriptor) => {
                rustix::io::ioctl_fionbio(&descriptor, true)
                    .map_err(|errno| fail(NetErrorKind::Descriptor { source: errno.into() }))?;
                // What was passed may be a packet socket or a pipe, too; those have no name and no MTU to ask for.
                let name = tun::name(descriptor.as_fd()).ok();
                (descriptor, name)
            }
        };
        let mtu = match (self.mtu, &name) {
            (Some(mtu), _) => mtu,
            (None, Some(name)) => tun::mtu(name).map_err(|source| fail(NetErrorKind::Mtu { source }))?,
            (None, None) => DEFAULT_MTU,
        };
        let mac = match self.mac {
            Some(mac) => mac,
            None => random_mac().map_err(|source| fail(NetErrorKind::Random { source }))?,
        };
        if let Some(name) = &name {
            // Frames larger than the MTU would be cut short in the guest's buffer. The interface works without
            // this as long as nobody aggregates, and changing it needs a privilege that a tap's owner may lack.
            if let Err(error) = tun::switch_offloads_off(name) {
                tracing::debug!(tap = name, %error, "offloads could not be switched off");
            }
        }
        Ok(OpenDevice {
            descriptor,
            properties: DeviceProperties::Net(NetInfo { interface: name, mac, mtu }),
        })
    }
}

/// A network device that a guest has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetInfo {
    /// The name of the tap, where it has one.
    pub interface: Option<String>,
    /// The guest's MAC address.
    pub mac: MacAddress,
    /// The MTU in bytes that the guest is told.
    pub mtu: u16,
}

impl NetInfo {
    pub(super) fn attachment(&self, descriptor: i32) -> Attachment {
        Attachment::Net { mac: self.mac.0, mtu: self.mtu, descriptor }
    }
}

impl fmt::Display for NetInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net, address {}, MTU {}", self.mac, self.mtu)
    }
}

impl From<&str> for NetDevice {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for NetDevice {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

fn open_by_name(name: &str) -> Result<OwnedFd, NetErrorKind> {
    use rustix::io::Errno;
    if name.is_empty() || name.len() > 15 || name.contains(['/', '\0', '%']) {
        return Err(NetErrorKind::Name);
    }
    // Without this, opening a tap that does not exist would create it.
    let flags = tun::interface_flags(name).map_err(|errno| match errno {
        Errno::NODEV => NetErrorKind::NotFound,
        errno => NetErrorKind::Open { source: errno.into() },
    })?;
    if !flags.up {
        return Err(NetErrorKind::Down);
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty())
        .map_err(|errno| NetErrorKind::DevNetTun { source: errno.into() })?;
    match tun::attach(descriptor.as_fd(), name) {
        Ok(()) => Ok(descriptor),
        Err(Errno::BUSY) => Err(NetErrorKind::Busy),
        Err(Errno::PERM) => Err(NetErrorKind::NotPermitted),
        Err(Errno::INVAL) => Err(NetErrorKind::NotATap),
        Err(errno) => Err(NetErrorKind::Open { source: errno.into() }),
    }
}

/// Why a network interface cannot be attached.
#[derive(Debug)]
pub struct NetError {
    /// Name of the interface, where it was given by name.
    pub name: Option<String>,
    /// What is wrong.
    pub kind: NetErrorKind,
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "tap '{name}': {}", self.kind),
            None => write!(f, "the tap given as a descriptor: {}", self.kind),
        }
    }
}

impl std::error::Error for NetError {
    /// That of the [kind](Self::kind), which is in the message already.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// See [`NetError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetErrorKind {
    /// No interface can be called that.
    #[error("this is no name of an interface (1 to 15 characters)")]
    Name,
    /// There is no such interface.
    #[error(
        "there is no such interface; create it with: ip tuntap add NAME mode tap user $USER && ip link set NAME up"
    )]
    NotFound,
    /// It is down.
    #[error("it is down; bring it up with: ip link set NAME up")]
    Down,
    /// It is an interface of another kind.
    #[error("it is an interface, but no tap with a single queue and without packet information")]
    NotATap,
    /// Somebody else has it open.
    #[error("it is in use by another guest or program")]
    Busy,
    /// It belongs to somebody else.
    #[error(
        "you may not open it: it belongs to another user, and that takes CAP_NET_ADMIN; let root give it to you with: ip tuntap add NAME mode tap user $USER"
    )]
    NotPermitted,
    /// `/dev/net/tun` cannot be opened.
    #[error("/dev/net/tun cannot be opened; is the tun module loaded (modprobe tun), and may you use it?")]
    DevNetTun {
        /// The system's reason.
        source: io::Error,
    },
    /// It cannot be opened for another reason.
    #[error("cannot be opened")]
    Open {
        /// The system's reason.
        source: io::Error,
    },
    /// The descriptor cannot be used.
    #[error("the descriptor cannot be made non-blocking")]
    Descriptor {
        /// The system's reason.
        source: io::Error,
    },
    /// The MTU cannot be read.
    #[error("its MTU cannot be read")]
    Mtu {
        /// The system's reason.
        source: io::Error,
    },
    /// No random MAC address could be made.
    #[error("no random MAC address could be made")]
    Random {
        /// The system's reason.
        source: io::Error,
    },
}

/// The ioctls of taps. Source: the kernel's `linux/if.h`, `linux/if_tun.h`, `linux/sockios.h`, `linux/ethtool.h`.
mod tun {
    use super::{AsRawFd, BorrowedFd, OwnedFd, io};
    use crate::sys;
    use rustix::{io::Errno, net};

    const SIOCGIFFLAGS: u64 = 0x8913;
    const SIOCGIFMTU: u64 = 0x8921;
    const SIOCETHTOOL: u64 = 0x8946;
    const TUNSETIFF: u64 = 0x4004_54ca;
    const TUNGETIFF: u64 = 0x8004_54d2;
    const IFF_UP: u16 = 1;
    const IFF_TAP: u16 = 2;
    const IFF_NO_PI: u16 = 0x1000;
    const ETHTOOL_SGSO: u32 = 0x24;
    const ETHTOOL_SGRO: u32 = 0x2c;

    /// `struct ifreq`: a name and a union of 24 bytes.
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; 16],
        data: [u64; 3],
    }

    impl InterfaceRequest {
        fn new(name: &str) -> Self {
            let mut request = Self { name: [0; 16], data: [0; 3] };
            let length = name.len().min(15);
            request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
            request
        }

        /// The union as a 16-bit number: flags.
        fn flags(&self) -> u16 {
            let bytes = self.data[0].to_ne_bytes();
            u16::from_ne_bytes([bytes[0], bytes[1]])
        }

        /// The union as a 32-bit number: MTU.
        fn number(&self) -> i32 {
            let bytes = self.data[0].to_ne_bytes();
            i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }

        fn ioctl(&mut self, descriptor: BorrowedFd<'_>, request: u64) -> Result<(), Errno> {
            const IOCTL: u64 = 16;
            let fd = u64::from(descriptor.as_raw_fd().cast_unsigned());
            // SAFETY: every request made here takes an ifreq, which `self` is, 40 bytes long; for SIOCETHTOOL its
            // pointer is valid (see there).
            let result =
                unsafe { sys::syscall(IOCTL, [fd, request, std::ptr::from_mut(self) as u64, 0, 0, 0]) };
            sys::check(result).map(|_| ())
        }
    }

    /// Any socket serves to ask for interfaces.
    fn socket() -> Result<OwnedFd, Errno> {
        net::socket_with(net::AddressFamily::UNIX, net::SocketType::DGRAM, net::SocketFlags::CLOEXEC, None)
    }

    pub struct Flags {
        pub up: bool,
    }

    pub fn interface_flags(name: &str) -> Result<Flags, Errno> {
        use std::os::fd::AsFd;
        let mut request = InterfaceRequest::new(name);
        request.ioctl(socket()?.as_fd(), SIOCGIFFLAGS)?;
        Ok(Flags { up: request.flags() & IFF_UP != 0 })
    }

    pub fn mtu(name: &str) -> io::Result<u16> {
        use std::os::fd::AsFd;
        let mut request = InterfaceRequest::new(name);
        request.ioctl(socket()?.as_fd(), SIOCGIFMTU)?;
        u16::try_from(request.number()).map_err(|_| io::Error::other("it does not fit into 16 bits"))
    }

    /// Makes an open `/dev/net/tun` the tap `name`.
    pub fn attach(descriptor: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
        let mut request = InterfaceRequest::new(name);
        request.data[0] = u64::from(IFF_TAP | IFF_NO_PI);
        request.ioctl(descriptor, TUNSETIFF)
    }

    /// The name of the tap behind a descriptor.
    pub fn name(descriptor: BorrowedFd<'_>) -> io::Result<String> {
        let mut request = InterfaceRequest::new("");
        request.ioctl(descriptor, TUNGETIFF)?;
        let end = request.name.iter().position(|&b| b == 0).unwrap_or(16);
        Ok(String::from_utf8_lossy(&request.name[..end]).into_owned())
    }

    /// Switches off generic receive and segmentation offload.
    pub fn switch_offloads_off(name: &str) -> io::Result<()> {
        use std::os::fd::AsFd;
        let socket = socket()?;
        for command in [ETHTOOL_SGRO, ETHTOOL_SGSO] {
            // struct ethtool_value: command, value.
            let value = [command, 0_u32];
            let mut request = InterfaceRequest::new(name);
            request.data[0] = sys::address_of(&value);
            request.ioctl(socket.as_fd(), SIOCETHTOOL)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_mac_is_local_and_unicast() {
        for _ in 0..100 {
            assert_eq!(random_mac().unwrap().0[0] & 3, 2);
        }
    }

    #[test]
    fn missing_tap_is_an_error_and_not_created() {
        let error = NetDevice::new("nabla-none0").open_net().unwrap_err();
        assert!(matches!(error.kind, NetErrorKind::NotFound), "{error}");
        assert!(matches!(NetDevice::new("").open_net().unwrap_err().kind, NetErrorKind::Name));
        assert!(matches!(NetDevice::new("tap%d").open_net().unwrap_err().kind, NetErrorKind::Name));
    }

    #[test]
    fn another_interface_is_no_tap() {
        let error = NetDevice::new("lo").open_net().unwrap_err();
        assert!(!matches!(error.kind, NetErrorKind::NotFound | NetErrorKind::Name), "{error}");
    }
}
