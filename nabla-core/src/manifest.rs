//! The manifest: which devices a guest declares, and what a monitor attached to them.

use crate::abi::mft;
use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use thiserror::Error;
use zerocopy::{FromBytes, IntoBytes};

/// The manifest of a guest.
///
/// Parsed from the note of an image, then filled in by [`Manifest::attach`], then encoded for the guest.
/// The index of a device in the manifest is the handle by which the guest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Slot>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    raw: mft::Entry,
    attachment: Option<Attachment>,
}

/// A device that a guest declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Index in the manifest: the guest's handle.
    pub index: usize,
    /// Its name.
    pub name: DeviceName,
    /// What it is.
    pub kind: DeviceKind,
    /// What is attached to it.
    pub attachment: Option<Attachment>,
}

/// The kind of a declared device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// `BLOCK_BASIC`.
    Block,
    /// `NET_BASIC`.
    Net,
    /// A type that no tender knows. A guest that declares one cannot run, since every device must be attached.
    Unknown(u32),
}

impl DeviceKind {
    const fn from_raw(raw: u32) -> Self {
        match raw {
            mft::TYPE_BLOCK => Self::Block,
            mft::TYPE_NET => Self::Net,
            other => Self::Unknown(other),
        }
    }

    /// The name that Solo5's tools print.
    #[must_use]
    pub const fn solo5_name(self) -> &'static str {
        match self {
            Self::Block => "BLOCK_BASIC",
            Self::Net => "NET_BASIC",
            Self::Unknown(_) => "<undefined type>",
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block => f.write_str("block"),
            Self::Net => f.write_str("net"),
            Self::Unknown(raw) => write!(f, "unknown type {raw}"),
        }
    }
}

/// The name of a device: up to 67 bytes without NUL. Solo5's tools make alphanumeric names only, but tenders
/// take any bytes; what is no UTF-8 is shown with replacement characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DeviceName(Vec<u8>);

impl DeviceName {
    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether Solo5's `gen-manifest` could have made it: 1 to 67 ASCII letters and digits.
    #[must_use]
    pub fn is_alphanumeric(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(u8::is_ascii_alphanumeric)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name from a hostile file must not reach a terminal with its control characters.
        f.write_str(&String::from_utf8_lossy(&self.0).escape_debug().to_string())
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl PartialEq<str> for DeviceName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// What a monitor attaches to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A disk.
    Block {
        /// Size in bytes: a multiple of `block_size`, and not 0.
        capacity: u64,
        /// Bytes of a block: see [`block_size_is_valid`].
        block_size: u16,
        /// The descriptor in the guest's process (`spt`), or -1.
        descriptor: i32,
    },
    /// A network interface.
    Net {
        /// MAC address.
        mac: [u8; 6],
        /// MTU in bytes.
        mtu: u16,
        /// The descriptor in the guest's process (`spt`), or -1.
        descriptor: i32,
    },
}

/// Whether a block device may have blocks of `size` bytes: a power of two from 512 to 32768 (the ABI has 16 bits
/// for it).
#[must_use]
pub const fn block_size_is_valid(size: u64) -> bool {
    size >= 512 && size <= 32768 && size.is_power_of_two()
}

/// What can be wrong with a manifest or with what is attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is shorter than its header.
    #[error("the manifest has {size} bytes, and its header alone needs 8")]
    TooShort {
        /// Bytes there.
        size: usize,
    },
    /// `version` is not 1.
    #[error("the manifest's version is {version}, and only 1 is known")]
    Version {
        /// Value of the field.
        version: u32,
    },
    /// `entries` is not 1 to 64.
    #[error("the manifest's number of entries is {entries}, and must be 1 to 64")]
    EntryCount {
        /// Value of the field.
        entries: u32,
    },
    /// The size is not what `entries` implies.
    #[error("the manifest has {size} bytes, and its {entries} entries need exactly {expected}")]
    Size {
        /// Bytes there.
        size: usize,
        /// Value of `entries`.
        entries: u32,
        /// Bytes needed.
        expected: usize,
    },
    /// Entry 0 is not the reserved one.
    #[error("entry 0 of the manifest has type {kind:#x}, and must have the reserved type 0x40000000")]
    FirstNotReserved {
        /// Its type.
        kind: u32,
    },
    /// Entry 0 has a name.
    #[error("entry 0 of the manifest has a name, and must have none")]
    FirstNamed,
    /// The last byte of a name is not NUL.
    #[error("the name of entry {index} of the manifest has no NUL at its end")]
    NameNotTerminated {
        /// Index of the entry.
        index: usize,
    },
    /// The file claims that a device is already attached.
    #[error("`attached` of entry {index} of the manifest is {value}, and must be 0 in a file")]
    AlreadyAttached {
        /// Index of the entry.
        index: usize,
        /// Value of the field.
        value: u8,
    },
    /// A device was to be declared under a name that does not fit.
    #[error("the name of device {index} has more than 67 bytes or contains a NUL byte")]
    Name {
        /// Index that the device would have.
        index: usize,
    },
    /// A device was to be attached to an entry that does not exist or has another kind.
    #[error("entry {index} of the manifest is no {kind} device")]
    NoSuchDevice {
        /// Index asked for.
        index: usize,
        /// Kind asked for.
        kind: DeviceKind,
    },
    /// A device was attached twice.
    #[error("device '{name}' is attached twice")]
    AttachedTwice {
        /// Its name.
        name: DeviceName,
    },
    /// A block size is not allowed.
    #[error("device '{name}': block size {block_size} is not a power of two from 512 to 32768")]
    BlockSize {
        /// Name of the device.
        name: DeviceName,
        /// The block size asked for.
        block_size: u16,
    },
    /// A disk is not a whole number of blocks, or empty.
    #[error(
        "device '{name}': a disk of {capacity} bytes is not a whole number (1 or more) of blocks of {block_size}"
    )]
    Capacity {
        /// Name of the device.
        name: DeviceName,
        /// Bytes of the disk.
        capacity: u64,
        /// Bytes of a block.
        block_size: u16,
    },
}

impl Manifest {
    /// A manifest that declares `devices`, in this order, from index 1 on.
    ///
    /// # Errors
    ///
    /// [`ManifestError::EntryCount`] for more than 63 devices, [`ManifestError::Name`] for a name of more than 67
    /// bytes or with a NUL in it.
    pub fn new<'a>(devices: impl IntoIterator<Item = (DeviceKind, &'a str)>) -> Result<Self, ManifestError> {
        let mut entries = alloc::vec![Slot { raw: mft::Entry::RESERVED, attachment: None }];
        for (index, (kind, name)) in (1..=mft::MAX_ENTRIES as usize).zip(devices) {
            let raw = match kind {
                DeviceKind::Block => mft::TYPE_BLOCK,
                DeviceKind::Net => mft::TYPE_NET,
                DeviceKind::Unknown(raw) => raw,
            };
            if name.len() > mft::NAME_MAX || name.contains('\0') {
                return Err(ManifestError::Name { index });
            }
            entries.push(Slot { raw: mft::Entry::new(raw, name), attachment: None });
        }
        match u32::try_from(entries.len()) {
            Ok(n) if n <= mft::MAX_ENTRIES => Ok(Self { entries }),
            n => Err(ManifestError::EntryCount { entries: n.unwrap_or(u32::MAX) }),
        }
    }

    /// Parses the content of a manifest note and checks all that Solo5's `mft_validate` checks.
    ///
    /// # Errors
    ///
    /// The first thing found wrong, by field and value.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let Ok((header, rest)) = mft::Header::read_from_prefix(bytes) else {
            return Err(ManifestError::TooShort { size: bytes.len() });
        };
        let mft::Header { version, entries } = header;
        if version != mft::VERSION {
            return Err(ManifestError::Version { version });
        }
        if !(1..=mft::MAX_ENTRIES).contains(&entries) {
            return Err(ManifestError::EntryCount { entries });
        }
        let expected = size_of::<mft::Header>() + entries as usize * size_of::<mft::Entry>();
        if bytes.len() != expected {
            return Err(ManifestError::Size { size: bytes.len(), entries, expected });
        }
        let entries: Vec<Slot> = rest
            .chunks_exact(size_of::<mft::Entry>())
            .filter_map(|chunk| mft::Entry::read_from_bytes(chunk).ok())
            .map(|raw| Slot { raw, attachment: None })
            .collect();
        for (index, Slot { raw, .. }) in entries.iter().enumerate() {
            if raw.name[mft::NAME_MAX] != 0 {
                return Err(ManifestError::NameNotTerminated { index });
            }
            if raw.attached != 0 {
                return Err(ManifestError::AlreadyAttached { index, value: raw.attached });
            }
        }
        let first = &entries[0].raw;
        if first.kind != mft::TYPE_RESERVED {
            return Err(ManifestError::FirstNotReserved { kind: first.kind });
        }
        if first.name[0] != 0 {
            return Err(ManifestError::FirstNamed);
        }
        Ok(Self { entries })
    }

    /// The declared devices in order. Reserved entries are left out.
    pub fn devices(&self) -> impl Iterator<Item = Device> + '_ {
        self.entries.iter().enumerate().filter(|(_, slot)| slot.raw.kind < mft::TYPE_RESERVED).map(
            |(index, slot)| Device {
                index,
                name: DeviceName(slot.raw.name_bytes().to_vec()),
                kind: DeviceKind::from_raw(slot.raw.kind),
                attachment: slot.attachment,
            },
        )
    }

    /// The device of `kind` called `name`; the first one, as for the guest, when several have it.
    #[must_use]
    pub fn find(&self, kind: DeviceKind, name: &str) -> Option<Device> {
        self.devices().find(|device| device.kind == kind && device.name == *name)
    }

    /// Number of entries, with the reserved ones.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Attaches a device.
    ///
    /// # Errors
    ///
    /// When entry `index` is no device of that kind or already attached, or when block size and capacity of a
    /// disk do not fit together.
    pub fn attach(&mut self, index: usize, attachment: Attachment) -> Result<(), ManifestError> {
        let kind = match attachment {
            Attachment::Block { .. } => DeviceKind::Block,
            Attachment::Net { .. } => DeviceKind::Net,
        };
        let slot = self
            .entries
            .get_mut(index)
            .filter(|slot| DeviceKind::from_raw(slot.raw.kind) == kind)
            .ok_or(ManifestError::NoSuchDevice { index, kind })?;
        let name = || DeviceName(slot.raw.name_bytes().to_vec());
        if slot.attachment.is_some() {
            return Err(ManifestError::AttachedTwice { name: name() });
        }
        if let Attachment::Block { capacity, block_size, .. } = attachment {
            if !block_size_is_valid(u64::from(block_size)) {
                return Err(ManifestError::BlockSize { name: name(), block_size });
            }
            if capacity == 0 || !capacity.is_multiple_of(u64::from(block_size)) {
                return Err(ManifestError::Capacity { name: name(), capacity, block_size });
            }
        }
        slot.attachment = Some(attachment);
        Ok(())
    }

    /// Size in bytes of the encoded manifest.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        size_of::<mft::Header>() + self.entries.len() * size_of::<mft::Entry>()
    }

    /// The manifest as the guest reads it. Whatever the file had in the fields that a monitor fills in is
    /// replaced.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_size());
        let entries = u32::try_from(self.entries.len()).unwrap_or(mft::MAX_ENTRIES);
        bytes.extend_from_slice(mft::Header { version: mft::VERSION, entries }.as_bytes());
        for slot in &self.entries {
            let bare = mft::Entry { name: slot.raw.name, kind: slot.raw.kind, ..mft::Entry::new(0, "") };
            let entry = match slot.attachment {
                None => bare,
                Some(Attachment::Block { capacity, block_size, descriptor }) => {
                    bare.attached_block(capacity, block_size, descriptor)
                }
                Some(Attachment::Net { mac, mtu, descriptor }) => bare.attached_net(mac, mtu, descriptor),
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn two_devices() -> Manifest {
        Manifest::new([(DeviceKind::Block, "storage"), (DeviceKind::Net, "service0")]).unwrap()
    }

    #[test]
    fn encode_then_parse_gives_the_same_devices() {
        let manifest = two_devices();
        let parsed = Manifest::parse(&manifest.encode()).unwrap();
        assert_eq!(parsed, manifest);
        let names: Vec<_> = parsed.devices().map(|d| (d.index, d.name.to_string(), d.kind)).collect();
        assert_eq!(
            names,
            [(1, "storage".into(), DeviceKind::Block), (2, "service0".into(), DeviceKind::Net)]
        );
    }

    #[test]
    fn every_wrong_field_has_its_own_error() {
        let good = two_devices().encode();
        let with = |offset: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[offset..offset + bytes.len()].copy_from_slice(bytes);
            Manifest::parse(&bad).unwrap_err()
        };
        let entry = |i: usize| 8 + i * 104;
        assert_eq!(Manifest::parse(&good[..7]), Err(ManifestError::TooShort { size: 7 }));
        assert_eq!(with(0, &2_u32.to_le_bytes()), ManifestError::Version { version: 2 });
        assert_eq!(with(4, &0_u32.to_le_bytes()), ManifestError::EntryCount { entries: 0 });
        assert_eq!(with(4, &65_u32.to_le_bytes()), ManifestError::EntryCount { entries: 65 });
        assert_eq!(
            with(4, &4_u32.to_le_bytes()),
            ManifestError::Size { size: 8 + 3 * 104, entries: 4, expected: 8 + 4 * 104 }
        );
        assert_eq!(with(entry(0), b"x"), ManifestError::FirstNamed);
        assert_eq!(with(entry(0) + 68, &[1, 0, 0, 0]), ManifestError::FirstNotReserved { kind: 1 });
        assert_eq!(with(entry(2) + 67, b"x"), ManifestError::NameNotTerminated { index: 2 });
        assert_eq!(with(entry(1) + 96, &[2]), ManifestError::AlreadyAttached { index: 1, value: 2 });
    }

    #[test]
    fn truncating_anywhere_is_an_error() {
        let good = two_devices().encode();
        for length in 0..good.len() {
            assert!(Manifest::parse(&good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn attach_checks_kind_block_size_and_capacity() {
        let mut manifest = two_devices();
        let disk = |capacity, block_size| Attachment::Block { capacity, block_size, descriptor: 3 };
        assert!(matches!(manifest.attach(2, disk(512, 512)), Err(ManifestError::NoSuchDevice { .. })));
        assert!(matches!(manifest.attach(0, disk(512, 512)), Err(ManifestError::NoSuchDevice { .. })));
        assert!(matches!(manifest.attach(99, disk(512, 512)), Err(ManifestError::NoSuchDevice { .. })));
        for block_size in [0, 1, 256, 513, 1000, 65535] {
            assert!(matches!(
                manifest.attach(1, disk(1 << 20, block_size)),
                Err(ManifestError::BlockSize { .. })
            ));
        }
        for capacity in [0, 1, 511, 513] {
            assert!(matches!(manifest.attach(1, disk(capacity, 512)), Err(ManifestError::Capacity { .. })));
        }
        manifest.attach(1, disk(1024, 512)).unwrap();
        assert!(matches!(manifest.attach(1, disk(1024, 512)), Err(ManifestError::AttachedTwice { .. })));
        let bytes = manifest.encode();
        let entry = mft::Entry::read_from_bytes(&bytes[8 + 104..8 + 208]).unwrap();
        assert_eq!(entry, mft::Entry::new(mft::TYPE_BLOCK, "storage").attached_block(1024, 512, 3));
    }

    #[test]
    fn encode_clears_what_the_file_had_in_the_monitors_fields() {
        let mut bytes = two_devices().encode();
        bytes[8 + 104 + 72..8 + 104 + 96].fill(0xaa);
        bytes[8 + 104 + 97..8 + 104 + 104].fill(0xaa);
        assert_eq!(Manifest::parse(&bytes).unwrap().encode(), two_devices().encode());
    }

    #[test]
    fn sixty_three_devices_fit_and_sixty_four_do_not() {
        let names: Vec<String> = (0..64).map(|i| alloc::format!("storage{i}")).collect();
        let devices = |n: usize| names[..n].iter().map(|name| (DeviceKind::Block, name.as_str()));
        assert_eq!(
            Manifest::parse(&Manifest::new(devices(63)).unwrap().encode()).unwrap().devices().count(),
            63
        );
        assert_eq!(Manifest::new(devices(64)), Err(ManifestError::EntryCount { entries: 65 }));
    }

    #[test]
    fn longest_name_fits_and_others_are_refused() {
        let with = |name: &str| Manifest::new([(DeviceKind::Net, "first"), (DeviceKind::Block, name)]);
        let longest = "x".repeat(67);
        assert!(with(&longest).unwrap().find(DeviceKind::Block, &longest).is_some());
        for name in ["x".repeat(68), "a\0b".into(), "\0".into()] {
            assert_eq!(with(&name), Err(ManifestError::Name { index: 2 }));
        }
    }

    #[test]
    fn block_sizes_are_powers_of_two_from_512_to_32768() {
        let valid: Vec<u64> = (0..=70000).filter(|&size| block_size_is_valid(size)).collect();
        assert_eq!(valid, [512, 1024, 2048, 4096, 8192, 16384, 32768]);
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        let name = DeviceName(vec![0x1b, b'[', 0xff]);
        assert_eq!(name.to_string(), "\\u{1b}[\u{fffd}");
        assert!(!name.is_alphanumeric());
    }
}
