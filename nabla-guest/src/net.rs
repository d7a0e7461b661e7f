//! Network devices.

use core::fmt;

use nabla_core::abi::mft::{Entry, TYPE_NET};

use crate::{
    boot::{self, AcquireError},
    sys::{self, Failure},
};

/// A network device. It carries Ethernet frames, without their checksum.
///
/// A handle is nothing but a reference to the device, so there can be several for one.
#[derive(Clone, Copy)]
pub struct Net {
    index: usize,
    entry: &'static Entry,
}

/// Reading or writing a frame failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetError {
    /// The device does not take a frame at the moment.
    Busy,
    /// The host could not do it. Hosts do not say why: among the reasons are an interface that is down, and a
    /// frame that is shorter than an Ethernet header.
    Io,
}

impl Net {
    /// The bytes of an Ethernet header, which [`Net::mtu`] does not count.
    pub const HEADER_LEN: usize = 14;

    /// The network device that the guest's [`entry!`](crate::entry!) declares as `name`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`] when there is no network device of this name.
    pub fn acquire(name: &str) -> Result<Self, AcquireError> {
        boot::device(name, TYPE_NET).map(|(index, entry)| Self { index, entry })
    }

    /// The MAC address of the device.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.entry.mac()
    }

    /// The most bytes of payload in a frame. The longest frame has [`Net::HEADER_LEN`] more.
    #[must_use]
    pub fn mtu(&self) -> usize {
        usize::from(self.entry.mtu())
    }

    /// Reads a frame and returns its length in bytes, or `None` when there is no frame now.
    ///
    /// A frame that is longer than `frame` is cut off. [`yield_until`](crate::yield_until) waits for frames.
    ///
    /// # Errors
    ///
    /// [`NetError::Io`].
    pub fn read(&self, frame: &mut [u8]) -> Result<Option<usize>, NetError> {
        match sys::net_read(self.index, self.entry, frame) {
            Ok(len) => Ok(Some(len)),
            Err(Failure::Again) => Ok(None),
            Err(Failure::Failed) => Err(NetError::Io),
        }
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// [`NetError`].
    pub fn write(&self, frame: &[u8]) -> Result<(), NetError> {
        sys::net_write(self.index, self.entry, frame).map_err(|failure| match failure {
            Failure::Again => NetError::Busy,
            Failure::Failed => NetError::Io,
        })
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("index", &self.index)
            .field("mac", &self.mac())
            .field("mtu", &self.mtu())
            .finish()
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the network device does not take a frame at the moment",
            Self::Io => "the host failed to transfer a frame",
        })
    }
}

impl core::error::Error for NetError {}
