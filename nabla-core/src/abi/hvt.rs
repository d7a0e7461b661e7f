//! The `hvt` ABI, versions 1 and 2 (`hvt_abi.h`): the guest runs in a virtual machine and makes hypercalls.
//!
//! A hypercall is a 32-bit OUT of the guest-physical address of its structure to port
//! [`HYPERCALL_PORT_BASE`] + number.

use core::mem::{offset_of, size_of};

/// Versions of the ABI described here.
pub const VERSIONS: core::ops::RangeInclusive<u32> = 1..=2;

/// Port of hypercall 0.
pub const HYPERCALL_PORT_BASE: u16 = 0x500;
/// Port that wakes the host's side of the network ring.
pub const RING_KICK_PORT: u16 = 0x600;
/// Largest guest memory in bytes: hypercalls carry 32-bit addresses.
pub const MEMORY_MAX: u64 = 1 << 32;
/// Guest memory is a multiple of this many bytes.
pub const MEMORY_UNIT: u64 = 2 << 20;
/// Bytes that a monitor may read at [`Halt::cookie`].
pub const HALT_COOKIE_MAX: usize = 512;
/// Bit of `host_features` and `guest_features`: the network ring is there.
pub const FEATURE_RING_IO: u32 = 1;

/// What the entry point gets a pointer to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct BootInfo {
    /// Size of guest memory in bytes.
    pub mem_size: u64,
    /// First address after the loaded image.
    pub kernel_end: u64,
    /// Frequency of the time stamp counter in Hz.
    pub cpu_cycle_freq: u64,
    /// Address of the NUL-terminated command line.
    pub cmdline: u64,
    /// Address of the manifest.
    pub mft: u64,
    /// `FEATURE_*` that the monitor offers (since Solo5 0.11; older guests do not look here).
    pub host_features: u32,
    /// `FEATURE_*` that the guest takes.
    pub guest_features: u32,
    /// Address of the network ring, 0 when there is none.
    pub net_ring: u64,
}

/// Size of [`BootInfo`] before Solo5 0.11 appended the features.
pub const BOOT_INFO_BASE_SIZE: usize = 40;

/// Numbers of the hypercalls.
#[repr(u16)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hypercall {
    /// [`Walltime`].
    Walltime = 1,
    /// [`Puts`].
    Puts = 2,
    /// [`Poll`].
    Poll = 3,
    /// [`BlockIo`].
    BlockWrite = 4,
    /// [`BlockIo`].
    BlockRead = 5,
    /// [`NetIo`].
    NetWrite = 6,
    /// [`NetIo`].
    NetRead = 7,
    /// [`Halt`].
    Halt = 8,
}

impl Hypercall {
    /// The port that this hypercall is made on.
    #[must_use]
    pub const fn port(self) -> u16 {
        HYPERCALL_PORT_BASE + self as u16
    }

    /// The hypercall made on `port`, if there is one.
    #[must_use]
    pub const fn from_port(port: u16) -> Option<Self> {
        Some(match port.wrapping_sub(HYPERCALL_PORT_BASE) {
            1 => Self::Walltime,
            2 => Self::Puts,
            3 => Self::Poll,
            4 => Self::BlockWrite,
            5 => Self::BlockRead,
            6 => Self::NetWrite,
            7 => Self::NetRead,
            8 => Self::Halt,
            _ => return None,
        })
    }
}

/// Result of a device call: done.
pub const R_OK: i32 = 0;
/// Result of a device call: nothing there now, try again.
pub const R_AGAIN: i32 = 1;
/// Result of a device call: an argument is invalid.
pub const R_EINVAL: i32 = 2;
/// Result of a device call: it failed.
pub const R_EUNSPEC: i32 = 3;

/// Wall clock.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Walltime {
    /// Out: nanoseconds since 1970.
    pub nsecs: u64,
}

/// Console output.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Puts {
    /// In: address.
    pub data: u64,
    /// In: bytes.
    pub len: u64,
}

/// Wait until a network device is readable or time is over.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Poll {
    /// In: nanoseconds from now.
    pub timeout_nsecs: u64,
    /// Out: bit N is set when the device of manifest index N is readable.
    pub ready_set: u64,
    /// Out: number of ready devices.
    pub ret: i32,
    /// Zero.
    pub padding: u32,
}

/// Read or write of a block device.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct BlockIo {
    /// In: manifest index.
    pub handle: u64,
    /// In: byte offset on the device.
    pub offset: u64,
    /// In: address.
    pub data: u64,
    /// In: bytes; out: bytes read.
    pub len: u64,
    /// Out: `R_*`.
    pub ret: i32,
    /// Zero.
    pub padding: u32,
}

/// Read or write of one frame on a network device.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct NetIo {
    /// In: manifest index.
    pub handle: u64,
    /// In: address.
    pub data: u64,
    /// In: bytes; out: bytes read.
    pub len: u64,
    /// Out: `R_*`.
    pub ret: i32,
    /// Zero.
    pub padding: u32,
}

/// The end of the guest.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Halt {
    /// In: address of up to [`HALT_COOKIE_MAX`] bytes for the monitor's debugger, or 0.
    pub cookie: u64,
    /// In: exit status.
    pub exit_status: i32,
    /// Zero.
    pub padding: u32,
}

const _: () = {
    assert!(size_of::<BootInfo>() == 56);
    assert!(offset_of!(BootInfo, mft) == 32);
    assert!(offset_of!(BootInfo, host_features) == BOOT_INFO_BASE_SIZE);
    assert!(offset_of!(BootInfo, net_ring) == 48);
    assert!(size_of::<Walltime>() == 8);
    assert!(size_of::<Puts>() == 16);
    assert!(size_of::<Poll>() == 24 && offset_of!(Poll, ret) == 16);
    assert!(size_of::<BlockIo>() == 40 && offset_of!(BlockIo, ret) == 32);
    assert!(size_of::<NetIo>() == 32 && offset_of!(NetIo, ret) == 24);
    assert!(size_of::<Halt>() == 16 && offset_of!(Halt, exit_status) == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_hypercalls_are_a_bijection() {
        for port in 0..=u16::MAX {
            if let Some(call) = Hypercall::from_port(port) {
                assert_eq!(call.port(), port);
            }
        }
        assert_eq!(Hypercall::from_port(0x501), Some(Hypercall::Walltime));
        assert_eq!(Hypercall::from_port(0x508), Some(Hypercall::Halt));
        assert_eq!((0..=u16::MAX).filter_map(Hypercall::from_port).count(), 8);
    }
}
