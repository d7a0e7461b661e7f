//! Starting a guest: the supervisor's side. Runs in the supervisor; see [`super::task`] for the rules.

use super::{
    super::{
        arch::{self, LAUNCH_FAILED},
        spawn::{Child, Move, become_launcher},
    },
    HostLink, command,
    slot::Slot,
    task::{kill, ptrace},
};
use crate::{
    step::LaunchStep,
    sys::{
        futex,
        raw::{check, nr, syscall},
        signals::{SIGCHLD, SIGCONT, SIGKILL},
    },
};
use linux_raw_sys::{
    general::{
        __WALL, CLONE_CHILD_CLEARTID, CLONE_PIDFD, CLONE_VM, EPOLL_CTL_ADD, EPOLLIN, EPOLLONESHOT, P_PID,
        WNOHANG, WSTOPPED, epoll_event, iovec,
    },
    net::{MSG_CMSG_CLOEXEC, MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET, cmsghdr, msghdr},
    prctl::PR_SET_PDEATHSIG,
    ptrace::{PTRACE_CONT, PTRACE_O_EXITKILL, PTRACE_O_TRACEEXEC, PTRACE_O_TRACEEXIT, PTRACE_SEIZE},
};
use rustix::io::Errno;
use std::{
    ffi::c_void,
    ptr,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

/// Most descriptors of a guest's process while it is launched: 63 devices, and those of the launcher.
pub const MAX_DESCRIPTORS: usize = 72;

/// What the host program asks for, and the answer. Lives on its side until the answer is there.
#[derive(Debug)]
pub struct Request {
    slot: *const Slot,
    /// Flags of clone for namespaces.
    namespaces: u32,
    /// Whether the guest shall be traced.
    trace: bool,
    /// Whether a guest that cannot be traced shall not run at all.
    must_trace: bool,
    /// Why it is not traced, though it should be.
    pub trace_refused: Option<Errno>,
    /// What failed, if anything did.
    pub failed: Option<(LaunchStep, Errno)>,
    /// The guest's pid.
    pub pid: i32,
}

impl Request {
    pub fn slot(&self) -> *const Slot {
        self.slot
    }

    /// A request to start a guest into `slot`, which must be kept until it is released.
    pub fn new(slot: &Slot, namespaces: u32, trace: bool, must_trace: bool) -> Self {
        Self { slot, namespaces, trace, must_trace, trace_refused: None, failed: None, pid: 0 }
    }
}

/// What a message of the host program is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Subject {
    /// Slots have changed.
    Wake = 0,
    /// A [`Request`] to start a guest.
    Start = 1,
    /// A [`Command`](super::command::Command) about a guest.
    Command = 2,
}

/// Receives a message and does what it says. Returns the slot of a guest that runs now, or null. `None` when the host
/// program has closed its end. `exits` is the epoll set that tells of guests' ends.
pub fn serve(link: &HostLink, exits: i32) -> Option<*mut Slot> {
    let mut descriptors = [-1; MAX_DESCRIPTORS + 1];
    let (address, subject, count) = receive(link.socket, &mut descriptors)?;
    if subject == Subject::Start as u64 {
        // SAFETY: the address came from the host program over a socket that no other process has, and the host program
        // keeps the request until it has the answer.
        let request = unsafe { &mut *address.cast() };
        return Some(serve_start(link, exits, request, &descriptors[..count]));
    }
    if subject == Subject::Command as u64 {
        // SAFETY: as above.
        command::carry_out(unsafe { &mut *address.cast() }, descriptors[0]);
        answer(link.socket, -1);
    }
    Some(ptr::null_mut())
}

fn serve_start(link: &HostLink, exits: i32, request: &mut Request, descriptors: &[i32]) -> *mut Slot {
    let mut pidfd = -1;
    start(link, exits, request, descriptors, &mut pidfd);
    let slot = if request.failed.is_none() { request.slot.cast_mut() } else { ptr::null_mut() };
    for &descriptor in descriptors {
        close(descriptor);
    }
    // The host program may forget the request as soon as it has this.
    answer(link.socket, pidfd);
    if pidfd >= 0 {
        close(pidfd);
    }
    slot
}

/// What the child needs, besides what `become_launcher` does.
struct ChildStart {
    child: Child,
    /// The supervisor's socket, of which the child has a copy.
    socket: i32,
    /// The supervisor's pid.
    parent: i64,
    /// Futex: 1 when the child may go on.
    go: AtomicU32,
    /// Cleared and woken by the kernel when the child no longer uses this memory.
    alive: AtomicU32,
    failed: Option<(LaunchStep, Errno)>,
}

fn start(link: &HostLink, exits: i32, request: &mut Request, descriptors: &[i32], pidfd: &mut i32) {
    let mut moves = [Move::from_raw(-1, -1); MAX_DESCRIPTORS];
    let mut target = 0;
    for (entry, &source) in moves.iter_mut().zip(descriptors) {
        *entry = Move::from_raw(source, target);
        target += 1;
    }
    let child = Child { moves: moves.as_mut_ptr(), move_count: target };
    let mut child_start = ChildStart {
        child,
        socket: link.socket,
        // SAFETY: only returns a number.
        parent: unsafe { syscall!(nr::GETPID) },
        go: AtomicU32::new(0),
        alive: AtomicU32::new(1),
        failed: None,
    };
    let argument = (&raw mut child_start).cast();
    let flags = CLONE_VM | CLONE_PIDFD | CLONE_CHILD_CLEARTID | SIGCHLD.cast_unsigned() | request.namespaces;
    // SAFETY: `child_main` keeps the rules; the stack is not in use, since one child is started at a time and this
    // function only returns when the child is done with it and with `child_start`.
    let result = unsafe {
        arch::clone_child(flags, link.child_stack, pidfd, child_start.alive.as_ptr(), child_main, argument)
    };
    let pid = match check(result) {
        Ok(pid) => i32::try_from(pid).unwrap_or(-1),
        Err(errno) => {
            // The kernel may have written a number there that it has taken back.
            *pidfd = -1;
            request.failed = Some((LaunchStep::CreateProcess, errno));
            return;
        }
    };
    request.pid = pid;
    // SAFETY: the host program keeps the slot until it is released.
    let slot = unsafe { &*request.slot };
    slot.pid.store(pid, SeqCst);
    // The host program has the same pidfd as long as it has the guest, so this one need not stay open.
    if let Err(errno) = watch_exit(exits, *pidfd, u64::from(pid.cast_unsigned())) {
        request.failed = Some((LaunchStep::CreateProcess, errno));
        kill(pid);
    }
    if request.trace {
        let held = if slot.hold.load(SeqCst) == 0 { 0 } else { PTRACE_O_TRACEEXEC };
        let options = PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL | held;
        // SAFETY: options are a number.
        let result = unsafe { ptrace(PTRACE_SEIZE, pid, 0, options.into()) };
        match check(result) {
            Ok(_) => slot.traced.store(1, SeqCst),
            Err(errno) => {
                request.trace_refused = Some(errno);
                if request.must_trace {
                    request.failed = request.failed.or(Some((LaunchStep::Supervise, errno)));
                    kill(pid);
                }
            }
        }
    }
    Slot::set(&child_start.go, 1);
    while child_start.alive.load(SeqCst) != 0 {
        // The kernel wakes by the address in all memory, so this is not a private futex.
        futex::wait_shared(&child_start.alive, 1, 20_000_000);
        if child_start.alive.load(SeqCst) != 0 {
            // It may have been killed, and then it stops on its way out, since it is traced.
            resume_stopped(pid);
        }
    }
    // SAFETY: the child wrote it, if at all, before it ended.
    if let Some(failed) = unsafe { ptr::read_volatile(&raw const child_start.failed) } {
        request.failed = request.failed.or(Some(failed));
    }
    if request.failed.is_some() {
        // It has ended, or been killed. It is traced perhaps, and may stop on its way.
        kill_and_reap(pid);
        close(*pidfd);
        *pidfd = -1;
    }
}

/// Has the epoll set tell once, with `data`, that a process has ended.
pub fn watch_exit(exits: i32, pidfd: i32, data: u64) -> Result<(), Errno> {
    let event = epoll_event { events: EPOLLIN | EPOLLONESHOT, data };
    // SAFETY: the event is read during the call.
    check(unsafe { syscall!(nr::EPOLL_CTL, exits, EPOLL_CTL_ADD, pidfd, &event) }).map(drop)
}

unsafe extern "C" fn child_main(argument: *mut c_void) -> ! {
    let child_start = argument.cast::<ChildStart>();
    // SAFETY: the supervisor keeps it until this process is gone or another program.
    unsafe {
        // Should the supervisor be killed now, nothing would ever set `go`, and the host program would wait for an
        // answer as long as there is a copy of the socket. The launcher takes the signal back.
        syscall!(nr::CLOSE, (*child_start).socket);
        syscall!(nr::PRCTL, PR_SET_PDEATHSIG, SIGKILL);
        if syscall!(nr::GETPPID) != (*child_start).parent {
            syscall!(nr::EXIT, u32::from(LAUNCH_FAILED));
        }
        while (*child_start).go.load(SeqCst) == 0 {
            futex::wait(&(*child_start).go, 0);
        }
        let failed = become_launcher(&(*child_start).child);
        ptr::write_volatile(&raw mut (*child_start).failed, Some(failed));
        // The kernel would do that later, but a traced process stops before. From here on the supervisor only waits
        // for the end of this process, so stack and `child_start` stay until then.
        Slot::set_shared(&(*child_start).alive, 0);
    }
    loop {
        // SAFETY: ends this process.
        unsafe { syscall!(nr::EXIT, u32::from(LAUNCH_FAILED)) };
    }
}

/// Lets a guest go on that has stopped, whether it is traced or not.
fn resume_stopped(pid: i32) {
    let mut info = [0_i32; 32];
    // SAFETY: `info` has the 128 bytes of a siginfo_t.
    unsafe {
        syscall!(nr::WAITID, P_PID, pid, info.as_mut_ptr(), WNOHANG | WSTOPPED | __WALL, 0);
        if info[0] != 0 {
            ptrace(PTRACE_CONT, pid, 0, 0);
            syscall!(nr::KILL, pid, SIGCONT);
        }
    }
}

/// Kills and reaps a guest that failed to start.
fn kill_and_reap(pid: i32) {
    kill(pid);
    loop {
        let mut status = 0_u32;
        // SAFETY: the status is written to.
        let result = unsafe { syscall!(nr::WAIT4, pid, &raw mut status, __WALL, 0) };
        if result < 0 || status & 0xff != 0x7f {
            return;
        }
        // Stopped on its way out.
        // SAFETY: no data.
        unsafe { ptrace(PTRACE_CONT, pid, 0, 0) };
    }
}

pub fn close(descriptor: i32) {
    // SAFETY: a descriptor of this process's own table.
    unsafe { syscall!(nr::CLOSE, descriptor) };
}

/// Room for one control message with descriptors.
#[repr(C)]
struct Control {
    header: cmsghdr,
    descriptors: [i32; MAX_DESCRIPTORS + 2],
}

const CONTROL_HEADER: usize = size_of::<cmsghdr>();

impl Control {
    const fn new(length: usize) -> Self {
        let header = cmsghdr {
            cmsg_len: length,
            cmsg_level: SOL_SOCKET.cast_signed(),
            cmsg_type: SCM_RIGHTS.cast_signed(),
        };
        Self { header, descriptors: [-1; MAX_DESCRIPTORS + 2] }
    }
}

/// A message of the bytes at `vector`, with `length` bytes of `control`.
fn message(vector: &mut iovec, control: &mut Control, length: usize) -> msghdr {
    msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::from_mut(vector).cast(),
        msg_iovlen: 1,
        msg_control: ptr::from_mut(control).cast(),
        msg_controllen: length,
        msg_flags: 0,
    }
}

/// One message's address, subject, and number of descriptors. `None` at the end of the socket.
fn receive(socket: i32, descriptors: &mut [i32; MAX_DESCRIPTORS + 1]) -> Option<(*mut c_void, u64, usize)> {
    let mut words = [0_u64; 2];
    let mut vector = iovec { iov_base: (&raw mut words).cast(), iov_len: 16 };
    let mut control = Control::new(0);
    let mut header = message(&mut vector, &mut control, CONTROL_HEADER + 4 * (MAX_DESCRIPTORS + 1));
    // SAFETY: the header's pointers are to locals of the sizes it says.
    let result = unsafe { syscall!(nr::RECVMSG, socket, &raw mut header, MSG_CMSG_CLOEXEC) };
    if result != 16 {
        return None;
    }
    let length = if header.msg_controllen == 0 { 0 } else { control.header.cmsg_len };
    let count = (length.saturating_sub(CONTROL_HEADER) / 4).min(descriptors.len());
    for (to, from) in descriptors.iter_mut().zip(control.descriptors).take(count) {
        *to = from;
    }
    let [address, subject] = words;
    Some((ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0)), subject, count))
}

/// Sends one byte, and the guest's pidfd where there is one.
fn answer(socket: i32, pidfd: i32) {
    let mut byte = 0_u8;
    let mut vector = iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control::new(CONTROL_HEADER + 4);
    control.descriptors[0] = pidfd;
    let length = if pidfd >= 0 { CONTROL_HEADER + 8 } else { 0 };
    let mut header = message(&mut vector, &mut control, length);
    let send = |header: &msghdr| {
        // SAFETY: as above. A host program that no longer listens is noticed elsewhere.
        unsafe { syscall!(nr::SENDMSG, socket, header, MSG_NOSIGNAL) }
    };
    if send(&header) < 0 && pidfd >= 0 {
        // Whatever is wrong with the descriptor, the host program waits for an answer.
        header.msg_controllen = 0;
        send(&header);
    }
}
