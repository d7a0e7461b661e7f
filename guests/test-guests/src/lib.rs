//! What the test guests share.
#![no_std]

use core::{arch::asm, fmt::Debug, str::FromStr};

use nabla_core::abi::spt::{BOOT_INFO_BASE, BootInfo};

/// An argument as a number.
///
/// # Panics
///
/// When it is none.
pub fn number<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?} is no number: {error:?}"))
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() % end as u64).unwrap_or_default()
    }
}

/// The boot info of an `spt` guest, which monitors put at a fixed address.
pub fn spt_boot_info() -> &'static BootInfo {
    let address = usize::try_from(BOOT_INFO_BASE).unwrap_or_default();
    // SAFETY: the ABI defines the address and the structure, and nothing changes it.
    unsafe { &*core::ptr::with_exposed_provenance(address) }
}

/// Makes any system call with the `syscall` instruction and returns what is in rax.
///
/// # Safety
///
/// What the call does, if the monitor lets it, is all right with the program.
pub unsafe fn syscall(number: u64, arguments: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the instruction itself changes only these registers; the caller vouches for the rest.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
