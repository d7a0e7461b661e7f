//! Landlock: a domain that denies every access it can deny.
//!
//! Source: the kernel's `include/uapi/linux/landlock.h`; what each version of its ABI handles.

use crate::sys::{self, nr};
use std::sync::OnceLock;

/// The version of Landlock's ABI that the running kernel has; `None` when it has none or it is switched off.
pub fn abi() -> Option<u32> {
    static ABI: OnceLock<Option<u32>> = OnceLock::new();
    *ABI.get_or_init(ask_for_abi)
}

fn ask_for_abi() -> Option<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u64 = 1;
    // SAFETY: with a null pointer and this flag, the call only returns a number.
    let result = unsafe {
        sys::syscall(nr::LANDLOCK_CREATE_RULESET, [0, 0, LANDLOCK_CREATE_RULESET_VERSION, 0, 0, 0])
    };
    u32::try_from(result).ok().filter(|&abi| abi > 0)
}

/// `struct landlock_ruleset_attr` of a domain without any rule: what it handles, it denies.
pub fn deny_all(abi: u32) -> Vec<u8> {
    let file_system = match abi {
        ..=1 => (1_u64 << 13) - 1,
        2 => (1 << 14) - 1,     // + REFER
        3 | 4 => (1 << 15) - 1, // + TRUNCATE
        _ => (1 << 16) - 1,     // + IOCTL_DEV
    };
    let network = if abi >= 4 { 0b11_u64 } else { 0 }; // TCP bind and connect
    let scoped = if abi >= 6 { 0b11_u64 } else { 0 }; // abstract sockets and signals
    let fields = match abi {
        ..=3 => 1,
        4 | 5 => 2,
        _ => 3,
    };
    [file_system, network, scoped].iter().take(fields).flat_map(|field| field.to_le_bytes()).collect()
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
