//! Something that is different at every start.

use core::arch::{asm, x86_64::__cpuid};

use crate::{Net, sys};

/// A number for the stack's random choices. From the processor where it has a source, and from the clocks.
pub fn seed(net: &Net) -> u64 {
    let [a, b, c, d, e, f] = net.mac();
    let clocks = sys::wall().rotate_left(32) ^ sys::monotonic();
    clocks ^ u64::from_le_bytes([a, b, c, d, e, f, 0, 0]).rotate_left(16) ^ from_processor().unwrap_or(0)
}

fn from_processor() -> Option<u64> {
    const HAS_RDRAND: u32 = 1 << 30;
    /// How often Intel recommends to try.
    const ATTEMPTS: usize = 10;
    if __cpuid(1).ecx & HAS_RDRAND == 0 {
        return None;
    }
    (0..ATTEMPTS).find_map(|_| {
        let (number, filled): (u64, u8);
        // SAFETY: the processor has the instruction, which changes this register and the flags.
        unsafe {
            asm!("rdrand {}", "setc {}", out(reg) number, out(reg_byte) filled, options(nomem, nostack));
        };
        (filled == 1).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        if let Some(first) = from_processor() {
            assert_ne!(Some(first), from_processor());
        }
    }
}
