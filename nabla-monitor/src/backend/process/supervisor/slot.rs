//! What the host program and the supervisor share about one guest.

use crate::{
    exit::{DeniedCall, SyscallEntry},
    sys::{futex, usage::RawUsage},
};
use linux_raw_sys::ptrace::AUDIT_ARCH_I386;
use std::{
    cell::UnsafeCell,
    ptr,
    sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering::SeqCst},
};

/// In [`Slot::hold`]: before its launcher's first instruction, and when it ends.
pub const HOLD_ENDS: u32 = 1;
/// In [`Slot::hold`]: at every signal, too.
pub const HOLD_SIGNALS: u32 = 2;

/// In [`Slot::hold`]: when a debugger has interrupted it, or it was paused.
pub const HOLD_STOPS: u32 = 4;

/// One guest. Owned by the host program, which keeps it from the request to start the guest until
/// [`Slot::released`] is set; the supervisor uses it in between.
#[derive(Debug)]
pub struct Slot {
    /// The guest's pid. Only the supervisor touches it.
    pub pid: AtomicI32,
    /// Futex: 1 once it is known how the guest ended, or that it was let go. Its process is a zombie then.
    pub ended: AtomicU32,
    /// Set by the host program: the supervisor shall reap the guest as soon as it has ended. Until then the guest's pid
    /// stays its own.
    pub collected: AtomicU32,
    /// 1 while the supervisor traces the guest.
    pub traced: AtomicU32,
    /// Futex: 1 while the guest is stopped.
    pub stopped: AtomicU32,
    /// Set by the host program: the supervisor shall let the guest go.
    pub detach: AtomicU32,
    /// Set by the host program: the supervisor shall kill the guest.
    pub kill: AtomicU32,
    /// Set by the host program: at which stops the supervisor shall hold the guest (`HOLD_*`).
    pub hold: AtomicU32,
    /// 1 while it is held.
    pub held: AtomicU32,
    /// The wait status with which it stopped last while it was to be held.
    pub held_status: AtomicU32,
    /// The supervisor's descriptor of an event that tells of such stops and of the end; -1 when there is none. Only the
    /// supervisor touches it.
    pub event: AtomicI32,
    /// Futex: 1 once the supervisor is done with this slot for good.
    pub released: AtomicU32,
    /// Next in the supervisor's list. Only the supervisor touches it.
    pub next: AtomicPtr<Slot>,
    ending: UnsafeCell<Ending>,
}

// SAFETY: `ending` is written by the supervisor only, before it sets `ended`, and read by the host program only after it
// saw `ended`.
unsafe impl Sync for Slot {}

/// What the supervisor saw of a guest's end.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// The wait status; `None` for a guest that was let go.
    pub status: Option<u32>,
    pub usage: RawUsage,
    /// Largest resident memory in bytes, where the guest was traced.
    pub peak_resident: Option<u64>,
    pub report: Report,
}

/// What the supervisor saw before a guest's end.
#[derive(Debug, Clone, Copy)]
pub enum Report {
    /// Nothing worth telling.
    Nothing,
    /// A fault: signal, address where it is about memory, instruction.
    Fault { signal: i32, address: Option<u64>, instruction_pointer: u64 },
    /// A denied call.
    Denied(DeniedCall),
    /// A process sent SIGSYS, which is the filter's signal, too.
    SentSigsys,
}

impl Report {
    pub fn is_sent_sigsys(self) -> bool {
        matches!(self, Self::SentSigsys)
    }
}

impl Slot {
    pub fn new() -> Self {
        let ending =
            Ending { status: None, usage: RawUsage::default(), peak_resident: None, report: Report::Nothing };
        Self {
            pid: AtomicI32::new(0),
            ended: AtomicU32::new(0),
            collected: AtomicU32::new(0),
            traced: AtomicU32::new(0),
            stopped: AtomicU32::new(0),
            detach: AtomicU32::new(0),
            kill: AtomicU32::new(0),
            hold: AtomicU32::new(0),
            held: AtomicU32::new(0),
            held_status: AtomicU32::new(0),
            event: AtomicI32::new(-1),
            released: AtomicU32::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
            ending: UnsafeCell::new(ending),
        }
    }

    /// Changes what is known of the guest's end.
    ///
    /// # Safety
    ///
    /// Only the supervisor may call this, and only before it sets `ended`.
    pub unsafe fn update(&self, change: impl FnOnce(&mut Ending)) {
        // SAFETY: the caller is the only one who touches it now.
        change(unsafe { &mut *self.ending.get() });
    }

    /// What is known of the guest's end.
    ///
    /// # Safety
    ///
    /// As [`Self::update`].
    pub unsafe fn report(&self) -> Report {
        // SAFETY: the caller is the only one who touches it now.
        unsafe { (*self.ending.get()).report }
    }

    /// How the guest ended; `None` before that is known.
    pub fn ending(&self) -> Option<Ending> {
        // SAFETY: `ended` is set after the last write and never cleared.
        (self.ended.load(SeqCst) == 1).then(|| unsafe { *self.ending.get() })
    }

    /// Sets a futex that the kernel sets too, and wakes who waits on it.
    pub fn set_shared(word: &AtomicU32, value: u32) {
        word.store(value, SeqCst);
        futex::wake_shared(word);
    }

    /// Sets a futex and wakes who waits on it.
    pub fn set(word: &AtomicU32, value: u32) {
        word.store(value, SeqCst);
        futex::wake(word);
    }
}

/// What a denied call's registers say, and the architecture by whose table the kernel looked it up.
pub fn denied_call(registers: &super::super::arch::Registers, arch: u32) -> DeniedCall {
    const X32_BIT: u32 = 1 << 30;
    let r = registers;
    // After a seccomp kill the kernel has put the number back into rax.
    #[allow(clippy::cast_possible_truncation, reason = "the kernel looks at the low 32 bits too")]
    let number = r.rax as u32;
    let (entry, arguments) = if arch == AUDIT_ARCH_I386 {
        (SyscallEntry::I386, [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp])
    } else {
        let entry = if number & X32_BIT == 0 { SyscallEntry::X86_64 } else { SyscallEntry::X32 };
        (entry, [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9])
    };
    let number = if entry == SyscallEntry::X32 { number & !X32_BIT } else { number };
    DeniedCall { entry, number, arguments, instruction_pointer: r.rip }
}

#[cfg(test)]
mod tests {
    use super::{super::super::arch::Registers, *};

    #[test]
    fn denied_call_tells_the_three_entries_apart() {
        let registers =
            Registers { rax: 1 << 30 | 39, rdi: 1, rbx: 2, rip: 0x10_0002, ..Registers::default() };
        let x32 = denied_call(&registers, 0xc000_003e);
        assert_eq!((x32.entry, x32.number, x32.arguments[0]), (SyscallEntry::X32, 39, 1));
        let i386 = denied_call(&Registers { rax: 20, ..registers }, 0x4000_0003);
        assert_eq!((i386.entry, i386.number, i386.arguments[0]), (SyscallEntry::I386, 20, 2));
        let native = denied_call(&Registers { rax: 32, ..registers }, 0xc000_003e);
        assert_eq!(
            (native.entry, native.number, native.instruction_pointer),
            (SyscallEntry::X86_64, 32, 0x10_0002)
        );
    }
}
