//! Signals: their numbers, and what rustix cannot do with them.

use super::raw::{check, nr, syscall};
use linux_raw_sys::general::{self, SIG_SETMASK};
use rustix::io::Errno;
use std::ptr;

macro_rules! numbers {
    ($($name:ident)*) => { $(pub const $name: i32 = general::$name.cast_signed();)* };
}

numbers! { SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR2 SIGSEGV SIGPIPE SIGCHLD SIGCONT SIGSTOP SIGTTOU SIGSYS }

/// The signal with which the C library has every thread take over a changed identity: SIGSETXID of glibc (see nptl(7)),
/// SIGSYNCCALL of musl. Not more than that: 34 is the first real-time signal that a program may use with glibc.
pub const SETXID: i32 = if cfg!(target_env = "musl") { 34 } else { 33 };

/// A set of signals, as the kernel takes it.
pub const fn set<const N: usize>(signals: [i32; N]) -> u64 {
    let (mut set, mut index) = (0, 0);
    while index < N {
        set |= 1 << (signals[index] - 1);
        index += 1;
    }
    set
}

/// Blocks signals of this thread until dropped.
#[derive(Debug)]
pub struct BlockedSignals(u64);

impl BlockedSignals {
    /// Every signal. Around a raw clone: a handler of the host program must not run in a child that shares its
    /// memory.
    pub fn all() -> Self {
        Self(set_mask(u64::MAX))
    }

    /// Every signal but [`SETXID`]. Around the start of a thread, which inherits this.
    ///
    /// A thread that changes the program's identity holds the C library's lock for new threads until every thread has
    /// answered to that signal: a thread that starts another one and does not answer would wait for ever, and so would
    /// they.
    pub fn all_but_setxid() -> Self {
        Self(set_mask(!set([SETXID])))
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        set_mask(self.0);
    }
}

/// Sets the calling thread's signal mask and returns the old one.
fn set_mask(new: u64) -> u64 {
    let mut old = 0_u64;
    // SAFETY: both point at the 8 bytes of a kernel signal set; changing the mask of the calling thread is undone by
    // `BlockedSignals`. The call cannot fail with these arguments.
    unsafe { syscall!(nr::RT_SIGPROCMASK, SIG_SETMASK, &new, &raw mut old, 8) };
    old
}

/// Sends a signal to a thread of this program.
///
/// # Safety
///
/// The thread must exist and be prepared for the signal.
pub unsafe fn send_to_thread(thread: i32, signal: i32) {
    // SAFETY: the caller answers for the thread.
    unsafe { syscall!(nr::TGKILL, super::own_pid(), thread, signal) };
}

/// Takes a signal that is pending for the calling thread, which has it blocked, if it is.
pub fn take_pending(signal: i32) {
    let (set, zero) = (set([signal]), [0_u64; 2]);
    loop {
        // SAFETY: the set has 8 bytes, the time 16; where the signal's description goes is null.
        let result = unsafe { syscall!(nr::RT_SIGTIMEDWAIT, &set, ptr::null::<u8>(), &zero, 8) };
        if check(result) != Err(Errno::INTR) && result != i64::from(signal) {
            return;
        }
    }
}
