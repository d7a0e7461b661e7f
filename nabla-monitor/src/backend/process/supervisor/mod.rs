//! The supervisor: the parent of guests, and who sees why they ended.
//!
//! A guest must not be a child of the host program: exec gives every process SIGCHLD as its exit signal, so the
//! guest would appear in the host program's `wait(-1)`, and be lost where SIGCHLD is ignored. And a wait status
//! tells that a guest was killed by SIGSYS or SIGSEGV, but not which call or address it was; ptrace does, but
//! its events appear in `wait` of the whole tracing process.
//!
//! Therefore guests are started, traced and reaped by a process of its own, which shares the host program's memory as a
//! thread does, and nothing else: it has no signal handler, no directory, and only three descriptors. It never executes
//! anything, so its own exit signal stays 0 and no `wait` of the host program sees it. One serves every guest of a
//! `Runtime`. It ends with the host program, however that ends, and takes the guests with it.

pub mod command;
mod peak;
mod slot;
mod start;
mod task;

pub use self::{
    slot::{Ending, HOLD_ENDS, HOLD_SIGNALS, HOLD_STOPS, Report, Slot},
    start::Request,
};

use self::{command::Command, start::Subject};
use super::arch;
use crate::{
    confine::descriptors,
    step::LaunchStep,
    sys::{lock, own_pid, raw::check, signals::BlockedSignals},
};
use linux_raw_sys::general::{__WCLONE, CLONE_FILES, CLONE_SETTLS, CLONE_VM};
use rustix::{
    io::Errno,
    mm,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::{Gid, Pid, PidfdFlags, Uid, WaitId, WaitIdOptions, getegid, geteuid, pidfd_open, waitid},
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::{ManuallyDrop, MaybeUninit},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
};

const PAGE: usize = 4096;
/// Of the supervisor. Only what is touched is used.
const STACK_SIZE: usize = 256 << 10;
/// Of a guest's process until it executes the launcher.
const CHILD_STACK_SIZE: usize = 64 << 10;

/// What host program and supervisor share.
#[derive(Debug)]
struct HostLink {
    /// The host program's process.
    host_pid: i32,
    /// The supervisor's end of the socket, by its number, which is the same in both descriptor tables at first.
    socket: i32,
    /// Top of the stack for guests' processes.
    child_stack: *mut std::ffi::c_void,
    /// 1: the supervisor shall end.
    quit: AtomicU32,
    /// Whether its descriptor table is a copy of the host program's from the start, and not shared until it takes its own.
    has_own_table: bool,
    /// What it does at the start: an index of [`STEPS`].
    step: AtomicUsize,
    /// Futex: 0 until the supervisor has given up what is the host program's; then [`SET_UP`], or the errno that it failed
    /// with.
    set_up: AtomicU32,
}

/// What a supervisor does before it serves, by which a failure is told.
const STEPS: [LaunchStep; 3] =
    [LaunchStep::StartSupervisor, LaunchStep::CloseInherited, LaunchStep::CreateEventSet];
const STARTING: usize = 0;
const CLOSING: usize = 1;
const MAKING_EVENT_SET: usize = 2;

/// In [`HostLink::set_up`]: no errno is that large.
const SET_UP: u32 = u32::MAX;

/// A running supervisor. Ends it when dropped, and the guests that it still has.
#[derive(Debug)]
pub struct Supervisor {
    pid: i32,
    /// Our end; `None` only while this is dropped.
    socket: Option<OwnedFd>,
    /// Held from a request to its answer.
    turn: Mutex<()>,
    link: ManuallyDrop<Box<HostLink>>,
    /// User and group it was started with.
    identity: (Uid, Gid),
    stacks: ManuallyDrop<Stacks>,
}

// SAFETY: the pointer in `HostLink` is to memory of `Stacks`, which only the supervisor uses.
unsafe impl Send for Supervisor {}
// SAFETY: as above.
unsafe impl Sync for Supervisor {}

/// Memory for two stacks and a thread control block, in this order, each after a guard page.
#[derive(Debug)]
struct Stacks(*mut std::ffi::c_void);

impl Stacks {
    const SIZE: usize = PAGE + STACK_SIZE + PAGE + CHILD_STACK_SIZE + PAGE;

    fn new() -> io::Result<Self> {
        let protection = mm::ProtFlags::READ | mm::ProtFlags::WRITE;
        let flags = mm::MapFlags::PRIVATE | mm::MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), Self::SIZE, protection, flags)? };
        let stacks = Self(base);
        for guard in [base, stacks.top()] {
            // SAFETY: a page of the mapping above, which is not in use yet.
            unsafe { mm::mprotect(guard, PAGE, mm::MprotectFlags::empty())? };
        }
        // The first word of a thread control block points at itself.
        // SAFETY: `tls` is the start of the mapping's last page.
        unsafe { stacks.tls().cast::<*mut std::ffi::c_void>().write(stacks.tls()) };
        Ok(stacks)
    }

    fn top(&self) -> *mut std::ffi::c_void {
        self.0.wrapping_byte_add(PAGE + STACK_SIZE)
    }

    fn child_top(&self) -> *mut std::ffi::c_void {
        self.tls()
    }

    fn tls(&self) -> *mut std::ffi::c_void {
        self.0.wrapping_byte_add(Self::SIZE - PAGE)
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; the supervisor that ran on it has been reaped.
        unsafe {
            let _ = mm::munmap(self.0, Self::SIZE);
        }
    }
}

impl Supervisor {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When the process, its stack, its socket or its descriptor table cannot be made, with the step that failed.
    pub fn new() -> Result<Self, (LaunchStep, io::Error)> {
        let failed = |error| (LaunchStep::StartSupervisor, error);
        let (supervisor, theirs) = Self::spawn().map_err(failed)?;
        let state = &supervisor.link.set_up;
        while state.load(SeqCst) == 0 && supervisor.is_alive() {
            supervisor.wait_briefly(state, 0);
        }
        // Not before: it is the supervisor's, too, until that has a table of its own.
        drop(theirs);
        match state.load(SeqCst) {
            SET_UP => Ok(supervisor),
            0 => Err(failed(io::Error::other("the supervisor has been killed"))),
            errno => {
                let step = STEPS[supervisor.link.step.load(SeqCst).min(STEPS.len() - 1)];
                Err((step, io::Error::from_raw_os_error(errno.cast_signed())))
            }
        }
    }

    /// Starts the process, with the socket that is its own.
    fn spawn() -> io::Result<(Self, OwnedFd)> {
        let stacks = Stacks::new()?;
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut link = Box::new(HostLink {
            host_pid: own_pid(),
            socket: theirs.as_raw_fd(),
            child_stack: stacks.child_top(),
            quit: AtomicU32::new(0),
            has_own_table: !descriptors::has_close_range(),
            step: AtomicUsize::new(STARTING),
            set_up: AtomicU32::new(0),
        });
        let argument = (&raw mut *link).cast();
        let blocked = BlockedSignals::all();
        // It shares the descriptor table until it takes its own, instead of having a copy from the start: a copy would keep
        // everything open that the program closes before the new process first runs, and locked disks locked. Without
        // close_range there is no way to its own but this: filters that deny that call deny unshare, too.
        let table = if link.has_own_table { 0 } else { CLONE_FILES };
        let flags = CLONE_VM | table | CLONE_SETTLS;
        // SAFETY: `task::main` keeps the rules; stack, block and argument live until `drop` has reaped it; no
        // signal handler can run in it, since signals are blocked and stay so.
        let result = unsafe { arch::clone_task(flags, stacks.top(), stacks.tls(), task::main, argument) };
        drop(blocked);
        let pid = i32::try_from(check(result)?).unwrap_or(-1);
        let supervisor = Self {
            pid,
            socket: Some(socket),
            turn: Mutex::new(()),
            link: ManuallyDrop::new(link),
            identity: identity(),
            stacks: ManuallyDrop::new(stacks),
        };
        Ok((supervisor, theirs))
    }

    /// Has a guest started. `descriptors` get the numbers 0, 1, 2 and so on in the guest's process; a cgroup's
    /// `cgroup.procs`, if the request has one, comes last.
    ///
    /// # Errors
    ///
    /// The step that failed and why; then there is no process left, and the slot is free.
    pub fn start(
        &self,
        request: &mut Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd, (LaunchStep, io::Error)> {
        let lost = |error: io::Error| (LaunchStep::CreateProcess, error);
        let _turn = lock(&self.turn);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(start::MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err((LaunchStep::ArrangeDescriptors, Errno::MFILE.into()));
        }
        self.send(ptr::from_mut(request).cast(), Subject::Start, &mut control)
            .map_err(|errno| lost(errno.into()))?;
        let socket = self.socket.as_ref().ok_or_else(|| lost(Errno::BADF.into()))?;
        let mut answer = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(socket, &mut [IoSliceMut::new(&mut answer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(|errno| lost(errno.into()))?;
        if received.bytes == 0 {
            return Err(lost(io::Error::other("the supervisor has been killed")));
        }
        if let Some((stage, errno)) = request.failed {
            return Err((stage, errno.into()));
        }
        let pidfd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        pidfd.ok_or_else(|| {
            // The guest runs, and there is nothing to watch it by.
            // SAFETY: the caller keeps the slot until the guest has ended, or this returns.
            let slot = unsafe { &*request.slot() };
            self.kill(slot);
            self.release(slot);
            lost(Errno::MFILE.into())
        })
    }

    fn send(
        &self,
        about: *mut std::ffi::c_void,
        subject: Subject,
        control: &mut SendAncillaryBuffer<'_, '_, '_>,
    ) -> Result<(), Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::BADF)?;
        let (address, subject) = (about.expose_provenance().to_ne_bytes(), (subject as u64).to_ne_bytes());
        let message = [IoSlice::new(&address), IoSlice::new(&subject)];
        rustix::io::retry_on_intr(|| sendmsg(socket, &message, control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Has it make one request about a guest that it traces. `event` comes with [`command::WATCH`].
    ///
    /// # Errors
    ///
    /// Those of the request; `ESRCH` when the guest has ended or is not stopped, or there is no supervisor any more.
    ///
    /// # Safety
    ///
    /// `data` must suit the request.
    pub unsafe fn command(
        &self,
        slot: &Slot,
        request: u32,
        address: u64,
        data: u64,
        event: Option<BorrowedFd<'_>>,
    ) -> Result<u64, Errno> {
        let _turn = lock(&self.turn);
        let mut command = Command { slot, request, address, data, result: 0 };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = event.as_slice();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::INVAL);
        }
        self.send((&raw mut command).cast(), Subject::Command, &mut control)?;
        let socket = self.socket.as_ref().ok_or(Errno::BADF)?;
        let received = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut [0_u8; 1]))?;
        if received == 0 {
            return Err(Errno::SRCH);
        }
        // SAFETY: the supervisor has written it, and is done with it.
        check(unsafe { ptr::read_volatile(&raw const command.result) })
    }

    /// Makes it look at the slots' flags. By a message and not a signal: a program that has given up root may not
    /// send it any.
    pub fn wake(&self) {
        // If it is gone, the message is not needed.
        let _ = self.send(ptr::null_mut(), Subject::Wake, &mut SendAncillaryBuffer::default());
    }

    /// Whether it runs as the same user as this program now does. Otherwise a program that has given up root would
    /// still start guests as root.
    pub fn has_our_rights(&self) -> bool {
        self.identity == identity()
    }

    /// Whether it still runs. It may have been killed, and the guests with it.
    pub fn is_alive(&self) -> bool {
        !self.has_ended(true)
    }

    fn has_ended(&self, no_wait: bool) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return true };
        let mut flags = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(__WCLONE);
        if no_wait {
            flags |= WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        }
        let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), flags));
        // An error says that there is no such child: it has ended.
        !matches!(status, Ok(None))
    }

    /// Has a guest killed that this program may not kill itself.
    pub fn kill(&self, slot: &Slot) {
        slot.kill.store(1, SeqCst);
        self.wake();
    }

    /// Lets a guest go, so that it outlives this program.
    pub fn detach(&self, slot: &Slot) {
        slot.detach.store(1, SeqCst);
        self.release(slot);
    }

    /// Has a guest reaped that has ended or is about to, so that its pid may be another process's then. Waits until it is
    /// known how it ended, or there is no supervisor to know it.
    pub fn collect(&self, slot: &Slot) {
        slot.collected.store(1, SeqCst);
        while slot.ended.load(SeqCst) == 0 && self.is_alive() {
            self.wait_briefly(&slot.ended, 0);
        }
        if slot.released.load(SeqCst) == 0 {
            // It may have seen the end before the mark.
            self.wake();
        }
    }

    /// The same, or for a guest that is to be let go. Waits until the supervisor is done with `slot`, or is no more.
    pub fn release(&self, slot: &Slot) {
        slot.collected.store(1, SeqCst);
        while slot.released.load(SeqCst) == 0 && self.is_alive() {
            // Each time: then it looks whether the guest has ended, which it may not have been told.
            self.wake();
            self.wait_briefly(&slot.released, 0);
        }
    }

    /// A descriptor that is readable once there is no supervisor any more.
    pub fn open_pidfd(&self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).ok_or(Errno::SRCH)?;
        Ok(pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// Waits until `word` changes, for a tenth of a second at most: a supervisor that was killed does not wake its
    /// waiters.
    pub fn wait_briefly(&self, word: &AtomicU32, value: u32) {
        use rustix::thread::futex;
        let timeout = futex::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _ = futex::wait(word, futex::Flags::PRIVATE, value, Some(&timeout));
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // After a fork without exec there are two of these, and only the original's supervisor exists.
        if own_pid() == self.link.host_pid {
            self.link.quit.store(1, SeqCst);
            self.wake();
            self.socket = None;
            self.has_ended(false);
        }
        // SAFETY: the supervisor that used them has been reaped, or is one of another process.
        unsafe {
            ManuallyDrop::drop(&mut self.link);
            ManuallyDrop::drop(&mut self.stacks);
        }
    }
}

fn identity() -> (Uid, Gid) {
    (geteuid(), getegid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisor_without_guests_starts_and_ends() {
        let supervisor = Supervisor::new().unwrap();
        assert!(supervisor.is_alive());
        let pid = supervisor.pid;
        drop(supervisor);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_file_that_was_open_at_its_start_can_be_locked_anew() {
        use rustix::fs::{FlockOperation::NonBlockingLockExclusive, flock};
        for _ in 0..50 {
            let file = tempfile::NamedTempFile::new().unwrap();
            flock(&file, NonBlockingLockExclusive).unwrap();
            let (path, supervisor) = (file.into_temp_path(), Supervisor::new().unwrap());
            flock(std::fs::File::open(&path).unwrap(), NonBlockingLockExclusive).unwrap();
            drop(supervisor);
        }
    }

    #[test]
    fn killed_supervisor_is_noticed() {
        let supervisor = Supervisor::new().unwrap();
        let pid = Pid::from_raw(supervisor.pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let slot = Slot::new();
        supervisor.collect(&slot);
        supervisor.release(&slot);
        assert!(!supervisor.is_alive());
        let mut request = Request::new(&slot, 0, true, false);
        let stdin = io::stdin();
        let error = supervisor.start(&mut request, &[std::os::fd::AsFd::as_fd(&stdin)]).unwrap_err();
        assert_eq!(error.0, LaunchStep::CreateProcess);
    }
}
