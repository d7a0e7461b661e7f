//! What a monitor puts into a guest's memory besides the image.

use crate::{
    abi::{self, PAGE_SIZE},
    cmdline::CommandLine,
    image::Image,
    manifest::Manifest,
    size::ByteSize,
    target::Abi,
};
use alloc::vec::Vec;
use thiserror::Error;
use zerocopy::IntoBytes;

/// Why a memory size does not suit an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The image does not fit.
    #[error("the image ends at {end:#x}, so {size} of memory is too little: it needs at least {minimum}")]
    TooSmall {
        /// End of the image.
        end: u64,
        /// The memory given.
        size: ByteSize,
        /// The least memory the image and its bindings start with.
        minimum: ByteSize,
    },
    /// The size is not a multiple of the ABI's unit.
    #[error("{size} of memory is not a multiple of {unit}, which ABI {abi} requires")]
    Unaligned {
        /// The memory given.
        size: ByteSize,
        /// What it must be a multiple of.
        unit: ByteSize,
        /// The ABI.
        abi: Abi,
    },
    /// The size is more than the ABI can address.
    #[error("{size} of memory is more than the {max} that ABI {abi} can address")]
    TooLarge {
        /// The memory given.
        size: ByteSize,
        /// The most memory.
        max: ByteSize,
        /// The ABI.
        abi: Abi,
    },
}

/// Checks that an image can run in `size` of memory: a multiple of 4 KiB (2 MiB for virtual machines), the image
/// inside, and within what the ABI can address (64 TiB for processes, 4 GiB for virtual machines).
///
/// # Errors
///
/// What does not fit.
pub fn check_memory(image: &Image, size: ByteSize) -> Result<(), MemoryError> {
    let abi = image.abi();
    let (unit, max) = (abi.memory_unit(), abi.memory_max());
    // One page for the stack is the least that makes sense; what the bindings need beyond is theirs to say.
    if size.as_u64() < image.end() + PAGE_SIZE {
        return Err(MemoryError::TooSmall { end: image.end(), size, minimum: image.minimum_memory() });
    }
    if !size.as_u64().is_multiple_of(unit.as_u64()) {
        return Err(MemoryError::Unaligned { size, unit, abi });
    }
    if size > max {
        return Err(MemoryError::TooLarge { size, max, abi });
    }
    Ok(())
}

/// Bytes that a monitor copies to an address in the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootArea {
    /// Where they go; also what the entry point gets in `rdi`.
    pub address: u64,
    /// Boot info, manifest and command line, one after the other.
    pub bytes: Vec<u8>,
}

/// Manifest and command line after a boot info of `info_size` bytes: their addresses, and their bytes.
fn behind(address: u64, info_size: usize, manifest: &Manifest, cmdline: &CommandLine) -> (u64, u64, Vec<u8>) {
    let mft = address + info_size as u64;
    let mut bytes = manifest.encode();
    let cmdline_address = mft + bytes.len() as u64;
    bytes.extend_from_slice(cmdline.as_bytes());
    bytes.push(0);
    (mft, cmdline_address, bytes)
}

/// Boot info of `spt` v1 and v2.
pub mod spt {
    use super::{BootArea, CommandLine, IntoBytes, Manifest, abi, behind};

    /// The boot area for a guest with `mem_size` bytes of memory, counted from address 0, whose image ends at
    /// `kernel_end`. `epollfd` and `timerfd` are descriptors in the guest's process, as are those of the devices
    /// that `manifest` has attached.
    ///
    /// Source: `spt_abi.h`; boot info at [`BOOT_INFO_BASE`](abi::spt::BOOT_INFO_BASE), manifest and command line
    /// after it.
    #[must_use]
    pub fn boot_area(
        mem_size: u64,
        kernel_end: u64,
        manifest: &Manifest,
        cmdline: &CommandLine,
        epollfd: i32,
        timerfd: i32,
    ) -> BootArea {
        let address = abi::spt::BOOT_INFO_BASE;
        let size = size_of::<abi::spt::BootInfo>();
        let (mft, cmdline, tail) = behind(address, size, manifest, cmdline);
        let info = abi::spt::BootInfo { mem_size, kernel_end, cmdline, mft, epollfd, timerfd };
        let mut bytes = info.as_bytes().to_vec();
        bytes.extend_from_slice(&tail);
        BootArea { address, bytes }
    }

    /// Address after the largest possible boot area; from here to [`abi::GUEST_MIN_BASE`] nothing is used.
    pub const BOOT_AREA_END: u64 = abi::spt::BOOT_INFO_BASE + 0x5000;

    const _: () = assert!(
        size_of::<abi::spt::BootInfo>()
            + size_of::<abi::mft::Header>()
            + abi::mft::MAX_ENTRIES as usize * size_of::<abi::mft::Entry>()
            + abi::CMDLINE_SIZE
            <= 0x5000
    );
}

/// Boot info of `hvt` v1 and v2. Where it lies is the monitor's affair; this is where ours does.
pub mod hvt {
    use super::{BootArea, CommandLine, IntoBytes, Manifest, abi, behind};

    /// Address of the boot info.
    pub const BOOT_INFO_BASE: u64 = 0x1_0000;

    /// The boot area for a guest with `mem_size` bytes of memory whose image ends at `kernel_end`, on a processor
    /// whose time stamp counter runs at `cpu_cycle_freq` Hz.
    ///
    /// `net_ring` is the guest-physical address of the network ring, if the monitor offers one; it lies outside of
    /// `mem_size`.
    ///
    /// Source: `hvt_abi.h` of Solo5 0.11, which appended the last three fields; older guests do not look at them.
    #[must_use]
    pub fn boot_area(
        mem_size: u64,
        kernel_end: u64,
        cpu_cycle_freq: u64,
        manifest: &Manifest,
        cmdline: &CommandLine,
        net_ring: Option<u64>,
    ) -> BootArea {
        let size = size_of::<abi::hvt::BootInfo>();
        let (mft, cmdline, tail) = behind(BOOT_INFO_BASE, size, manifest, cmdline);
        let info = abi::hvt::BootInfo {
            mem_size,
            kernel_end,
            cpu_cycle_freq,
            cmdline,
            mft,
            host_features: if net_ring.is_some() { abi::hvt::FEATURE_RING_IO } else { 0 },
            guest_features: 0,
            net_ring: net_ring.unwrap_or(0),
        };
        let mut bytes = info.as_bytes().to_vec();
        bytes.extend_from_slice(&tail);
        BootArea { address: BOOT_INFO_BASE, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::DeviceKind;
    use zerocopy::FromBytes;

    #[test]
    fn spt_boot_area_points_into_itself() {
        let manifest = Manifest::new([(DeviceKind::Block, "storage")]).unwrap();
        let cmdline = CommandLine::from_args(["a", "b"]).unwrap();
        let area = spt::boot_area(1 << 29, 0x12_3000, &manifest, &cmdline, 4, 5);
        assert_eq!(area.address, 0x1_1000);
        let (info, _) = abi::spt::BootInfo::read_from_prefix(&area.bytes).unwrap();
        assert_eq!((info.mem_size, info.kernel_end, info.epollfd, info.timerfd), (1 << 29, 0x12_3000, 4, 5));
        let at = |address: u64| &area.bytes[usize::try_from(address - area.address).unwrap()..];
        assert_eq!(&at(info.mft)[..8 + 2 * 104], manifest.encode());
        assert_eq!(at(info.cmdline), b"a b\0");
        assert!(info.mft.is_multiple_of(8));
    }

    #[test]
    fn hvt_boot_area_offers_the_ring_only_when_there_is_one() {
        let manifest = Manifest::new([]).unwrap();
        let cmdline = CommandLine::default();
        for ring in [None, Some(0x4000_0000)] {
            let area = hvt::boot_area(1 << 30, 0x12_3000, 2_000_000_000, &manifest, &cmdline, ring);
            let (info, _) = abi::hvt::BootInfo::read_from_prefix(&area.bytes).unwrap();
            assert_eq!((info.host_features == 1, info.net_ring), (ring.is_some(), ring.unwrap_or(0)));
        }
    }
}
