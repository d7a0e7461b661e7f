//! System calls without libc.
//!
//! Two places cannot use libc or rustix: the child between clone and exec and the supervisor. Both share the host
//! program's memory but are no threads of it, so they must not touch thread-local storage, and `errno` lives
//! there. Everything else in this crate uses rustix, but for calls that rustix does not have.

use core::arch::asm;
use rustix::io::Errno;

/// Numbers of the system calls that this crate makes, has the launcher make, or allows in a filter.
pub mod nr {
    pub use linux_raw_sys::general::{
        __NR_brk as BRK, __NR_capset as CAPSET, __NR_chdir as CHDIR, __NR_clock_gettime as CLOCK_GETTIME,
        __NR_clone as CLONE, __NR_close as CLOSE, __NR_close_range as CLOSE_RANGE, __NR_dup3 as DUP3,
        __NR_epoll_create1 as EPOLL_CREATE1, __NR_epoll_ctl as EPOLL_CTL, __NR_epoll_pwait as EPOLL_PWAIT,
        __NR_epoll_pwait2 as EPOLL_PWAIT2, __NR_epoll_wait as EPOLL_WAIT, __NR_execve as EXECVE,
        __NR_execveat as EXECVEAT, __NR_exit as EXIT, __NR_exit_group as EXIT_GROUP, __NR_fcntl as FCNTL,
        __NR_futex as FUTEX, __NR_getdents64 as GETDENTS64, __NR_getpid as GETPID, __NR_getppid as GETPPID,
        __NR_getrusage as GETRUSAGE, __NR_ioctl as IOCTL, __NR_kill as KILL,
        __NR_landlock_create_ruleset as LANDLOCK_CREATE_RULESET,
        __NR_landlock_restrict_self as LANDLOCK_RESTRICT_SELF, __NR_madvise as MADVISE,
        __NR_mincore as MINCORE, __NR_mmap as MMAP, __NR_mprotect as MPROTECT, __NR_munmap as MUNMAP,
        __NR_open as OPEN, __NR_pidfd_open as PIDFD_OPEN, __NR_poll as POLL, __NR_ppoll as PPOLL,
        __NR_prctl as PRCTL, __NR_pread64 as PREAD64, __NR_prlimit64 as PRLIMIT64, __NR_ptrace as PTRACE,
        __NR_pwrite64 as PWRITE64, __NR_read as READ, __NR_recvmsg as RECVMSG,
        __NR_rt_sigaction as RT_SIGACTION, __NR_rt_sigprocmask as RT_SIGPROCMASK,
        __NR_rt_sigreturn as RT_SIGRETURN, __NR_rt_sigtimedwait as RT_SIGTIMEDWAIT,
        __NR_sched_yield as SCHED_YIELD, __NR_seccomp as SECCOMP, __NR_sendmsg as SENDMSG,
        __NR_setgid as SETGID, __NR_setgroups as SETGROUPS, __NR_setregid as SETREGID,
        __NR_setresgid as SETRESGID, __NR_setresuid as SETRESUID, __NR_setreuid as SETREUID,
        __NR_setuid as SETUID, __NR_sigaltstack as SIGALTSTACK, __NR_signalfd4 as SIGNALFD4,
        __NR_tgkill as TGKILL, __NR_timerfd_create as TIMERFD_CREATE, __NR_wait4 as WAIT4,
        __NR_waitid as WAITID, __NR_write as WRITE,
    };
}

/// Makes a system call with up to six arguments and returns what the kernel returned: an errno is a number from -4095
/// to -1. Arguments are whatever is an [`Argument`]. As unsafe as [`call`].
macro_rules! syscall {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::sys::raw::call($number, $crate::sys::raw::padded([$($crate::sys::raw::Argument::word($argument)),*]))
    };
}
pub(crate) use syscall;

/// What a system call takes as an argument.
pub trait Argument {
    /// As the kernel takes it. Numbers of 32 bits are extended as C does it.
    fn word(self) -> u64;
}

macro_rules! argument {
    ($(<$of:ident>)? $value:ident: $kind:ty => $word:expr) => {
        impl$(<$of>)? Argument for $kind {
            #[inline]
            fn word(self) -> u64 {
                let $value = self;
                $word
            }
        }
    };
}

argument!(number: u64 => number);
argument!(number: u32 => number.into());
argument!(number: i32 => i64::from(number).cast_unsigned());
argument!(<T> pointer: *const T => pointer as u64);
argument!(<T> pointer: *mut T => pointer as u64);
argument!(<T> reference: &T => core::ptr::from_ref(reference) as u64);

/// The arguments, and zeros for those that are not given.
#[inline]
pub const fn padded<const N: usize>(given: [u64; N]) -> [u64; 6] {
    const { assert!(N <= 6) };
    let (mut all, mut index) = ([0; 6], 0);
    while index < N {
        all[index] = given[index];
        index += 1;
    }
    all
}

/// Makes a system call and returns what the kernel returned: an errno is a number from -4095 to -1.
///
/// # Safety
///
/// As for the system call: pointers must be valid for what it does with them, and its effect on the process must
/// be one that the rest of the program can live with.
#[inline]
pub unsafe fn call(number: u32, args: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the caller answers for the call itself; the kernel preserves everything but rax, rcx and r11.
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

/// Splits what [`call`] returned.
#[inline]
pub fn check(result: i64) -> Result<u64, Errno> {
    if (-4095..0).contains(&result) {
        Err(Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(0)))
    } else {
        Ok(result.cast_unsigned())
    }
}
