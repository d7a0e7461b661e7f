//! What a debugger wants of a guest: requests of ptrace, which only the supervisor may make.

use super::{slot::Slot, start::close, task::ptrace};
use crate::sys::raw::{nr, syscall};
use linux_raw_sys::ptrace::{PTRACE_CONT, PTRACE_LISTEN, PTRACE_SINGLESTEP};
use rustix::io::Errno;
use std::sync::atomic::Ordering::SeqCst;

/// No request of ptrace: the descriptor that comes with it is an event, and tells from now on of stops and of the end.
pub const WATCH: u32 = u32::MAX;

/// One request. Lives in the host program until the answer is there.
#[derive(Debug)]
pub struct Command {
    pub slot: *const Slot,
    pub request: u32,
    pub address: u64,
    pub data: u64,
    /// As of a system call.
    pub result: i64,
}

/// Carries it out. Runs in the supervisor; see [`super::task`] for the rules.
pub fn carry_out(command: &mut Command, descriptor: i32) {
    // SAFETY: the host program keeps the slot as long as it talks about it.
    let guest = unsafe { &*command.slot };
    if guest.ended.load(SeqCst) == 1 {
        command.result = -i64::from(Errno::SRCH.raw_os_error());
        if descriptor >= 0 {
            close(descriptor);
        }
        return;
    }
    if command.request == WATCH {
        let old = guest.event.swap(descriptor, SeqCst);
        if old >= 0 {
            close(old);
        }
        if guest.held.load(SeqCst) == 1 {
            tell(guest);
        }
        command.result = 0;
        return;
    }
    if descriptor >= 0 {
        close(descriptor);
    }
    let resumes = matches!(command.request, PTRACE_CONT | PTRACE_LISTEN | PTRACE_SINGLESTEP);
    if resumes && guest.held.swap(0, SeqCst) == 0 {
        // It is not this debugger's to resume.
        command.result = -i64::from(Errno::SRCH.raw_os_error());
        return;
    }
    let pid = guest.pid.load(SeqCst);
    // SAFETY: the host program has put there what suits the request.
    command.result = unsafe { ptrace(command.request, pid, command.address, command.data) };
}

/// Tells who watches that something has happened.
pub fn tell(guest: &Slot) {
    write(guest.event.load(SeqCst));
}

/// After a slot was released, to which this event belonged.
pub fn tell_the_end(event: i32) {
    write(event);
    if event >= 0 {
        close(event);
    }
}

fn write(event: i32) {
    if event >= 0 {
        let one = 1_u64;
        // SAFETY: writes eight bytes to a descriptor of this process.
        unsafe { syscall!(nr::WRITE, event, &one, 8) };
    }
}
