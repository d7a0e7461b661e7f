//! System calls without libc.
//!
//! Two places cannot use libc or rustix: the child between clone and exec and the supervisor. Both share the host
//! program's memory but are no threads of it, so they must not touch thread-local storage, and `errno` lives
//! there. Everything else in this crate uses rustix.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("nabla-monitor runs on x86-64 Linux only, for now");

use core::arch::asm;
use rustix::io::Errno;

/// Numbers of the x86-64 system calls that this crate makes by number.
pub mod nr {
    #![allow(missing_docs, reason = "they are the kernel's names")]
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const OPEN: u64 = 2;
    pub const CLOSE: u64 = 3;
    pub const MMAP: u64 = 9;
    pub const MPROTECT: u64 = 10;
    pub const MUNMAP: u64 = 11;
    pub const RT_SIGACTION: u64 = 13;
    pub const RT_SIGPROCMASK: u64 = 14;
    pub const PREAD64: u64 = 17;
    pub const MADVISE: u64 = 28;
    pub const GETPID: u64 = 39;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const CLONE: u64 = 56;
    pub const EXIT: u64 = 60;
    pub const WAIT4: u64 = 61;
    pub const KILL: u64 = 62;
    pub const FCNTL: u64 = 72;
    pub const CHDIR: u64 = 80;
    pub const PTRACE: u64 = 101;
    pub const GETPPID: u64 = 110;
    pub const SETGROUPS: u64 = 116;
    pub const SETRESUID: u64 = 117;
    pub const SETRESGID: u64 = 119;
    pub const CAPSET: u64 = 126;
    pub const PRCTL: u64 = 157;
    pub const FUTEX: u64 = 202;
    pub const EPOLL_CTL: u64 = 233;
    pub const WAITID: u64 = 247;
    pub const PPOLL: u64 = 271;
    pub const TIMERFD_CREATE: u64 = 283;
    pub const SIGNALFD4: u64 = 289;
    pub const EPOLL_CREATE1: u64 = 291;
    pub const DUP3: u64 = 292;
    pub const PRLIMIT64: u64 = 302;
    pub const SECCOMP: u64 = 317;
    pub const EXECVEAT: u64 = 322;
    pub const CLOSE_RANGE: u64 = 436;
    pub const LANDLOCK_CREATE_RULESET: u64 = 444;
    pub const LANDLOCK_RESTRICT_SELF: u64 = 446;
}

/// Makes a system call and returns what the kernel returned: an errno is a number from -4095 to -1.
///
/// # Safety
///
/// As for the system call: pointers must be valid for what it does with them, and its effect on the process must
/// be one that the rest of the program can live with.
#[inline]
pub unsafe fn syscall(number: u64, args: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the caller answers for the call itself; the kernel preserves everything but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
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

/// Splits what [`syscall`] returned.
#[inline]
pub fn check(result: i64) -> Result<u64, Errno> {
    if (-4095..0).contains(&result) {
        Err(Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(0)))
    } else {
        Ok(result.cast_unsigned())
    }
}

/// The signal with which the C library has every thread take over a changed identity (see nptl(7)).
pub const SETXID: u32 = 33;

/// Blocks signals of this thread until dropped.
#[derive(Debug)]
pub struct BlockedSignals(u64);

impl BlockedSignals {
    /// Every signal. Around a raw clone: a handler of the host program must not run in a child that shares its
    /// memory.
    pub fn all() -> Self {
        Self::set(u64::MAX)
    }

    /// Every signal but [`SETXID`]. Around the start of a thread, which inherits this.
    ///
    /// Who changes the program's identity holds the C library's lock for new threads until every thread has answered
    /// to that signal: a thread that starts another one and does not answer would wait for ever, and so would they.
    pub fn all_but_setxid() -> Self {
        Self::set(!(1 << (SETXID - 1)))
    }

    fn set(blocked: u64) -> Self {
        let mut old = 0_u64;
        sigprocmask(&blocked, &mut old);
        Self(old)
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        let mut unused = 0;
        sigprocmask(&self.0, &mut unused);
    }
}

fn sigprocmask(new: &u64, old: &mut u64) {
    const SIG_SETMASK: u64 = 2;
    // SAFETY: both point at the 8 bytes of a kernel signal set; changing the mask of the calling thread is
    // undone by `BlockedSignals`. The call cannot fail with these arguments.
    unsafe {
        syscall(nr::RT_SIGPROCMASK, [SIG_SETMASK, address_of(new), core::ptr::from_mut(old) as u64, 8, 0, 0]);
    }
}

/// The address of `value`, as system calls take it.
#[inline]
pub fn address_of<T>(value: &T) -> u64 {
    core::ptr::from_ref(value) as u64
}

/// Blocks while `word` has the value `expected`. May return early.
pub fn futex_wait(word: &core::sync::atomic::AtomicU32, expected: u32) {
    const FUTEX_WAIT_PRIVATE: u64 = 128;
    // SAFETY: `word` is an aligned 32-bit integer that lives through the call.
    unsafe {
        syscall(nr::FUTEX, [address_of(word), FUTEX_WAIT_PRIVATE, u64::from(expected), 0, 0, 0]);
    }
}

/// Blocks while `word`, which the kernel clears when a process ends, has the value `expected`, and for `nanoseconds`
/// at most (under a second). May return early.
pub fn futex_wait_shared(word: &core::sync::atomic::AtomicU32, expected: u32, nanoseconds: u64) {
    const FUTEX_WAIT: u64 = 0;
    let timeout = [0, nanoseconds];
    // SAFETY: as above; the timeout is a timespec.
    unsafe {
        syscall(nr::FUTEX, [address_of(word), FUTEX_WAIT, u64::from(expected), address_of(&timeout), 0, 0]);
    }
}

/// Wakes everybody who waits with [`futex_wait_shared`].
pub fn futex_wake_shared(word: &core::sync::atomic::AtomicU32) {
    const FUTEX_WAKE: u64 = 1;
    // SAFETY: `word` is an aligned 32-bit integer.
    unsafe {
        syscall(nr::FUTEX, [address_of(word), FUTEX_WAKE, i32::MAX.cast_unsigned().into(), 0, 0, 0]);
    }
}

/// Wakes everybody who waits on `word`.
pub fn futex_wake(word: &core::sync::atomic::AtomicU32) {
    const FUTEX_WAKE_PRIVATE: u64 = 129;
    // SAFETY: the kernel only uses the address as a key; it need not even be mapped.
    unsafe {
        syscall(nr::FUTEX, [address_of(word), FUTEX_WAKE_PRIVATE, i32::MAX.cast_unsigned().into(), 0, 0, 0]);
    }
}
