//! The `spt` binding: system calls, the ones in [`nabla_core::abi::spt::syscall`] and no others.
//!
//! Every argument keeps to what the monitor's filter pins; a call outside of it is the end of the guest.

use core::{
    arch::asm,
    mem::MaybeUninit,
    sync::atomic::{AtomicU64, Ordering},
};

use nabla_core::abi::{
    mft::Entry,
    spt::{
        TIMER_EVENT,
        syscall::{
            ARCH_PRCTL, ARCH_SET_FS, CLOCK_GETTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, EPOLL_PWAIT, EXIT_GROUP,
            PREAD64, PWRITE64, READ, STDOUT, TFD_TIMER_ABSTIME, TIMERFD_SETTIME, WRITE,
        },
    },
};

use super::{Failure, Wait};
use crate::boot;

pub use nabla_core::abi::TARGET_SPT as ABI_TARGET;

const EINTR: isize = -4;
const EAGAIN: isize = -11;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// How long to wait before a console that takes nothing is tried again, in milliseconds.
const CONSOLE_RETRY_MS: i32 = 1;
/// A timeout of `epoll_pwait` that never ends.
const NO_TIMEOUT: i32 = -1;

#[repr(C)]
struct Timespec {
    sec: u64,
    nsec: u64,
}

#[repr(C)]
struct Itimerspec {
    interval: Timespec,
    value: Timespec,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct EpollEvent {
    events: u32,
    data: u64,
}

/// At most one event for each device and one for the timer.
const EVENTS_MAX: usize = 64;

/// Ends the guest.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: exit_group takes no pointer. It does not return; should a monitor let it, it is repeated.
        unsafe { syscall(EXIT_GROUP, [int(status), 0, 0, 0, 0, 0]) };
    }
}

/// Writes to the console. A console that is closed or broken swallows what is left.
pub fn console_write(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
        let written =
            unsafe { syscall(WRITE, [int(STDOUT), bytes.as_ptr() as u64, bytes.len() as u64, 0, 0, 0]) };
        match usize::try_from(written) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(_) if written == EINTR => {}
            Err(_) if written == EAGAIN => {
                epoll_wait(CONSOLE_RETRY_MS);
            }
            Err(_) => return,
        }
    }
}

/// Nanoseconds since some time before the guest started.
pub fn monotonic() -> u64 {
    clock(CLOCK_MONOTONIC)
}

/// Nanoseconds since 1970.
pub fn wall() -> u64 {
    clock(CLOCK_REALTIME)
}

fn clock(clock: u64) -> u64 {
    let mut time = Timespec { sec: 0, nsec: 0 };
    // SAFETY: the kernel writes one timespec to `time`, which `Timespec` has the layout of.
    unsafe { syscall(CLOCK_GETTIME, [clock, (&raw mut time) as u64, 0, 0, 0, 0]) };
    time.sec.wrapping_mul(NANOS_PER_SEC).wrapping_add(time.nsec)
}

/// The deadline for which the timer is armed; 0 when it has never been. A timer whose time has come stays
/// ready in the epoll set until it is armed again.
static ARMED: AtomicU64 = AtomicU64::new(0);

/// A deadline that never comes.
const NEVER: u64 = i64::MAX as u64;

/// Waits and returns the set of readable devices, by index in the manifest.
///
/// Arming the timer costs more than twenty times what looking at the epoll set does, so it is done only when
/// there is nothing to return yet and the deadline is ahead and not the one it is armed for.
pub fn wait(wait: Wait) -> u64 {
    let ready = epoll_wait(0);
    let deadline = match wait {
        _ if ready != 0 => return ready,
        Wait::No => return ready,
        Wait::Until(deadline) if deadline <= monotonic() => return ready,
        Wait::Until(deadline) => deadline.min(NEVER),
        // An unarmed timer never comes.
        Wait::Forever if ARMED.load(Ordering::Relaxed) == 0 => 0,
        Wait::Forever => NEVER,
    };
    if deadline != ARMED.load(Ordering::Relaxed) {
        arm(deadline);
    }
    loop {
        let ready = epoll_wait(NO_TIMEOUT);
        // Forever ends with a device only; the timer may have been left expired by an earlier wait.
        if ready != 0 || wait != Wait::Forever {
            return ready;
        }
    }
}

/// Arms the timer for a deadline other than 0, which would disarm it.
fn arm(deadline: u64) {
    let Some(info) = boot::info() else { return };
    let time = Itimerspec {
        interval: Timespec { sec: 0, nsec: 0 },
        value: Timespec { sec: deadline / NANOS_PER_SEC, nsec: deadline % NANOS_PER_SEC },
    };
    // SAFETY: the kernel reads one itimerspec from `time`, which `Itimerspec` has the layout of, and writes
    // nothing, because there is no place for the old value.
    let result = unsafe {
        syscall(TIMERFD_SETTIME, [int(info.timerfd), TFD_TIMER_ABSTIME, (&raw const time) as u64, 0, 0, 0])
    };
    assert!(result == 0, "timerfd_settime failed: {result}");
    ARMED.store(deadline, Ordering::Relaxed);
}

/// Waits for at most `timeout` milliseconds or [`NO_TIMEOUT`], and returns the readable devices.
fn epoll_wait(timeout: i32) -> u64 {
    let Some(info) = boot::info() else { return 0 };
    let mut events = [const { MaybeUninit::<EpollEvent>::uninit() }; EVENTS_MAX];
    let count = loop {
        // SAFETY: the kernel writes at most `EVENTS_MAX` events to `events` and is given no signal mask.
        let count = unsafe {
            syscall(
                EPOLL_PWAIT,
                [int(info.epollfd), events.as_mut_ptr() as u64, EVENTS_MAX as u64, int(timeout), 0, 0],
            )
        };
        if count != EINTR {
            break count;
        }
    };
    let count = usize::try_from(count).unwrap_or_else(|_| panic!("epoll_pwait failed: {count}"));
    let mut ready = 0;
    for event in &events[..count.min(EVENTS_MAX)] {
        // SAFETY: the kernel has filled the first `count` events, and every bit pattern is a valid one.
        let event = unsafe { event.assume_init() };
        match event.data {
            TIMER_EVENT => {}
            index @ 0..64 => ready |= 1 << index,
            _ => {}
        }
    }
    ready
}

/// Reads whole blocks. The caller has checked alignment and bounds.
pub fn block_read(_index: usize, entry: &Entry, offset: u64, blocks: &mut [u8]) -> Result<(), Failure> {
    let block_size = usize::from(entry.block_size());
    let mut offset = offset;
    for block in blocks.chunks_exact_mut(block_size) {
        // SAFETY: the kernel writes at most `block_size` bytes to `block`, which has as many.
        unsafe { block_io(PREAD64, entry, offset, block.as_mut_ptr(), block_size)? };
        offset += block_size as u64;
    }
    Ok(())
}

/// Writes whole blocks. The caller has checked alignment and bounds.
pub fn block_write(_index: usize, entry: &Entry, offset: u64, blocks: &[u8]) -> Result<(), Failure> {
    let block_size = usize::from(entry.block_size());
    let mut offset = offset;
    for block in blocks.chunks_exact(block_size) {
        // SAFETY: the kernel reads `block_size` bytes from `block`, which has as many, and writes none.
        unsafe { block_io(PWRITE64, entry, offset, block.as_ptr().cast_mut(), block_size)? };
        offset += block_size as u64;
    }
    Ok(())
}

/// # Safety
///
/// `data` is valid for what `number` does with `len` bytes.
unsafe fn block_io(
    number: u32,
    entry: &Entry,
    offset: u64,
    data: *mut u8,
    len: usize,
) -> Result<(), Failure> {
    loop {
        let args = [int(entry.descriptor()), data as u64, len as u64, offset, 0, 0];
        // SAFETY: see above.
        let done = unsafe { syscall(number, args) };
        match usize::try_from(done) {
            Ok(done) if done == len => return Ok(()),
            Err(_) if done == EINTR => {}
            _ => return Err(Failure::Failed),
        }
    }
}

/// Reads one frame and returns its length.
pub fn net_read(_index: usize, entry: &Entry, frame: &mut [u8]) -> Result<usize, Failure> {
    let args = [int(entry.descriptor()), frame.as_mut_ptr() as u64, frame.len() as u64, 0, 0, 0];
    // SAFETY: the kernel writes at most `frame.len()` bytes to `frame`.
    net_result(|| unsafe { syscall(READ, args) })
}

/// Writes one frame.
pub fn net_write(_index: usize, entry: &Entry, frame: &[u8]) -> Result<(), Failure> {
    let args = [int(entry.descriptor()), frame.as_ptr() as u64, frame.len() as u64, 0, 0, 0];
    // SAFETY: the kernel reads `frame.len()` bytes from `frame`.
    let written = net_result(|| unsafe { syscall(WRITE, args) })?;
    if written == frame.len() { Ok(()) } else { Err(Failure::Failed) }
}

fn net_result(mut call: impl FnMut() -> isize) -> Result<usize, Failure> {
    loop {
        let result = call();
        match usize::try_from(result) {
            Ok(len) => return Ok(len),
            Err(_) if result == EINTR => {}
            Err(_) if result == EAGAIN => return Err(Failure::Again),
            Err(_) => return Err(Failure::Failed),
        }
    }
}

/// Sets the base of FS.
///
/// # Safety
///
/// What the program reaches through FS is at `base`.
pub unsafe fn set_tls_base(base: *mut ()) {
    // SAFETY: the caller vouches for the base; the call itself writes no memory.
    let result = unsafe { syscall(ARCH_PRCTL, [ARCH_SET_FS, base as u64, 0, 0, 0, 0]) };
    assert!(result == 0, "arch_prctl(ARCH_SET_FS, {base:p}) failed: {result}");
}

/// A C `int` as the kernel takes it: in the lower half of a register.
fn int(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}

/// # Safety
///
/// What the kernel does to memory for this call is sound: it may read and write what the pointers among the
/// arguments say.
unsafe fn syscall(number: u32, args: [u64; 6]) -> isize {
    let result: isize;
    // SAFETY: the instruction changes nothing but rax, rcx and r11 and the memory for which the caller
    // vouches; it uses no stack, and the red zone stays untouched by the kernel.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(number) => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
