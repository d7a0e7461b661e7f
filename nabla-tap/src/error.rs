//! Why a tap cannot be used.

use rustix::io::Errno;
use std::io;
use thiserror::Error;

/// Why a tap cannot be opened, created or used.
#[derive(Debug)]
pub struct TapError {
    /// Name of the interface, where it is known.
    pub name: Option<String>,
    /// What is wrong.
    pub kind: TapErrorKind,
}

impl std::fmt::Display for TapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "tap '{name}': {}", self.kind),
            None => write!(f, "the tap given as a descriptor: {}", self.kind),
        }
    }
}

impl std::error::Error for TapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The kind's own text is in this one's.
        std::error::Error::source(&self.kind)
    }
}

/// See [`TapError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TapErrorKind {
    /// No interface can be called that.
    #[error("no interface can be called that: a name has 1 to 15 bytes, without '/', ':', '%' and spaces")]
    Name,
    /// There is no such interface.
    #[error(
        "there is no such interface; create it with: ip tuntap add NAME mode tap user $USER && ip link set NAME up"
    )]
    NotFound,
    /// An interface has the name already.
    #[error("it exists already; delete it, or choose another name")]
    Exists,
    /// It is down.
    #[error("it is down; bring it up with: ip link set NAME up")]
    Down,
    /// It is an interface of another kind, or an open `/dev/net/tun` that is no tap yet.
    #[error("it is an interface, but no tap with a single queue and without packet information")]
    NotATap,
    /// Frames have a header of `struct virtio_net_hdr`, and it cannot be switched off.
    #[error("it was opened with IFF_VNET_HDR, a header before each frame; open it with IFF_TAP | IFF_NO_PI")]
    VirtioHeader,
    /// Frames have a header of `struct tun_pi`.
    #[error(
        "it was opened without IFF_NO_PI, with packet information before each frame; open it with IFF_TAP | IFF_NO_PI"
    )]
    PacketInformation,
    /// The kernel leaves segments or checksums to the guest, and does not let that be switched off.
    #[error("its offloads cannot be switched off, so frames would reach the guest unfinished")]
    Offloads {
        /// The system's reason. None when the kernel accepted it and they are still on.
        #[source]
        source: Option<io::Error>,
    },
    /// Another program has it open.
    #[error("it is in use by another guest or program")]
    Busy,
    /// It belongs to another user.
    #[error(
        "you may not open it: it belongs to another user, and that takes CAP_NET_ADMIN; let root give it to you with: ip tuntap add NAME mode tap user $USER"
    )]
    NotPermitted,
    /// It may not be created.
    #[error(
        "you may not create it: that takes CAP_NET_ADMIN in the user namespace that owns the network namespace, which root has"
    )]
    MayNotCreate,
    /// `/dev/net/tun` cannot be opened.
    #[error("/dev/net/tun cannot be opened{}", tun_hint(.source))]
    DevNetTun {
        /// The system's reason.
        source: io::Error,
    },
    /// It cannot be opened or created for another reason.
    #[error("it cannot be opened")]
    Open {
        /// The system's reason.
        source: io::Error,
    },
    /// A property of a new tap cannot be set.
    #[error("its {property} cannot be set")]
    Property {
        /// Owner, group, MTU or persistence.
        property: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The descriptor cannot be used.
    #[error("the descriptor cannot be used")]
    Descriptor {
        /// The system's reason.
        source: io::Error,
    },
    /// The MTU cannot be read. `NotFound` means that the tap is in another network namespace.
    #[error("its MTU cannot be read: it is in another network namespace, or gone; say the MTU")]
    Mtu {
        /// The system's reason.
        source: io::Error,
    },
    /// The MTU is more than a guest can be told.
    #[error("its MTU of {bytes} does not fit into 16 bits")]
    LargeMtu {
        /// The MTU.
        bytes: u32,
    },
    /// No random MAC address could be made for the guest.
    #[error("no random MAC address could be made")]
    Random {
        /// The system's reason.
        source: io::Error,
    },
}

impl TapErrorKind {
    pub(crate) fn of(self, name: &str) -> TapError {
        TapError { name: Some(name.to_owned()), kind: self }
    }
}

/// What helps with `/dev/net/tun`.
fn tun_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => "; this kernel needs CONFIG_TUN (modprobe tun)",
        Some(Errno::ACCESS) => {
            "; its file mode does not let you; most systems let everybody, since it is the tap's owner that counts: chmod 0666 /dev/net/tun"
        }
        _ => "",
    }
}
