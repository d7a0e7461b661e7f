//! Devices: what a guest can be given, and what it has been given.

use super::{BlockError, BlockInfo, NetInfo};
use nabla_core::{Attachment, Device, DeviceKind, Manifest};
use nabla_tap::TapError;
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use thiserror::Error;

/// Something that can be attached as a device: the settings of one kind of devices.
pub(crate) trait DeviceSource: fmt::Debug + Send {
    /// The kind that the guest must declare.
    fn kind(&self) -> DeviceKind;
    /// Opens, checks and locks it.
    fn open(self: Box<Self>) -> Result<OpenDevice, DeviceError>;
}

/// An opened device.
#[derive(Debug)]
pub(crate) struct OpenDevice {
    pub descriptor: OwnedFd,
    pub properties: DeviceProperties,
}

/// A device that a guest has, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its index in the guest's manifest, which is the guest's handle for it.
    pub index: usize,
    /// The name that the guest has for it.
    pub name: String,
    /// What it is.
    pub properties: DeviceProperties,
}

/// What a device is, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceProperties {
    /// A block device.
    Block(BlockInfo),
    /// A network device.
    Net(NetInfo),
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index: _, name, properties } = self;
        match properties {
            DeviceProperties::Block(block) => write!(f, "{name}: {block}"),
            DeviceProperties::Net(net) => write!(f, "{name}: {net}"),
        }
    }
}

/// How a guest, or the monitor for it, uses the descriptor of a device. The system call filters allow just that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// `pread64` and `pwrite64` of whole blocks within the capacity in bytes.
    Blocks { block_size: u16, capacity: u64 },
    /// `read` and `write` of one frame each; the guest can wait for it to be readable.
    Frames,
}

impl Access {
    /// Whether it is that of block devices.
    pub fn is_blocks(self) -> bool {
        match self {
            Self::Blocks { .. } => true,
            Self::Frames => false,
        }
    }

    /// Whether it is that of network devices, which are also waited for.
    pub fn is_frames(self) -> bool {
        match self {
            Self::Frames => true,
            Self::Blocks { .. } => false,
        }
    }
}

/// A device that is open and has its place in the guest's manifest.
#[derive(Debug)]
pub(crate) struct Attached {
    pub descriptor: OwnedFd,
    pub info: DeviceInfo,
}

impl Attached {
    /// How its descriptor is used.
    pub fn access(&self) -> Access {
        match &self.info.properties {
            DeviceProperties::Block(block) => block.access(),
            DeviceProperties::Net(_) => Access::Frames,
        }
    }

    /// What the manifest says of it. `descriptor` is its number in the guest's process.
    fn attachment(&self, descriptor: i32) -> Attachment {
        match &self.info.properties {
            DeviceProperties::Block(block) => block.attachment(descriptor),
            DeviceProperties::Net(net) => net.attachment(descriptor),
        }
    }
}

#[cfg(test)]
impl Attached {
    /// The device, open and in this place of some manifest.
    pub fn open(index: usize, source: impl DeviceSource + 'static) -> Self {
        let OpenDevice { descriptor, properties } = Box::new(source).open().unwrap();
        Self { descriptor, info: DeviceInfo { index, name: String::new(), properties } }
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The guest's manifest with everything attached. `number` gives the descriptor's number in the guest's process for the
/// device at each position in `devices`.
pub(crate) fn fill_in(bare: &Manifest, devices: &[Attached], number: impl Fn(usize) -> i32) -> Manifest {
    let mut manifest = bare.clone();
    for (position, device) in devices.iter().enumerate() {
        // Kinds, sizes and places were checked when the devices were opened.
        let attached = manifest.attach(device.info.index, device.attachment(number(position)));
        debug_assert_eq!(attached, Ok(()));
    }
    manifest
}

/// Finds the place of each device in the manifest and opens it. A device without a name is the only one of its kind.
/// Returns the devices in the order of the manifest.
pub(crate) fn attach(
    manifest: &Manifest,
    sources: Vec<(Option<String>, Box<dyn DeviceSource>)>,
) -> Result<Vec<Attached>, DeviceError> {
    // All places are found before anything is opened, since opening locks.
    let mut placed: Vec<(Device, Box<dyn DeviceSource>)> = Vec::new();
    for (name, source) in sources {
        let device = find(manifest, source.kind(), name)?;
        if placed.iter().any(|(other, _)| other.index == device.index) {
            return Err(DeviceError::AttachedTwice { kind: device.kind, name: device.name.to_string() });
        }
        placed.push((device, source));
    }
    let missing = |device: &Device| placed.iter().all(|(other, _)| other.index != device.index);
    if let Some(device) = manifest.devices().find(missing) {
        return Err(DeviceError::NotAttached { kind: device.kind, name: device.name.to_string() });
    }
    placed.sort_by_key(|(device, _)| device.index);
    let open = |(device, source): (Device, Box<dyn DeviceSource>)| {
        let OpenDevice { descriptor, properties } = source.open()?;
        let info = DeviceInfo { index: device.index, name: device.name.to_string(), properties };
        Ok(Attached { descriptor, info })
    };
    placed.into_iter().map(open).collect()
}

fn find(manifest: &Manifest, kind: DeviceKind, name: Option<String>) -> Result<Device, DeviceError> {
    if let Some(name) = name {
        return manifest.find(kind, &name).ok_or_else(|| DeviceError::NotDeclared {
            kind,
            name: Some(name),
            declared: declared(manifest, kind),
        });
    }
    let mut of_kind = manifest.devices().filter(|device| device.kind == kind);
    match (of_kind.next(), of_kind.next()) {
        (Some(device), None) => Ok(device),
        (None, _) => Err(DeviceError::NotDeclared { kind, name: None, declared: Vec::new() }),
        (Some(_), Some(_)) => Err(DeviceError::Ambiguous { kind, declared: declared(manifest, kind) }),
    }
}

fn declared(manifest: &Manifest, kind: DeviceKind) -> Vec<String> {
    manifest.devices().filter(|device| device.kind == kind).map(|device| device.name.to_string()).collect()
}

/// Why the devices of a guest could not be attached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The guest declares no such device.
    #[error("the guest declares no {kind} device{}", called(name.as_deref(), declared))]
    NotDeclared {
        /// The kind asked for.
        kind: DeviceKind,
        /// The name asked for.
        name: Option<String>,
        /// The names of those that it declares.
        declared: Vec<String>,
    },
    /// A device without a name was given, and the guest declares several of the kind.
    #[error("which {kind} device is meant must be said by name, since the guest declares {}", list(declared))]
    Ambiguous {
        /// The kind.
        kind: DeviceKind,
        /// The names of those that it declares.
        declared: Vec<String>,
    },
    /// A device was given twice.
    #[error("{kind} device '{name}' is attached twice")]
    AttachedTwice {
        /// The kind.
        kind: DeviceKind,
        /// Its name.
        name: String,
    },
    /// A device that the guest declares was not given.
    #[error(
        "{kind} device '{name}' is declared by the guest and not attached; every declared device must be"
    )]
    NotAttached {
        /// The kind.
        kind: DeviceKind,
        /// Its name.
        name: String,
    },
    /// A block device cannot be used.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A network device cannot be used.
    #[error(transparent)]
    Net(#[from] TapError),
}

fn called(name: Option<&str>, declared: &[String]) -> String {
    let called = name.map_or_else(String::new, |name| format!(" called '{name}'"));
    if declared.is_empty() { called } else { format!("{called}; it declares {}", list(declared)) }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}
