//! The ABIs by name.

use crate::{
    abi::{self, PAGE_SIZE},
    elf::MAX_ADDRESS,
    size::ByteSize,
};
use alloc::string::{String, ToString};
use core::{fmt, str::FromStr};
use thiserror::Error;

/// Makes the type, the list of all and the names from one list, so that none is forgotten.
macro_rules! abis {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An interface between guest and monitor.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Abi {
            $($(#[$doc])* $variant,)*
        }

        impl Abi {
            /// Every ABI.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name that [`FromStr`] takes: `spt-v2`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

abis! {
    /// Virtual machine; Solo5 0.6 and 0.7.
    HvtV1 = "hvt-v1",
    /// Virtual machine; Solo5 0.8 and later.
    HvtV2 = "hvt-v2",
    /// Confined process; Solo5 0.6 and 0.7.
    SptV1 = "spt-v1",
    /// Confined process; Solo5 0.8 and later.
    SptV2 = "spt-v2",
    /// Virtual machine, before notes existed: `ukvm` of Solo5 0.3, `hvt` of 0.4.
    HvtWithoutNote = "hvt-without-note",
    /// Confined process, before notes existed: early 2019.
    SptWithoutNote = "spt-without-note",
    /// Virtual machine, `ukvm` of Solo5 0.2.
    Ukvm = "ukvm",
    /// IBM's fork of 2018: the guest calls the monitor through a function pointer.
    Nabla2018 = "nabla-2018",
}

impl Abi {
    /// Whether the guest needs a virtual machine; otherwise it is a confined process.
    #[must_use]
    pub const fn needs_kvm(self) -> bool {
        match self {
            Self::HvtV1 | Self::HvtV2 | Self::HvtWithoutNote | Self::Ukvm => true,
            Self::SptV1 | Self::SptV2 | Self::SptWithoutNote | Self::Nabla2018 => false,
        }
    }

    /// Guest memory is a multiple of this: 2 MiB for virtual machines, a page for processes.
    #[must_use]
    pub const fn memory_unit(self) -> ByteSize {
        ByteSize::bytes(if self.needs_kvm() { abi::hvt::MEMORY_UNIT } else { PAGE_SIZE })
    }

    /// The most memory that a guest can have: 4 GiB in a virtual machine, 64 TiB in a process.
    #[must_use]
    pub const fn memory_max(self) -> ByteSize {
        ByteSize::bytes(if self.needs_kvm() { abi::hvt::MEMORY_MAX } else { MAX_ADDRESS })
    }

    pub(crate) const fn has_note(self) -> bool {
        match self {
            Self::HvtV1 | Self::HvtV2 | Self::SptV1 | Self::SptV2 => true,
            Self::HvtWithoutNote | Self::SptWithoutNote | Self::Ukvm | Self::Nabla2018 => false,
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no [`Abi`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no ABI: use one of {list}", list = names())]
pub struct ParseAbiError(String);

fn names() -> String {
    Abi::ALL.map(Abi::name).join(", ")
}

impl FromStr for Abi {
    type Err = ParseAbiError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|abi| abi.name() == text).ok_or_else(|| ParseAbiError(text.to_string()))
    }
}

/// Name of an `abi_target`, as Solo5's tools print it.
#[must_use]
pub const fn target_name(target: u32) -> &'static str {
    match target {
        abi::TARGET_HVT => "hvt",
        abi::TARGET_SPT => "spt",
        abi::TARGET_VIRTIO => "virtio",
        abi::TARGET_MUEN => "muen",
        abi::TARGET_GENODE => "genode",
        abi::TARGET_XEN => "xen",
        _ => "unknown",
    }
}
