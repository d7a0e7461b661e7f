//! Makes a system call that guests are allowed, in a form in which they are or are not.
//!
//! The argument names the form, see `main`; device "storage" must be attached. Prints `NAME = RESULT` when the
//! call comes back; those whose name starts with `ok` must, all others must end the guest before that. An
//! unknown name is status 2. `list` prints all names.
#![no_std]
#![no_main]

use nabla_core::abi::mft::{Entry, Header};
use nabla_core::abi::spt::syscall::{
    ARCH_PRCTL, ARCH_SET_FS, CLOCK_GETTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, EPOLL_PWAIT, PREAD64, PWRITE64,
    READ, TFD_TIMER_ABSTIME, TIMERFD_SETTIME, WRITE,
};
use nabla_guest::{Block, args, println};
use test_guests::{spt_boot_info, syscall};

nabla_guest::entry!(main, block "storage");

/// Not in the ABI; `arch/x86/include/uapi/asm/prctl.h`.
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_SET_CPUID: u64 = 0x1012;
const ARCH_MAP_VDSO_64: u64 = 0x2003;
/// `include/uapi/linux/time.h`.
const CLOCK_PROCESS_CPUTIME: u64 = 2;
const CLOCK_REALTIME_COARSE: u64 = 5;
const CLOCK_BOOTTIME: u64 = 7;
/// The system call that ends a thread, which is not `exit_group`.
const EXIT: u32 = 60;
/// The upper half of a register, of which the kernel takes only the lower where the argument is an int.
const HIGH_BIT: u64 = 1 << 32;

/// Large enough for two blocks of any size.
static mut BUFFER: [u8; 1 << 16] = [0; 1 << 16];

fn main() -> i32 {
    let disk = Block::acquire("storage").expect("storage is attached");
    let (size, capacity) = (disk.block_size() as u64, disk.capacity());
    let (fd, last) = (disk_descriptor(), capacity - size);
    let info = spt_boot_info();
    let (epoll, timer) = (int(info.epollfd), int(info.timerfd));
    let buffer = (&raw mut BUFFER) as u64;
    let text = b"!".as_ptr() as u64;
    // An expired time, as two timespecs: interval and value.
    let time: [u64; 4] = [0, 0, 0, 1];
    let time = time.as_ptr() as u64;

    let forms: &[(&str, u32, [u64; 6])] = &[
        ("ok-write-console", WRITE, [1, text, 1, 0, 0, 0]),
        ("ok-write-console-bad-address", WRITE, [1, 0, 1, 0, 0, 0]),
        ("write-stdin", WRITE, [0, text, 1, 0, 0, 0]),
        ("write-stderr", WRITE, [2, text, 1, 0, 0, 0]),
        ("write-disk", WRITE, [fd, buffer, size, 0, 0, 0]),
        ("write-timer", WRITE, [timer, text, 1, 0, 0, 0]),
        ("write-minus-one", WRITE, [u64::MAX, text, 1, 0, 0, 0]),
        ("read-stdin", READ, [0, buffer, 1, 0, 0, 0]),
        ("read-console", READ, [1, buffer, 1, 0, 0, 0]),
        ("read-stderr", READ, [2, buffer, 1, 0, 0, 0]),
        ("read-disk", READ, [fd, buffer, size, 0, 0, 0]),
        ("read-timer", READ, [timer, buffer, 8, 0, 0, 0]),
        ("read-epoll", READ, [epoll, buffer, 8, 0, 0, 0]),
        ("ok-pread-first", PREAD64, [fd, buffer, size, 0, 0, 0]),
        ("ok-pread-last", PREAD64, [fd, buffer, size, last, 0, 0]),
        ("ok-pread-unaligned", PREAD64, [fd, buffer, size, last.min(1), 0, 0]),
        ("pread-nothing", PREAD64, [fd, buffer, 0, 0, 0, 0]),
        ("pread-short", PREAD64, [fd, buffer, size - 1, 0, 0, 0]),
        ("pread-two-blocks", PREAD64, [fd, buffer, 2 * size, 0, 0, 0]),
        ("pread-length-high", PREAD64, [fd, buffer, size | HIGH_BIT, 0, 0, 0]),
        ("pread-past-last", PREAD64, [fd, buffer, size, last + 1, 0, 0]),
        ("pread-at-capacity", PREAD64, [fd, buffer, size, capacity, 0, 0]),
        ("pread-offset-high", PREAD64, [fd, buffer, size, HIGH_BIT * capacity, 0, 0]),
        ("pread-offset-max", PREAD64, [fd, buffer, size, u64::MAX, 0, 0]),
        ("pread-offset-min", PREAD64, [fd, buffer, size, 1 << 63, 0, 0]),
        ("pread-stdin", PREAD64, [0, buffer, size, 0, 0, 0]),
        ("pread-console", PREAD64, [1, buffer, size, 0, 0, 0]),
        ("pread-minus-one", PREAD64, [u64::MAX, buffer, size, 0, 0, 0]),
        ("ok-pwrite-last", PWRITE64, [fd, buffer, size, last, 0, 0]),
        ("pwrite-nothing", PWRITE64, [fd, buffer, 0, 0, 0, 0]),
        ("pwrite-short", PWRITE64, [fd, buffer, size - 1, 0, 0, 0]),
        ("pwrite-two-blocks", PWRITE64, [fd, buffer, 2 * size, 0, 0, 0]),
        ("pwrite-length-high", PWRITE64, [fd, buffer, size | HIGH_BIT, 0, 0, 0]),
        ("pwrite-past-last", PWRITE64, [fd, buffer, size, last + 1, 0, 0]),
        ("pwrite-at-capacity", PWRITE64, [fd, buffer, size, capacity, 0, 0]),
        ("pwrite-offset-high", PWRITE64, [fd, buffer, size, HIGH_BIT * capacity, 0, 0]),
        ("pwrite-offset-max", PWRITE64, [fd, buffer, size, u64::MAX, 0, 0]),
        ("pwrite-offset-min", PWRITE64, [fd, buffer, size, 1 << 63, 0, 0]),
        ("pwrite-console", PWRITE64, [1, buffer, size, 0, 0, 0]),
        ("ok-epoll-poll", EPOLL_PWAIT, [epoll, buffer, 2, 0, 0, 0]),
        ("epoll-mask", EPOLL_PWAIT, [epoll, buffer, 2, 0, buffer, 8]),
        ("epoll-mask-high", EPOLL_PWAIT, [epoll, buffer, 2, 0, HIGH_BIT, 8]),
        ("epoll-disk", EPOLL_PWAIT, [fd, buffer, 2, 0, 0, 0]),
        ("epoll-minus-one", EPOLL_PWAIT, [u64::MAX, buffer, 2, 0, 0, 0]),
        ("ok-timer", TIMERFD_SETTIME, [timer, TFD_TIMER_ABSTIME, time, 0, 0, 0]),
        ("ok-timer-relative", TIMERFD_SETTIME, [timer, 0, time, 0, 0, 0]),
        ("timer-old-value", TIMERFD_SETTIME, [timer, TFD_TIMER_ABSTIME, time, buffer, 0, 0]),
        ("timer-old-value-high", TIMERFD_SETTIME, [timer, TFD_TIMER_ABSTIME, time, HIGH_BIT, 0, 0]),
        ("timer-epoll", TIMERFD_SETTIME, [epoll, TFD_TIMER_ABSTIME, time, 0, 0, 0]),
        ("timer-minus-one", TIMERFD_SETTIME, [u64::MAX, TFD_TIMER_ABSTIME, time, 0, 0, 0]),
        ("ok-clock-realtime", CLOCK_GETTIME, [CLOCK_REALTIME, buffer, 0, 0, 0, 0]),
        ("ok-clock-monotonic", CLOCK_GETTIME, [CLOCK_MONOTONIC, buffer, 0, 0, 0, 0]),
        ("clock-cputime", CLOCK_GETTIME, [CLOCK_PROCESS_CPUTIME, buffer, 0, 0, 0, 0]),
        ("clock-coarse", CLOCK_GETTIME, [CLOCK_REALTIME_COARSE, buffer, 0, 0, 0, 0]),
        ("clock-boottime", CLOCK_GETTIME, [CLOCK_BOOTTIME, buffer, 0, 0, 0, 0]),
        // A clock that belongs to a process, here 1, or to a descriptor, here 0.
        ("clock-process", CLOCK_GETTIME, [int(!1 << 3 | 2), buffer, 0, 0, 0, 0]),
        ("clock-descriptor", CLOCK_GETTIME, [int(!0 << 3 | 3), buffer, 0, 0, 0, 0]),
        ("ok-set-fs", ARCH_PRCTL, [ARCH_SET_FS, buffer, 0, 0, 0, 0]),
        ("set-gs", ARCH_PRCTL, [ARCH_SET_GS, buffer, 0, 0, 0, 0]),
        ("get-fs", ARCH_PRCTL, [ARCH_GET_FS, buffer, 0, 0, 0, 0]),
        ("set-cpuid", ARCH_PRCTL, [ARCH_SET_CPUID, 1, 0, 0, 0, 0]),
        ("map-vdso", ARCH_PRCTL, [ARCH_MAP_VDSO_64, 0x7000_0000, 0, 0, 0, 0]),
        ("exit-thread", EXIT, [0, 0, 0, 0, 0, 0]),
    ];

    let name = args().next().unwrap_or("list");
    if name == "list" {
        forms.iter().for_each(|(name, ..)| println!("{name}"));
        return 0;
    }
    let Some(&(_, number, arguments)) = forms.iter().find(|(form, ..)| *form == name) else {
        println!("unknown form {name}");
        return 2;
    };
    // SAFETY: nothing that these calls write to is used by anything else, and the thread pointer by nothing.
    let result = unsafe { syscall(u64::from(number), arguments) };
    println!("{name} = {result}");
    0
}

/// The descriptor of the first device.
fn disk_descriptor() -> u64 {
    let manifest = usize::try_from(spt_boot_info().mft).unwrap_or_default();
    // SAFETY: the ABI defines that a header and the entries stand there; the one after the reserved one is
    // the device that this guest declares.
    let entry =
        unsafe { &*core::ptr::with_exposed_provenance::<Header>(manifest).add(1).cast::<Entry>().add(1) };
    int(entry.descriptor())
}

/// An int as the kernel takes it.
fn int(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}
