//! The `hvt` binding: hypercalls, the ones in [`nabla_core::abi::hvt::Hypercall`].
//!
//! A hypercall is an OUT of the address of its structure. The address has 32 bits, which is enough: guest
//! memory ends at 4 GiB, and everything that is passed lies in it.

mod ring;

use core::{
    arch::{asm, x86_64::_rdtsc},
    sync::atomic::{AtomicU64, Ordering},
};

use nabla_core::abi::{
    hvt::{BlockIo, Halt, Hypercall, NetIo, Poll, Puts, R_AGAIN, R_OK, Walltime},
    mft::Entry,
};

use super::{Failure, Wait};
use crate::boot;

pub use nabla_core::abi::TARGET_HVT as ABI_TARGET;

const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Binary places of the factor from ticks to nanoseconds.
const FACTOR_SHIFT: u32 = 32;
/// The longest wait that is asked for, 292 years: what hosts can count with a sign.
const FOREVER: u64 = i64::MAX as u64;
/// The most bytes of a block device that are asked for at once. Hosts transfer less than 2 GiB in one system
/// call, and Solo5's gives up when that is less than was asked for. A multiple of every block size.
const TRANSFER_MAX: usize = 1 << 30;

/// Ends the guest, when everything that it has sent is sent.
pub fn exit(status: i32) -> ! {
    ring::finish();
    loop {
        // Does not return; should a monitor let it, it is repeated.
        let mut halt = Halt { cookie: 0, exit_status: status, padding: 0 };
        // SAFETY: the monitor is given no address but that of the structure.
        unsafe { hypercall(Hypercall::Halt, &mut halt) };
    }
}

/// Writes to the console.
pub fn console_write(bytes: &[u8]) {
    if !bytes.is_empty() {
        let mut puts = Puts { data: bytes.as_ptr() as u64, len: bytes.len() as u64 };
        // SAFETY: the monitor reads `bytes`.
        unsafe { hypercall(Hypercall::Puts, &mut puts) };
    }
}

/// Nanoseconds since some time before the guest started, counted by the processor without the monitor.
pub fn monotonic() -> u64 {
    static FACTOR: AtomicU64 = AtomicU64::new(0);
    let mut factor = FACTOR.load(Ordering::Relaxed);
    if factor == 0 {
        let Some(info) = boot::info() else { return 0 };
        assert!(info.cpu_cycle_freq != 0, "the monitor does not tell the frequency of the processor's clock");
        factor = (NANOS_PER_SEC << FACTOR_SHIFT) / info.cpu_cycle_freq;
        FACTOR.store(factor, Ordering::Relaxed);
    }
    // SAFETY: every processor of the target has the instruction, and monitors do not take it away.
    let ticks = unsafe { _rdtsc() };
    scale(ticks, factor)
}

/// `ticks` times `factor`, which has [`FACTOR_SHIFT`] binary places.
#[expect(clippy::cast_possible_truncation, reason = "64 bits of nanoseconds are 584 years")]
const fn scale(ticks: u64, factor: u64) -> u64 {
    ((ticks as u128 * factor as u128) >> FACTOR_SHIFT) as u64
}

/// Nanoseconds since 1970.
pub fn wall() -> u64 {
    let mut walltime = Walltime::default();
    // SAFETY: the monitor writes to the structure only.
    unsafe { hypercall(Hypercall::Walltime, &mut walltime) };
    walltime.nsecs
}

/// Waits and returns the set of readable devices, by index in the manifest.
pub fn wait(wait: Wait) -> u64 {
    loop {
        let timeout_nsecs = match wait {
            Wait::No => 0,
            Wait::Until(deadline) => deadline.saturating_sub(monotonic()).min(FOREVER),
            Wait::Forever => FOREVER,
        };
        let mut poll = Poll { timeout_nsecs, ..Poll::default() };
        // SAFETY: the monitor writes to the structure only.
        unsafe { hypercall(Hypercall::Poll, &mut poll) };
        if poll.ready_set != 0 || wait != Wait::Forever {
            return poll.ready_set;
        }
    }
}

/// Reads whole blocks. The caller has checked alignment and bounds.
pub fn block_read(index: usize, _entry: &Entry, offset: u64, blocks: &mut [u8]) -> Result<(), Failure> {
    let mut offset = offset;
    for chunk in blocks.chunks_mut(TRANSFER_MAX) {
        let mut io = block_io(index, offset, chunk.as_mut_ptr(), chunk.len());
        // SAFETY: the monitor writes `chunk.len()` bytes to `chunk`.
        unsafe { hypercall(Hypercall::BlockRead, &mut io) };
        result(io.ret)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

/// Writes whole blocks. The caller has checked alignment and bounds.
pub fn block_write(index: usize, _entry: &Entry, offset: u64, blocks: &[u8]) -> Result<(), Failure> {
    let mut offset = offset;
    for chunk in blocks.chunks(TRANSFER_MAX) {
        let mut io = block_io(index, offset, chunk.as_ptr(), chunk.len());
        // SAFETY: the monitor reads `chunk`.
        unsafe { hypercall(Hypercall::BlockWrite, &mut io) };
        result(io.ret)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

fn block_io(index: usize, offset: u64, data: *const u8, len: usize) -> BlockIo {
    BlockIo { handle: index as u64, offset, data: data as u64, len: len as u64, ..BlockIo::default() }
}

/// Reads one frame and returns its length.
pub fn net_read(index: usize, _entry: &Entry, frame: &mut [u8]) -> Result<usize, Failure> {
    let mut io = net_io(index, frame.as_mut_ptr(), frame.len());
    // SAFETY: the monitor writes at most `frame.len()` bytes to `frame`.
    unsafe { hypercall(Hypercall::NetRead, &mut io) };
    result(io.ret)?;
    Ok(usize::try_from(io.len).map_or(frame.len(), |len| len.min(frame.len())))
}

/// Writes one frame.
pub fn net_write(index: usize, _entry: &Entry, frame: &[u8]) -> Result<(), Failure> {
    if ring::write(index, frame) {
        return Ok(());
    }
    let mut io = net_io(index, frame.as_ptr(), frame.len());
    // SAFETY: the monitor reads `frame`.
    unsafe { hypercall(Hypercall::NetWrite, &mut io) };
    result(io.ret)
}

fn net_io(index: usize, data: *const u8, len: usize) -> NetIo {
    NetIo { handle: index as u64, data: data as u64, len: len as u64, ..NetIo::default() }
}

fn result(ret: i32) -> Result<(), Failure> {
    match ret {
        R_OK => Ok(()),
        R_AGAIN => Err(Failure::Again),
        _ => Err(Failure::Failed),
    }
}

/// Sets the base of FS.
///
/// By a model-specific register: `wrfsbase` is faster, but only where the monitor has turned it on, and
/// Solo5's does not.
///
/// # Safety
///
/// What the program reaches through FS is at `base`.
pub unsafe fn set_tls_base(base: *mut ()) {
    const FS_BASE: u32 = 0xc000_0100;
    let base = base as u64;
    #[expect(clippy::cast_possible_truncation, reason = "the instruction takes the halves apart")]
    let (low, high) = (base as u32, (base >> u32::BITS) as u32);
    // SAFETY: the caller vouches for the base. The guest is in ring 0 or the monitor emulates the instruction.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") FS_BASE,
            in("eax") low,
            in("edx") high,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
///
/// What the monitor does to memory for this call is sound: it may read and write the structure, and what the
/// addresses in it say.
unsafe fn hypercall<T>(call: Hypercall, argument: &mut T) {
    #[expect(clippy::cast_possible_truncation, reason = "guest memory ends at 4 GiB")]
    let address = &raw mut *argument as usize as u32;
    // SAFETY: the instruction changes no register, and memory only as the caller vouches for.
    unsafe {
        asm!(
            "out dx, eax",
            in("dx") call.port(),
            in("eax") address,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_scale_to_nanoseconds() {
        for frequency in [1_000_000_000_u64, 2_500_000_000, 2_893_201_000, 5_100_000_000, 24_000_000] {
            let factor = (NANOS_PER_SEC << FACTOR_SHIFT) / frequency;
            for seconds in [1, 3600, 365 * 24 * 3600] {
                let nanos = scale(frequency * seconds, factor);
                let error = (seconds * NANOS_PER_SEC).abs_diff(nanos);
                assert!(error <= 2 * seconds, "{error} ns in {seconds} s at {frequency} Hz");
            }
        }
    }
}
