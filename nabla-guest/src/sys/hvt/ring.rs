//! Sending through the network ring, where the monitor offers one: a frame is put into memory that both share, and
//! the guest goes on while a thread of the monitor sends it. Only a thread that sleeps has to be woken.
//!
//! Frames are received by hypercall all the same. A guest knows that there is one from its wait, which is a
//! hypercall in any case, and would have to wait for the thread instead.
//!
//! Source: `hvt_ring.h` and `net.c` of Solo5 0.12.

use core::{
    arch::asm,
    cell::UnsafeCell,
    hint,
    mem::offset_of,
    ptr,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
};

use nabla_core::abi::{
    PAGE_SIZE,
    hvt::{BOOT_INFO_BASE_SIZE, BootInfo, FEATURE_RING_IO, RING_KICK_PORT},
    ring::{BUFFER_SIZE, Entry, OP_NET_WRITE, Ring, SIZE},
};

use crate::boot;

/// Frames that are under way at most. The ring has more places, and memory for a frame in each is much for a guest.
const SLOTS: usize = 128;
/// How often to look whether everything has been sent before the guest ends: a second or so. A monitor whose thread is gone
/// does not keep it.
const PATIENCE: u32 = 1 << 25;

/// The frames under way: that of submission N in slot N modulo [`SLOTS`].
struct Slots(UnsafeCell<[[u8; BUFFER_SIZE]; SLOTS]>);

// SAFETY: a guest has one processor and no interrupts, and only `write` uses it, which does not call itself.
unsafe impl Sync for Slots {}

static FRAMES: Slots = Slots(UnsafeCell::new([[0; BUFFER_SIZE]; SLOTS]));
/// Submissions so far, as the ring's `ent_tail`.
static SUBMITTED: AtomicU32 = AtomicU32::new(0);

/// Sends a frame, as soon as there is a place for it. False when this is not the way for it: there is no ring, or
/// the frame is too long, and then everything that was sent before is under way.
pub fn write(index: usize, frame: &[u8]) -> bool {
    let Some(ring) = ring() else { return false };
    let Ok(handle) = u32::try_from(index) else { return false };
    if frame.len() > BUFFER_SIZE {
        while !is_empty(ring) {
            hint::spin_loop();
        }
        return false;
    }
    let submitted = SUBMITTED.load(Relaxed);
    while under_way(ring) as usize >= SLOTS {
        hint::spin_loop();
    }
    let slot = submitted as usize % SLOTS;
    // SAFETY: the slot is one of the array's, and the monitor is done with the frame that was there.
    let data = unsafe { (&raw mut (*FRAMES.0.get())[slot]).cast::<u8>() };
    // SAFETY: the slot has `BUFFER_SIZE` bytes, and there is no reference to them.
    unsafe { ptr::copy_nonoverlapping(frame.as_ptr(), data, frame.len()) };
    #[expect(clippy::cast_possible_truncation, reason = "it is at most `BUFFER_SIZE`")]
    let len = frame.len() as u32;
    let entry = Entry { operation: OP_NET_WRITE, handle, data: data as u64, len, id: submitted, reserved: 0 };
    let place = offset_of!(Ring, entries) + submitted as usize % SIZE * size_of::<Entry>();
    // SAFETY: the place is one of the ring's, which lies where `ring` says, and the monitor is done with it.
    unsafe { ring.add(place).cast::<Entry>().write_volatile(entry) };
    SUBMITTED.store(submitted.wrapping_add(1), Relaxed);
    index_of(ring, offset_of!(Ring, ent_tail)).store(submitted.wrapping_add(1), Release);
    // The monitor says that it wants a kick and then looks at the index; here it is the other way round.
    fence(SeqCst);
    if index_of(ring, offset_of!(Ring, needs_kick)).load(Relaxed) != 0 {
        // SAFETY: wakes the monitor's thread and does nothing to this program.
        unsafe {
            asm!("out dx, eax", in("dx") RING_KICK_PORT, in("eax") 0, options(nostack, preserves_flags));
        }
    }
    true
}

/// Waits until everything has been sent.
pub fn finish() {
    let Some(ring) = ring().filter(|_| SUBMITTED.load(Relaxed) != 0) else { return };
    let mut left = PATIENCE;
    while !is_empty(ring) && left > 0 {
        hint::spin_loop();
        left -= 1;
    }
}

/// Frames that the monitor has not sent yet.
fn under_way(ring: *mut u8) -> u32 {
    let sent = index_of(ring, offset_of!(Ring, ent_head)).load(Acquire);
    SUBMITTED.load(Relaxed).wrapping_sub(sent)
}

fn is_empty(ring: *mut u8) -> bool {
    under_way(ring) == 0
}

/// An index of the ring.
fn index_of(ring: *mut u8, offset: usize) -> &'static AtomicU32 {
    // SAFETY: offsets are those of the layout; the ring is mapped for as long as the guest runs, and both sides access
    // its indices atomically.
    unsafe { AtomicU32::from_ptr(ring.add(offset).cast()) }
}

/// Where the ring is.
fn ring() -> Option<*mut u8> {
    address(boot::info()?).map(|address| address as *mut u8)
}

/// The address of the ring, if there is one.
///
/// Monitors before Solo5 0.11 have something else where boot info speaks of rings: the manifest, or the command line.
/// A ring begins with a page, after the guest's own memory.
fn address(info: &BootInfo) -> Option<u64> {
    let start = ptr::from_ref(info) as u64;
    let others = start + BOOT_INFO_BASE_SIZE as u64..start + size_of::<BootInfo>() as u64;
    if others.contains(&info.mft) || others.contains(&info.cmdline) {
        return None;
    }
    let offered = info.host_features & FEATURE_RING_IO != 0;
    let ring = info.net_ring;
    (offered && ring != 0 && ring >= info.mem_size && ring.is_multiple_of(PAGE_SIZE)).then_some(ring)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_is_where_boot_info_says_and_not_in_older_ones() {
        let mut info = BootInfo {
            mem_size: 64 << 20,
            kernel_end: 0x20_0000,
            cpu_cycle_freq: 1_000_000_000,
            cmdline: 0x2000,
            mft: 0x1038,
            host_features: 1,
            guest_features: 0,
            net_ring: 64 << 20,
        };
        assert_eq!(address(&info), Some(64 << 20));
        for wrong in [0, 0x10_0000, (64 << 20) + 8] {
            info.net_ring = wrong;
            assert_eq!(address(&info), None, "{wrong:#x}");
        }
        info.net_ring = 64 << 20;
        info.host_features = 0xfffe;
        assert_eq!(address(&info), None);
        info.host_features = 1;
        // As Solo5 0.8 to 0.10 had it.
        info.mft = ptr::from_ref(&info) as u64 + BOOT_INFO_BASE_SIZE as u64;
        assert_eq!(address(&info), None);
    }
}
