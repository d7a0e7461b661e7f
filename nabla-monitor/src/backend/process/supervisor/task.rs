//! The supervisor's own code.
//!
//! It runs as a process that shares the host program's memory and nothing else with it. It must not allocate,
//! lock, panic or touch thread-local storage: only atomics, its own stack and raw system calls. (It has a dummy
//! thread control block, so that a stray access does no harm.)

use super::{
    super::arch::Registers,
    HostLink, command, peak,
    slot::{HOLD_SIGNALS, HOLD_STOPS, Report, Slot, denied_call},
    start,
};
use crate::{
    confine::descriptors,
    sys::{
        raw::{nr, syscall},
        signals::{
            self, SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP, SIGTTOU,
            SIGUSR2,
        },
        usage::RawUsage,
    },
};
use linux_raw_sys::{
    general::{__WALL, BUS_ADRERR, O_CLOEXEC, O_NONBLOCK, SI_KERNEL, WNOHANG, pollfd},
    prctl::{PR_SET_NAME, PR_SET_PDEATHSIG},
    ptrace::{
        PTRACE_CONT, PTRACE_DETACH, PTRACE_EVENT_EXEC, PTRACE_EVENT_EXIT, PTRACE_EVENT_STOP,
        PTRACE_GET_SYSCALL_INFO, PTRACE_GETEVENTMSG, PTRACE_GETREGS, PTRACE_GETSIGINFO, PTRACE_INTERRUPT,
        PTRACE_LISTEN,
    },
};
use rustix::{event::PollFlags, io::Errno};
use std::{ffi::c_void, ptr, sync::atomic::Ordering::SeqCst};

/// A thread of the host program ended; perhaps all of it did.
const SIG_PARENT: i32 = SIGUSR2;

/// The supervisor. `argument` is a [`HostLink`] that outlives it.
pub unsafe extern "C" fn main(argument: *mut c_void) -> ! {
    // SAFETY: the host program keeps it until this process has been reaped.
    let link = unsafe { &*argument.cast::<HostLink>() };
    let mut guests = Guests { first: ptr::null_mut() };
    if let Some(signals) = set_up(link) {
        while link.quit.load(SeqCst) == 0 && parent_is(link.host_pid) {
            match wait_for_work(link.socket, signals) {
                Work::Request => match start::serve(link) {
                    Some(slot) => guests.add(slot),
                    None => break,
                },
                Work::Signal => {}
                Work::End => break,
            }
            guests.heed_marks();
            guests.handle_events();
        }
    }
    // The traced ones would die anyway (PTRACE_O_EXITKILL).
    guests.kill_all();
    exit();
}

fn exit() -> ! {
    loop {
        // SAFETY: ends this process, which owns nothing.
        unsafe { syscall!(nr::EXIT, 0) };
    }
}

/// Gives up what is the host program's. Returns a descriptor that is readable when there is a signal.
fn set_up(link: &HostLink) -> Option<i32> {
    let default_action = [0_u64; 4];
    let set = signals::set([SIGCHLD, SIG_PARENT]);
    // SAFETY: all of this concerns only this process, whose signals are blocked: descriptors and directory are
    // copies, the name is per process, and a host program that ignores SIGCHLD must not make this one miss it.
    let signals = unsafe {
        // With a descriptor of the host program left, that would wait in vain for the ends of its pipes.
        if let Err(errno) = close_all_but(link.socket) {
            link.refused.store(errno.raw_os_error(), SeqCst);
            return None;
        }
        syscall!(nr::CHDIR, c"/".as_ptr());
        syscall!(nr::PRCTL, PR_SET_NAME, c"nabla-superviso".as_ptr());
        syscall!(nr::RT_SIGACTION, SIGCHLD, &default_action, 0, 8);
        syscall!(nr::PRCTL, PR_SET_PDEATHSIG, SIG_PARENT);
        // SFD_CLOEXEC and SFD_NONBLOCK are these.
        syscall!(nr::SIGNALFD4, -1, &set, 8, O_CLOEXEC | O_NONBLOCK)
    };
    i32::try_from(signals).ok().filter(|&fd| fd >= 0)
}

/// Closes every descriptor of this process but one.
///
/// # Safety
///
/// Nothing else of this process may use them.
unsafe fn close_all_but(kept: i32) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe {
        if (kept <= 0 || syscall!(nr::CLOSE_RANGE, 0, kept - 1, 0) == 0)
            && syscall!(nr::CLOSE_RANGE, kept + 1, u32::MAX, 0) == 0
        {
            return Ok(());
        }
    }
    descriptors::for_each_open(|descriptor| {
        if descriptor != kept {
            start::close(descriptor);
        }
    })
}

/// Kills a guest, which is a child of this process that has not been reaped.
pub fn kill(pid: i32) {
    // SAFETY: concerns only a guest.
    unsafe { syscall!(nr::KILL, pid, SIGKILL) };
}

fn parent_is(pid: i32) -> bool {
    // SAFETY: only returns a number.
    unsafe { syscall!(nr::GETPPID) == i64::from(pid) }
}

enum Work {
    Request,
    Signal,
    /// The host program's end of the socket is closed: it has ended, or become another program.
    End,
}

fn wait_for_work(socket: i32, signals: i32) -> Work {
    const POLLIN: i16 = PollFlags::IN.bits().cast_signed();
    const POLLHUP: i16 = PollFlags::HUP.bits().cast_signed();
    let mut set = [socket, signals].map(|fd| pollfd { fd, events: POLLIN, revents: 0 });
    // SAFETY: two structures, as said; no timeout, no signal mask.
    unsafe { syscall!(nr::PPOLL, set.as_mut_ptr(), 2, 0, 0) };
    let [from_host, of_signals] = set.map(|entry| entry.revents);
    if of_signals & POLLIN != 0 {
        // Which signals does not matter, since everything is looked at.
        let mut buffer = [0_u8; 128 * 8];
        // SAFETY: reads at most the buffer's size.
        while unsafe { syscall!(nr::READ, signals, buffer.as_mut_ptr(), 1024) } == 1024 {}
    }
    if from_host & POLLIN != 0 {
        Work::Request
    } else if from_host & POLLHUP != 0 {
        Work::End
    } else {
        Work::Signal
    }
}

/// One ptrace request; the result as of [`call`](crate::sys::raw::call).
///
/// # Safety
///
/// `data` must suit the request.
pub unsafe fn ptrace(request: u32, pid: i32, address: u64, data: u64) -> i64 {
    // SAFETY: concerns only a guest; the rest is the caller's promise.
    unsafe { syscall!(nr::PTRACE, request, pid, address, data) }
}

/// The guests: a list through their slots, which needs no memory of its own.
struct Guests {
    first: *mut Slot,
}

impl Guests {
    fn add(&mut self, slot: *mut Slot) {
        // SAFETY: a slot is kept by the host program until it is released.
        if let Some(guest) = unsafe { slot.as_ref() } {
            guest.next.store(self.first, SeqCst);
            self.first = slot;
        }
    }

    /// Kills those that shall be killed, and lets those go that shall be let go. A traced guest has to be stopped for
    /// that; the stop comes as an event.
    fn heed_marks(&mut self) {
        let mut slot = self.first;
        // SAFETY: slots in the list are kept until they are released.
        while let Some(guest) = unsafe { slot.as_ref() } {
            slot = guest.next.load(SeqCst);
            if guest.kill.swap(0, SeqCst) == 1 {
                kill(guest.pid.load(SeqCst));
            }
            if guest.hold.load(SeqCst) == 0 && guest.held.swap(0, SeqCst) == 1 {
                // No debugger has it any more.
                let status = guest.held_status.load(SeqCst);
                let signal = status >> 8 & 0xff;
                let (request, data) = match status >> 16 {
                    // What a debugger put there does not concern the guest.
                    0 if signal == SIGTRAP.cast_unsigned() => (PTRACE_CONT, 0),
                    0 => (PTRACE_CONT, signal),
                    PTRACE_EVENT_STOP if signal != SIGTRAP.cast_unsigned() => (PTRACE_LISTEN, 0),
                    _ => (PTRACE_CONT, 0),
                };
                // SAFETY: data is a signal's number.
                unsafe { ptrace(request, guest.pid.load(SeqCst), 0, u64::from(data)) };
            }
            if guest.detach.load(SeqCst) == 1 {
                guest.detach.store(2, SeqCst);
                let pid = guest.pid.load(SeqCst);
                if guest.traced.load(SeqCst) == 1 {
                    // SAFETY: no data.
                    unsafe { ptrace(PTRACE_INTERRUPT, pid, 0, 0) };
                } else {
                    self.release(pid);
                }
            }
        }
    }

    fn find(&self, pid: i32) -> Option<&Slot> {
        let mut slot = self.first;
        // SAFETY: as above.
        while let Some(guest) = unsafe { slot.as_ref() } {
            if guest.pid.load(SeqCst) == pid {
                return Some(guest);
            }
            slot = guest.next.load(SeqCst);
        }
        None
    }

    fn release(&mut self, pid: i32) {
        let mut link: *mut *mut Slot = &raw mut self.first;
        loop {
            // SAFETY: `link` is the list's head or a link inside a slot that is still in the list.
            let slot = unsafe { *link };
            // SAFETY: as above.
            let Some(guest) = (unsafe { slot.as_ref() }) else { return };
            if guest.pid.load(SeqCst) == pid {
                // SAFETY: as above.
                unsafe { *link = guest.next.load(SeqCst) };
                let event = guest.event.swap(-1, SeqCst);
                // From here on the slot may be freed at any time.
                Slot::set(&guest.released, 1);
                command::tell_the_end(event);
                return;
            }
            link = guest.next.as_ptr();
        }
    }

    fn kill_all(&self) {
        let mut slot = self.first;
        // SAFETY: as above. The host program may be gone, but its memory stays as long as this process uses it.
        while let Some(guest) = unsafe { slot.as_ref() } {
            kill(guest.pid.load(SeqCst));
            slot = guest.next.load(SeqCst);
        }
    }

    fn handle_events(&mut self) {
        loop {
            let (mut status, mut usage) = (0_u32, RawUsage::default());
            // SAFETY: the kernel writes the status and the usage. Every child of this process is a guest.
            let pid = unsafe { syscall!(nr::WAIT4, -1, &raw mut status, WNOHANG | __WALL, &raw mut usage) };
            let Ok(pid @ 1..) = i32::try_from(pid) else { return };
            if status & 0xff == 0x7f {
                self.handle_stop(pid, status);
            } else {
                if let Some(guest) = self.find(pid) {
                    // SAFETY: this is the supervisor, and the guest is not released.
                    unsafe {
                        guest.update(|ending| {
                            ending.status = Some(status);
                            ending.usage = usage;
                        });
                    }
                }
                self.release(pid);
            }
        }
    }

    fn handle_stop(&mut self, pid: i32, status: u32) {
        let signal = (status >> 8 & 0xff).cast_signed();
        let resume = |signal: i32| {
            // SAFETY: data is a signal's number.
            unsafe { ptrace(PTRACE_CONT, pid, 0, u64::from(signal.cast_unsigned())) };
        };
        let Some(guest) = self.find(pid) else { return resume(0) };
        let hold = guest.hold.load(SeqCst);
        let held = || {
            guest.held_status.store(status, SeqCst);
            guest.held.store(1, SeqCst);
            command::tell(guest);
        };
        match status >> 16 {
            PTRACE_EVENT_EXIT => {
                note_denied_call(guest, pid);
                if let Some(bytes) = peak::resident(pid) {
                    // SAFETY: this is the supervisor, and the guest is not released.
                    unsafe { guest.update(|ending| ending.peak_resident = Some(bytes)) };
                }
                if hold != 0 { held() } else { resume(0) }
            }
            PTRACE_EVENT_EXEC if hold != 0 => held(),
            PTRACE_EVENT_STOP if guest.detach.load(SeqCst) == 2 => {
                // A stopped guest stays stopped: the kernel keeps the group stop on its own.
                // SAFETY: no signal is injected.
                unsafe { ptrace(PTRACE_DETACH, pid, 0, 0) };
                self.release(pid);
            }
            PTRACE_EVENT_STOP if hold & HOLD_STOPS != 0 => held(),
            PTRACE_EVENT_STOP if (SIGSTOP..=SIGTTOU).contains(&signal) => {
                // SAFETY: no data.
                unsafe { ptrace(PTRACE_LISTEN, pid, 0, 0) };
                Slot::set(&guest.stopped, 1);
            }
            PTRACE_EVENT_STOP => {
                Slot::set(&guest.stopped, 0);
                resume(0);
            }
            PTRACE_EVENT_EXEC => resume(0),
            _ => {
                note_fault(guest, pid, signal);
                // A stop signal is to stop it, and not to have a debugger asked.
                let asked = hold & HOLD_SIGNALS != 0 && !(SIGSTOP..=SIGTTOU).contains(&signal);
                if asked { held() } else { resume(signal) }
            }
        }
    }
}

/// The first fields of a `siginfo_t`, at the size of the whole.
#[repr(C)]
#[derive(Clone, Copy)]
struct SignalInfo {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    address: u64,
    rest: [u64; 13],
}

fn set_report(guest: &Slot, report: Report) {
    // SAFETY: this is the supervisor, and the guest is not released.
    unsafe { guest.update(|ending| ending.report = report) };
}

/// At a signal's delivery: keeps what a fault's signal tells.
fn note_fault(guest: &Slot, pid: i32, signal: i32) {
    if signal == SIGSYS {
        // The filter's own signal does not come by here.
        set_report(guest, Report::SentSigsys);
    }
    if !matches!(signal, SIGSEGV | SIGBUS | SIGILL | SIGFPE | SIGTRAP) {
        return;
    }
    let mut info = SignalInfo { signal: 0, errno: 0, code: 0, padding: 0, address: 0, rest: [0; 13] };
    let mut registers = Registers::default();
    // SAFETY: both are as large as the kernel's structures.
    let known = unsafe {
        ptrace(PTRACE_GETSIGINFO, pid, 0, (&raw mut info) as u64) == 0
            && ptrace(PTRACE_GETREGS, pid, 0, (&raw mut registers) as u64) == 0
    };
    // A code of 0 or less means that a process sent the signal.
    if known && info.code > 0 {
        let memory = match signal {
            // SI_KERNEL: for example a non-canonical address, which the processor does not tell.
            SIGSEGV => info.code != SI_KERNEL.cast_signed(),
            // Not one for alignment, or for a stack that cannot be.
            SIGBUS => info.code == BUS_ADRERR.cast_signed(),
            _ => false,
        };
        let address = if memory { Some(info.address) } else { None };
        set_report(guest, Report::Fault { signal, address, instruction_pointer: registers.rip });
    }
}

/// The start of the kernel's `struct ptrace_syscall_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SyscallInfo {
    op: u8,
    padding: [u8; 3],
    arch: u32,
    rest: [u64; 10],
}

/// At a guest's exit: when SIGSYS killed it, keeps the call.
fn note_denied_call(guest: &Slot, pid: i32) {
    const SIZE: u64 = size_of::<SyscallInfo>() as u64;
    // SAFETY: this is the supervisor, and the guest is not released.
    if unsafe { guest.report() }.is_sent_sigsys() {
        return;
    }
    let mut status = 0_u64;
    let mut registers = Registers::default();
    let mut info = SyscallInfo { op: 0, padding: [0; 3], arch: 0, rest: [0; 10] };
    // SAFETY: the kernel writes one word, the registers, and at most as much of the information as it is told.
    let known = unsafe {
        ptrace(PTRACE_GETEVENTMSG, pid, 0, (&raw mut status) as u64) == 0
            && status & 0x7f == u64::from(SIGSYS.cast_unsigned())
            && ptrace(PTRACE_GETREGS, pid, 0, (&raw mut registers) as u64) == 0
            && ptrace(PTRACE_GET_SYSCALL_INFO, pid, SIZE, (&raw mut info) as u64) > 0
    };
    if known {
        set_report(guest, Report::Denied(denied_call(&registers, info.arch)));
    }
}
