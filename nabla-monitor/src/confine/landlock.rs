//! Landlock: a domain that denies every access it can deny.
//!
//! Source: the kernel's `include/uapi/linux/landlock.h`; what each version of its ABI handles.

use crate::sys::raw::{nr, syscall};
use linux_raw_sys::landlock::{
    LANDLOCK_ACCESS_FS_IOCTL_DEV, LANDLOCK_ACCESS_FS_REFER, LANDLOCK_ACCESS_FS_TRUNCATE,
    LANDLOCK_ACCESS_NET_BIND_TCP, LANDLOCK_ACCESS_NET_CONNECT_TCP, LANDLOCK_CREATE_RULESET_VERSION,
    LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL,
};
use std::ptr;
use std::sync::OnceLock;

/// The version of Landlock's ABI that the running kernel has; `None` when it has none or it is switched off.
pub fn abi() -> Option<u32> {
    static ABI: OnceLock<Option<u32>> = OnceLock::new();
    *ABI.get_or_init(ask_for_abi)
}

fn ask_for_abi() -> Option<u32> {
    // SAFETY: with a null pointer and this flag, the call only returns a number.
    let result = unsafe {
        syscall!(nr::LANDLOCK_CREATE_RULESET, ptr::null::<u8>(), 0, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(result).ok().filter(|&abi| abi > 0)
}

/// `struct landlock_ruleset_attr` of a domain without any rule: what it handles, it denies.
pub fn deny_all(abi: u32) -> Vec<u8> {
    let file_system = match abi {
        // Every right below the first that it does not know.
        ..=1 => LANDLOCK_ACCESS_FS_REFER - 1,
        2 => LANDLOCK_ACCESS_FS_TRUNCATE - 1,
        3 | 4 => LANDLOCK_ACCESS_FS_IOCTL_DEV - 1,
        _ => 2 * LANDLOCK_ACCESS_FS_IOCTL_DEV - 1,
    };
    let network = if abi >= 4 { LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP } else { 0 };
    let scoped = if abi >= 6 { LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL } else { 0 };
    let fields = match abi {
        ..=3 => 1,
        4 | 5 => 2,
        _ => 3,
    };
    [file_system, network, scoped]
        .iter()
        .take(fields)
        .flat_map(|&field| u64::from(field).to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_the_size_of_their_abi() {
        for (abi, size) in [(1, 8), (2, 8), (3, 8), (4, 16), (5, 16), (6, 24), (7, 24), (99, 24)] {
            assert_eq!(deny_all(abi).len(), size, "{abi}");
        }
        assert_eq!(deny_all(1)[..8], 0x1fff_u64.to_le_bytes());
        assert_eq!(deny_all(7)[..8], 0xffff_u64.to_le_bytes());
    }
}
