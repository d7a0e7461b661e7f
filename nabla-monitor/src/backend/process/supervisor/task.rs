//! The supervisor's own code.
//!
//! It runs as a process that shares the host program's memory and nothing else with it. It must not allocate,
//! lock, panic or touch thread-local storage: only atomics, its own stack and raw system calls. (It has a dummy
//! thread control block, so that a stray access does no harm.)

use super::{
    super::arch::Registers,
    CLOSING, HostLink, MAKING_EVENT_SET, SET_UP, STARTING, command, peak,
    slot::{HOLD_SIGNALS, HOLD_STOPS, Report, Slot, denied_call},
    start,
};
use crate::{
    confine::descriptors,
    sys::{
        raw::{check, nr, syscall},
        signals::{
            self, SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP, SIGTTOU,
            SIGUSR2,
        },
        usage::RawUsage,
    },
};
use linux_raw_sys::{
    general::{
        __WALL, BUS_ADRERR, CLD_EXITED, CLD_TRAPPED, EPOLL_CLOEXEC, O_CLOEXEC, O_NONBLOCK, P_ALL, P_PID,
        SI_KERNEL, WEXITED, WNOHANG, WNOWAIT, WSTOPPED, epoll_event, pollfd,
    },
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
    let Sources { signals, exits } = match set_up(link) {
        Ok(sources) => {
            Slot::set(&link.set_up, SET_UP);
            sources
        }
        Err(errno) => {
            Slot::set(&link.set_up, errno.raw_os_error().cast_unsigned());
            exit();
        }
    };
    let mut guests = Guests { first: ptr::null_mut(), exits };
    while link.quit.load(SeqCst) == 0 && parent_is(link.host_pid) {
        match wait_for_work([link.socket, signals, exits]) {
            Work::Request => match start::serve(link, exits) {
                Some(slot) => guests.add(slot),
                None => break,
            },
            Work::Event => {}
            Work::End => break,
        }
        guests.heed_marks();
        guests.handle_stops();
        guests.handle_exits();
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

/// What tells of events.
struct Sources {
    /// Readable when there is a signal.
    signals: i32,
    /// An epoll set, in which guests' pidfds become readable.
    exits: i32,
}

/// Gives up what is the host program's.
fn set_up(link: &HostLink) -> Result<Sources, Errno> {
    let default_action = [0_u64; 4];
    let set = signals::set([SIGCHLD, SIG_PARENT]);
    let descriptor = |result| check(result).map(|fd| i32::try_from(fd).unwrap_or(-1));
    // SAFETY: all of this concerns only this process, whose signals are blocked: nothing is closed before it has a
    // descriptor table of its own, the directory is a copy, the name is per process, and a host program that ignores
    // SIGCHLD must not make this one miss it.
    unsafe {
        // With a descriptor of the host program left, that would wait in vain for the ends of its pipes.
        let at = |step: usize| link.step.store(step, SeqCst);
        at(CLOSING);
        close_all_but(link.socket, link.has_own_table)?;
        at(STARTING);
        syscall!(nr::CHDIR, c"/".as_ptr());
        syscall!(nr::PRCTL, PR_SET_NAME, c"nabla-superviso".as_ptr());
        syscall!(nr::RT_SIGACTION, SIGCHLD, &default_action, 0, 8);
        syscall!(nr::PRCTL, PR_SET_PDEATHSIG, SIG_PARENT);
        // SFD_CLOEXEC and SFD_NONBLOCK are these.
        let signals = descriptor(syscall!(nr::SIGNALFD4, -1, &set, 8, O_CLOEXEC | O_NONBLOCK))?;
        at(MAKING_EVENT_SET);
        Ok(Sources { signals, exits: descriptor(syscall!(nr::EPOLL_CREATE1, EPOLL_CLOEXEC))? })
    }
}

/// Closes every descriptor of this process but one. A descriptor table that is shared becomes one of its own before.
///
/// # Safety
///
/// Nothing else of this process may use them.
unsafe fn close_all_but(kept: i32, has_own_table: bool) -> Result<(), Errno> {
    // linux/close_range.h
    const CLOSE_RANGE_UNSHARE: u32 = 2;
    // SAFETY: the caller's promise.
    unsafe {
        // What is in this range is not even copied.
        let closed = check(syscall!(nr::CLOSE_RANGE, kept + 1, u32::MAX, CLOSE_RANGE_UNSHARE));
        if closed.is_ok() && (kept <= 0 || syscall!(nr::CLOSE_RANGE, 0, kept - 1, 0) == 0) {
            return Ok(());
        }
        // Those of the host program must stay open.
        if !has_own_table {
            closed?;
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
    Event,
    /// The host program's end of the socket is closed: it has ended, or become another program.
    End,
}

fn wait_for_work([socket, signals, exits]: [i32; 3]) -> Work {
    const POLLIN: i16 = PollFlags::IN.bits().cast_signed();
    const POLLHUP: i16 = PollFlags::HUP.bits().cast_signed();
    let mut set = [socket, signals, exits].map(|fd| pollfd { fd, events: POLLIN, revents: 0 });
    // SAFETY: three structures, as said; no timeout, no signal mask.
    unsafe { syscall!(nr::PPOLL, set.as_mut_ptr(), 3, 0, 0) };
    let [from_host, of_signals, _] = set.map(|entry| entry.revents);
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
        Work::Event
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
    /// See [`Sources`]. Its data are a guest's pid, and above that, for one that was let go, one more than the number of the
    /// pidfd that is kept for it.
    exits: i32,
}

impl Guests {
    fn add(&mut self, slot: *mut Slot) {
        // SAFETY: a slot is kept by the host program until it is released.
        if let Some(guest) = unsafe { slot.as_ref() } {
            guest.next.store(self.first, SeqCst);
            self.first = slot;
        }
    }

    /// Kills those that shall be killed, reaps those that have been collected, and lets those go that shall be let go. A
    /// traced guest has to be stopped for that; the stop comes as an event.
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
            let pid = guest.pid.load(SeqCst);
            if guest.detach.load(SeqCst) == 1 {
                guest.detach.store(2, SeqCst);
                if guest.traced.load(SeqCst) == 1 {
                    // SAFETY: no data.
                    unsafe { ptrace(PTRACE_INTERRUPT, pid, 0, 0) };
                } else {
                    self.let_go(pid);
                    continue;
                }
            }
            if guest.collected.load(SeqCst) == 1 {
                // The slot may be gone then.
                self.reap(pid);
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
                Slot::set(&guest.ended, 1);
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

    /// Forgets a guest that lives on. It is a child of this process as long as both live, and reaped by it.
    fn let_go(&mut self, pid: i32) {
        // The pidfd that has been watched so far is closed by the host program.
        // SAFETY: only makes a descriptor. The guest has not been reaped, so the number is its own.
        let pidfd = unsafe { syscall!(nr::PIDFD_OPEN, pid, 0) };
        if let Ok(pidfd @ 0..) = i32::try_from(pidfd) {
            let [of_pid, kept] = [pid, pidfd + 1].map(|number| u64::from(number.cast_unsigned()));
            if start::watch_exit(self.exits, pidfd, kept << 32 | of_pid).is_err() {
                start::close(pidfd);
            }
        }
        self.release(pid);
    }

    fn handle_stops(&mut self) {
        while let Some(Change { pid, code, status, .. }) = next_change(P_ALL, 0, WSTOPPED) {
            // Others are not traced, and were stopped by another process.
            if code == CLD_TRAPPED {
                self.handle_stop(pid, status << 8 | 0x7f);
            }
        }
    }

    fn handle_exits(&mut self) {
        loop {
            const MOST: usize = 16;
            let mut events = [epoll_event { events: 0, data: 0 }; MOST];
            // SAFETY: the kernel writes at most as many events as there are. It does not wait.
            let count = unsafe { syscall!(nr::EPOLL_WAIT, self.exits, events.as_mut_ptr(), MOST as u64, 0) };
            let count = usize::try_from(count).unwrap_or(0);
            for event in events.iter().take(count) {
                let data = event.data;
                let low = |word: u64| i32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
                if let pidfd @ 0.. = low(data >> 32) - 1 {
                    start::close(pidfd);
                }
                self.handle_exit(low(data));
            }
            if count < events.len() {
                return;
            }
        }
    }

    /// A guest has ended. Who still wants to know how leaves it a zombie until then, so that its pid stays its own.
    fn handle_exit(&mut self, pid: i32) {
        match self.find(pid) {
            Some(guest) if guest.collected.load(SeqCst) == 0 => {
                if let Some(change) = end_of(pid) {
                    note_end(guest, &change);
                }
            }
            _ => self.reap(pid),
        }
    }

    /// Reaps a guest, if it has ended.
    fn reap(&mut self, pid: i32) {
        let Some(change) = end_of(pid) else { return };
        // Whoever finds that nothing is known of an end relies on the pid.
        if let Some(guest) = self.find(pid) {
            note_end(guest, &change);
        }
        next_change(P_PID, pid, WEXITED);
        self.release(pid);
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
                self.let_go(pid);
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

/// What has become of a guest: see waitid(2).
struct Change {
    pid: i32,
    /// `CLD_*`: those below [`CLD_TRAPPED`] are of processes that ended.
    code: u32,
    status: u32,
    usage: RawUsage,
}

/// The next change of this kind, if there is one.
fn next_change(which: u32, pid: i32, kind: u32) -> Option<Change> {
    let mut info = [0_i32; 32];
    let mut usage = RawUsage::default();
    let kind = kind | WNOHANG | __WALL;
    // SAFETY: `info` has the 128 bytes of a siginfo_t. Every child of this process is a guest.
    let result = unsafe { syscall!(nr::WAITID, which, pid, info.as_mut_ptr(), kind, &raw mut usage) };
    let [_, _, code, _, pid, _, status, ..] = info;
    let (code, status) = (code.cast_unsigned(), status.cast_unsigned());
    (result == 0 && pid > 0).then_some(Change { pid, code, status, usage })
}

/// How a guest ended, if it has. It is not reaped by this.
fn end_of(pid: i32) -> Option<Change> {
    // A traced one's stops are told whatever is asked for.
    next_change(P_PID, pid, WEXITED | WNOWAIT).filter(|change| change.code < CLD_TRAPPED)
}

/// Keeps how a guest ended, the first time.
fn note_end(guest: &Slot, change: &Change) {
    if guest.ended.load(SeqCst) == 1 {
        return;
    }
    // As wait(2) has it.
    let status = if change.code == CLD_EXITED { change.status << 8 } else { change.status };
    // SAFETY: this is the supervisor, and it has not said that the guest ended.
    unsafe {
        guest.update(|ending| {
            ending.status = Some(status);
            ending.usage = change.usage;
        });
    }
    Slot::set(&guest.ended, 1);
    command::tell(guest);
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
