//! The `spt` ABI, versions 1 and 2 (`spt_abi.h`): the guest runs as ordinary user code in a confined process.
//!
//! The two versions have the same structures; version 2 is linked with bindings that set up thread-local
//! storage.

use core::mem::{offset_of, size_of};

/// Versions of the ABI described here.
pub const VERSIONS: core::ops::RangeInclusive<u32> = 1..=2;

/// Lowest address of guest memory. Nothing is mapped below it.
pub const MEMORY_BASE: u64 = 0x1_0000;
/// Address of [`BootInfo`].
pub const BOOT_INFO_BASE: u64 = MEMORY_BASE + 0x1000;

/// `data` field of the timer's event in the epoll set: `~1U` as an unsigned 64-bit number.
pub const TIMER_EVENT: u64 = 0xffff_fffe;

/// What the entry point gets a pointer to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "image",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
pub struct BootInfo {
    /// End of guest memory, in bytes from address 0.
    pub mem_size: u64,
    /// First address after the loaded image.
    pub kernel_end: u64,
    /// Address of the NUL-terminated command line.
    pub cmdline: u64,
    /// Address of the manifest.
    pub mft: u64,
    /// The epoll set to wait on: the timer and every network device.
    pub epollfd: i32,
    /// The timer descriptor in that set.
    pub timerfd: i32,
}

const _: () = {
    assert!(size_of::<BootInfo>() == 40);
    assert!(offset_of!(BootInfo, kernel_end) == 8);
    assert!(offset_of!(BootInfo, cmdline) == 16);
    assert!(offset_of!(BootInfo, mft) == 24);
    assert!(offset_of!(BootInfo, epollfd) == 32);
    assert!(offset_of!(BootInfo, timerfd) == 36);
};

/// The x86-64 system calls that an `spt` guest makes.
pub mod syscall {
    /// `read`: from a network device.
    pub const READ: u32 = 0;
    /// `write`: to the console or a network device.
    pub const WRITE: u32 = 1;
    /// `pread64`: one block.
    pub const PREAD64: u32 = 17;
    /// `pwrite64`: one block.
    pub const PWRITE64: u32 = 18;
    /// `arch_prctl`: set the base of FS.
    pub const ARCH_PRCTL: u32 = 158;
    /// `clock_gettime`: monotonic and wall clock.
    pub const CLOCK_GETTIME: u32 = 228;
    /// `exit_group`.
    pub const EXIT_GROUP: u32 = 231;
    /// `epoll_pwait`: wait for devices and the timer.
    pub const EPOLL_PWAIT: u32 = 281;
    /// `timerfd_settime`: arm the timer.
    pub const TIMERFD_SETTIME: u32 = 286;

    /// Console descriptor.
    pub const STDOUT: i32 = 1;
    /// First argument of `arch_prctl`.
    pub const ARCH_SET_FS: u64 = 0x1002;
    /// Wall clock.
    pub const CLOCK_REALTIME: u64 = 0;
    /// Monotonic clock.
    pub const CLOCK_MONOTONIC: u64 = 1;
    /// Second argument of `timerfd_settime`: the time is absolute.
    pub const TFD_TIMER_ABSTIME: u64 = 1;
}
