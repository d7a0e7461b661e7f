//! What the monitor tells the guest at its start.

use core::{
    ffi::CStr,
    fmt, ptr, slice,
    sync::atomic::{AtomicPtr, Ordering},
};

use nabla_core::abi::{
    CMDLINE_SIZE,
    mft::{Entry, Header, MAX_ENTRIES},
};

#[cfg(feature = "hvt")]
pub use nabla_core::abi::hvt::BootInfo;
#[cfg(not(feature = "hvt"))]
pub use nabla_core::abi::spt::BootInfo;

/// Null until [`init`].
static BOOT_INFO: AtomicPtr<BootInfo> = AtomicPtr::new(ptr::null_mut());

/// A device cannot be had by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcquireError {
    /// The guest's [`entry!`](crate::entry!) declares no device with this name.
    NotDeclared,
    /// There is a device with this name, but of another kind.
    WrongKind,
    /// The device is declared but the monitor has attached nothing to it. Monitors refuse to start such a
    /// guest, so this is not to be expected.
    NotAttached,
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDeclared => "no device with this name is declared in the guest's entry!",
            Self::WrongKind => "the device with this name is of another kind",
            Self::NotAttached => "nothing is attached to the device with this name",
        })
    }
}

impl core::error::Error for AcquireError {}

/// Remembers the boot info for all other modules.
///
/// # Safety
///
/// `boot_info` is what the entry point got from a monitor of this binding's ABI, so that it and what it
/// points to stay readable and unchanged for as long as the guest runs.
pub unsafe fn init(boot_info: *const BootInfo) {
    BOOT_INFO.store(boot_info.cast_mut(), Ordering::Relaxed);
}

/// The boot info, or `None` when this code does not run as a guest (in a host's unit test).
pub fn info() -> Option<&'static BootInfo> {
    let boot_info = BOOT_INFO.load(Ordering::Relaxed);
    // SAFETY: the pointer is null or has come through `init`, whose caller vouches for it. Nothing in the
    // guest writes there: on `hvt` the monitor maps it read-only, on `spt` it lies below the image.
    unsafe { boot_info.as_ref() }
}

/// The devices with which the guest was started; index 0 is the reserved entry.
pub fn devices() -> &'static [Entry] {
    let Some(info) = info() else { return &[] };
    let header = info.mft as *const Header;
    // SAFETY: `mft` is the address of the manifest, which the ABI defines as a header and `entries` entries
    // after it; see `info` for why it stays valid. The manifest came out of this very image, so `entries`
    // is at most `MAX_ENTRIES`; `min` only bounds the damage of a monitor that breaks the ABI.
    unsafe {
        let count = (*header).entries.min(MAX_ENTRIES);
        slice::from_raw_parts(header.add(1).cast(), count as usize)
    }
}

/// The command line as the monitor passed it, without its NUL.
pub fn command_line() -> &'static [u8] {
    let Some(info) = info() else { return &[] };
    // SAFETY: `cmdline` is the address of a NUL-terminated string (`spt_abi.h`, `hvt_abi.h`); see `info`.
    let line = unsafe { CStr::from_ptr(info.cmdline as *const _) }.to_bytes();
    debug_assert!(line.len() < CMDLINE_SIZE);
    line
}

/// The device of this name and kind and its index in the manifest, which is its handle.
pub fn device(name: &str, kind: u32) -> Result<(usize, &'static Entry), AcquireError> {
    find(devices(), name, kind)
}

fn find<'a>(devices: &'a [Entry], name: &str, kind: u32) -> Result<(usize, &'a Entry), AcquireError> {
    let mut named =
        devices.iter().enumerate().skip(1).filter(|(_, entry)| entry.name_bytes() == name.as_bytes());
    let (index, entry) = named.next().ok_or(AcquireError::NotDeclared)?;
    match entry {
        _ if entry.kind != kind => Err(AcquireError::WrongKind),
        _ if entry.attached == 0 => Err(AcquireError::NotAttached),
        _ => Ok((index, entry)),
    }
}

#[cfg(test)]
mod tests {
    use nabla_core::abi::mft::{TYPE_BLOCK, TYPE_NET};

    use super::*;

    #[test]
    fn find_tells_name_kind_and_attachment_apart() {
        let devices = [
            Entry::RESERVED,
            Entry::new(TYPE_BLOCK, "disk").attached_block(1024, 512, 5),
            Entry::new(TYPE_NET, "net").attached_net([0; 6], 1500, 6),
            Entry::new(TYPE_NET, "spare"),
        ];
        assert_eq!(find(&devices, "disk", TYPE_BLOCK), Ok((1, &devices[1])));
        assert_eq!(find(&devices, "net", TYPE_NET), Ok((2, &devices[2])));
        assert_eq!(find(&devices, "net", TYPE_BLOCK), Err(AcquireError::WrongKind));
        assert_eq!(find(&devices, "spare", TYPE_NET), Err(AcquireError::NotAttached));
        assert_eq!(find(&devices, "dis", TYPE_BLOCK), Err(AcquireError::NotDeclared));
        assert_eq!(find(&devices, "", TYPE_BLOCK), Err(AcquireError::NotDeclared));
    }

    #[test]
    fn on_a_host_there_is_nothing() {
        assert!(info().is_none() && devices().is_empty() && command_line().is_empty());
    }
}
