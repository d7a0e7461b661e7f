//! The application manifest (`mft_abi.h`): a table of the devices that a guest declares.

use core::mem::{offset_of, size_of};

/// The only version of the manifest.
pub const VERSION: u32 = 1;
/// Most entries of a manifest, including the reserved first one.
pub const MAX_ENTRIES: u32 = 64;
/// Bytes of a name with its NUL.
pub const NAME_SIZE: usize = 68;
/// Most characters of a name.
pub const NAME_MAX: usize = 67;

/// Type of a block device.
pub const TYPE_BLOCK: u32 = 1;
/// Type of a network device.
pub const TYPE_NET: u32 = 2;
/// Type of the first entry, which is no device. Types from here on are ignored by monitors.
pub const TYPE_RESERVED: u32 = 1 << 30;

/// Start of a manifest; [`Entry`] repeats `entries` times after it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// Number of entries, 1 to [`MAX_ENTRIES`].
    pub entries: u32,
}

/// One entry of a manifest.
///
/// The two C unions are kept as integers with typed accessors, so that no reader needs `unsafe`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct Entry {
    /// NUL-terminated name.
    pub name: [u8; NAME_SIZE],
    /// `TYPE_*`.
    pub kind: u32,
    /// First word of the device's properties: the capacity, or the MAC address and the MTU.
    pub properties0: u64,
    /// Second word of the device's properties: the block size in its low 16 bits.
    pub properties1: u64,
    /// What the device is on the host: on `spt` the descriptor in the low 32 bits.
    pub backend: u64,
    /// 1 when the device is attached; must be 0 in a file.
    pub attached: u8,
    /// Zero.
    pub padding: [u8; 7],
}

impl Entry {
    /// The reserved first entry.
    pub const RESERVED: Self = Self::new(TYPE_RESERVED, "");

    /// An unattached entry. Panics (at compile time in a constant) when `name` is longer than [`NAME_MAX`].
    #[must_use]
    pub const fn new(kind: u32, name: &str) -> Self {
        let bytes = name.as_bytes();
        assert!(bytes.len() <= NAME_MAX, "device name is longer than 67 bytes");
        let mut padded = [0; NAME_SIZE];
        let mut i = 0;
        while i < bytes.len() {
            padded[i] = bytes[i];
            i += 1;
        }
        Self { name: padded, kind, properties0: 0, properties1: 0, backend: 0, attached: 0, padding: [0; 7] }
    }

    /// Capacity in bytes of a block device.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.properties0
    }

    /// Block size in bytes of a block device.
    #[must_use]
    pub const fn block_size(&self) -> u16 {
        (self.properties1 & 0xffff) as u16
    }

    /// MAC address of a network device.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        let b = self.properties0.to_le_bytes();
        [b[0], b[1], b[2], b[3], b[4], b[5]]
    }

    /// MTU in bytes of a network device.
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        (self.properties0 >> 48) as u16
    }

    /// The host's descriptor of the device (`spt`).
    #[must_use]
    pub const fn descriptor(&self) -> i32 {
        let b = self.backend.to_le_bytes();
        i32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }

    /// The name without its NUL and what follows it.
    #[must_use]
    pub fn name_bytes(&self) -> &[u8] {
        let end = self.name.iter().position(|&b| b == 0).unwrap_or(NAME_SIZE);
        &self.name[..end]
    }

    /// The same entry, attached as a block device of `capacity` bytes in blocks of `block_size`.
    #[must_use]
    pub const fn attached_block(mut self, capacity: u64, block_size: u16, descriptor: i32) -> Self {
        self.properties0 = capacity;
        self.properties1 = block_size as u64;
        self.backend = descriptor.cast_unsigned() as u64;
        self.attached = 1;
        self
    }

    /// The same entry, attached as a network device.
    #[must_use]
    pub const fn attached_net(mut self, mac: [u8; 6], mtu: u16, descriptor: i32) -> Self {
        let m = mtu.to_le_bytes();
        self.properties0 = u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], m[0], m[1]]);
        self.properties1 = 0;
        self.backend = descriptor.cast_unsigned() as u64;
        self.attached = 1;
        self
    }
}

const _: () = {
    assert!(size_of::<Header>() == 8);
    assert!(size_of::<Entry>() == 104);
    assert!(offset_of!(Entry, kind) == 68);
    assert!(offset_of!(Entry, properties0) == 72);
    assert!(offset_of!(Entry, properties1) == 80);
    assert!(offset_of!(Entry, backend) == 88);
    assert!(offset_of!(Entry, attached) == 96);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_properties_are_mac_then_mtu() {
        let entry = Entry::new(TYPE_NET, "n").attached_net([1, 2, 3, 4, 5, 6], 0x0102, 7);
        assert_eq!(entry.properties0.to_le_bytes(), [1, 2, 3, 4, 5, 6, 0x02, 0x01]);
        assert_eq!((entry.mac(), entry.mtu(), entry.descriptor()), ([1, 2, 3, 4, 5, 6], 0x0102, 7));
    }

    #[test]
    fn block_properties_are_capacity_then_block_size() {
        let entry = Entry::new(TYPE_BLOCK, "b").attached_block(1 << 40, 4096, -1);
        assert_eq!((entry.capacity(), entry.block_size(), entry.descriptor()), (1 << 40, 4096, -1));
        assert_eq!(entry.backend, 0xffff_ffff);
    }

    #[test]
    fn name_bytes_stop_at_the_nul() {
        assert_eq!(Entry::new(TYPE_NET, "service0").name_bytes(), b"service0");
        assert_eq!(Entry::RESERVED.name_bytes(), b"");
    }
}
