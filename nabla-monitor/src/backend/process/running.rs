//! A guest's process, seen from the host program.

use super::inspect::Inspector;
use super::oom::{self, OomKills};
use super::supervisor::{Ending, Report, Slot, Supervisor};
use crate::{
    backend::Running,
    debug::{DebugThread, Debuggee, core, thread},
    error::Error,
    exit::{Denied, ExitStatus, Fault},
    sys::{
        lock, own_pid,
        procfs::{Stat, usage_of},
        signals::{SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP},
    },
    usage::ResourceUsage,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Signal, pidfd_send_signal},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// A started process, and who watches it.
#[derive(Debug)]
pub(super) struct Watched {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub supervisor: Arc<Supervisor>,
    pub slot: Arc<Slot>,
    /// Of the host.
    pub oom_kills: Arc<OomKills>,
    pub cgroup: Option<PathBuf>,
    /// Size of its memory in bytes.
    pub memory: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ProcessGuest {
    pid: i32,
    pidfd: OwnedFd,
    supervisor: Arc<Supervisor>,
    slot: Arc<Slot>,
    oom_kills: Arc<OomKills>,
    /// The guest's cgroup, and how many processes had been killed in it for want of memory at the start.
    cgroup: Option<(PathBuf, Option<u64>)>,
    /// The process that may kill it: not a fork of it.
    owner: i32,
    killed_by_us: AtomicBool,
    detached: AtomicBool,
    /// Held while the guest is being paused, resumed or dumped: each would undo what the other has done to stop it.
    stopping: Mutex<()>,
    /// Size of its memory in bytes.
    memory: u64,
    debug_thread: Mutex<Option<DebugThread>>,
}

impl ProcessGuest {
    pub fn new(watched: Watched) -> Self {
        let Watched { pid, pidfd, supervisor, slot, oom_kills, cgroup, memory } = watched;
        let cgroup = cgroup.map(|path| {
            let kills = oom::cgroup_kills(&path);
            (path, kills)
        });
        Self {
            pid,
            pidfd,
            supervisor,
            slot,
            oom_kills,
            cgroup,
            owner: own_pid(),
            killed_by_us: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            stopping: Mutex::new(()),
            memory,
            debug_thread: Mutex::new(None),
        }
    }

    pub(super) fn set_debug_thread(&self, thread: Option<DebugThread>) {
        *lock(&self.debug_thread) = thread;
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            // It has ended, which is not for the caller to worry about.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the guest can still change: neither ended nor let go, and the supervisor there to tell.
    fn is_watched(&self) -> bool {
        self.slot.ended.load(SeqCst) == 0 && self.supervisor.is_alive()
    }

    /// How it ended and what it used, once that is known.
    fn ending(&self) -> Option<(u32, Report, ResourceUsage)> {
        let Ending { status, usage, peak_resident, report } = self.slot.ending()?;
        let mut usage = ResourceUsage::from(usage);
        if let Some(bytes) = peak_resident {
            usage.max_resident = bytes;
        }
        Some((status?, report, usage))
    }

    /// Waits until the process is gone.
    fn wait_gone(&self) {
        let mut set = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let _ = rustix::io::retry_on_intr(|| poll(&mut set, None));
    }

    fn classify(&self, status: u32, report: Report) -> ExitStatus {
        let signal = (status & 0x7f).cast_signed();
        if signal == 0 {
            let code = status.to_le_bytes()[1];
            return if code == 255 { ExitStatus::Aborted } else { ExitStatus::Exited(code) };
        }
        match (signal, report) {
            (SIGSYS, Report::Denied(call)) => ExitStatus::Denied(Denied { call: Some(call) }),
            (SIGSYS, Report::SentSigsys) => ExitStatus::Killed(SIGSYS),
            (SIGSYS, _) => ExitStatus::Denied(Denied { call: None }),
            (_, Report::Fault { signal: seen, address, instruction_pointer }) if seen == signal => {
                let instruction_pointer = Some(instruction_pointer);
                ExitStatus::Faulted(Fault { signal, address, instruction_pointer, handler_failed: false })
            }
            (SIGSEGV | SIGBUS | SIGILL | SIGFPE | SIGTRAP, _) if !self.is_supervised() => {
                let nothing =
                    Fault { signal, address: None, instruction_pointer: None, handler_failed: false };
                ExitStatus::Faulted(nothing)
            }
            (SIGKILL, _) if self.was_out_of_memory() => ExitStatus::OutOfMemory,
            _ => ExitStatus::Killed(signal),
        }
    }

    /// Whether a SIGKILL that this program did not send came from the kernel for want of memory. A cgroup of its own
    /// tells it exactly. Otherwise the host's count of such kills is looked at, which could be about another process
    /// that was killed for want of memory while this guest was killed by another program.
    fn was_out_of_memory(&self) -> bool {
        if self.killed_by_us.load(SeqCst) {
            return false;
        }
        match &self.cgroup {
            Some((path, before @ Some(_))) => oom::cgroup_kills(path) > *before,
            _ => self.oom_kills.happened(),
        }
    }
}

impl Running for ProcessGuest {
    fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn is_supervised(&self) -> bool {
        self.slot.traced.load(SeqCst) == 1
    }

    fn kill(&self) -> io::Result<()> {
        self.killed_by_us.store(true, SeqCst);
        // A program that has given up root may not kill what it started before; the supervisor may.
        let killed = self.signal(Signal::KILL);
        // Nobody looks at this end. Not before the signal: a debugger's trap that nobody asks for would end the guest first.
        let held = self.slot.hold.swap(0, SeqCst) != 0;
        if killed.is_err() {
            self.supervisor.kill(&self.slot);
        } else if held {
            // It may be held at this moment, and nobody else lets it go on.
            self.supervisor.wake();
        }
        Ok(())
    }

    fn pause(&self) -> io::Result<()> {
        let _turn = lock(&self.stopping);
        while self.is_watched() {
            // Again each time: a SIGCONT of another process takes it back.
            self.signal(Signal::STOP)?;
            if self.is_supervised() {
                if self.slot.stopped.load(SeqCst) == 1 {
                    break;
                }
                self.supervisor.wait_briefly(&self.slot.stopped, 0);
            } else if Stat::of(self.pid)?.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    fn resume(&self) -> io::Result<()> {
        let _turn = lock(&self.stopping);
        self.signal(Signal::CONT)?;
        // Until the supervisor has let it go on, another `pause` would take the old stop for the new one.
        while self.slot.stopped.load(SeqCst) == 1 && self.is_watched() {
            self.supervisor.wait_briefly(&self.slot.stopped, 1);
            self.signal(Signal::CONT)?;
        }
        Ok(())
    }

    fn usage(&self) -> io::Result<ResourceUsage> {
        let usage = usage_of(self.pid);
        // Looked at after that: as long as nothing is known of an end, the number has been the guest's all the time.
        match self.ending() {
            Some((_, _, usage)) => Ok(usage),
            None if self.is_watched() => usage,
            None => Err(thread::ended()),
        }
    }

    fn collect(&self) -> Result<(ExitStatus, ResourceUsage), Error> {
        self.supervisor.collect(&self.slot);
        let (status, report, usage) = self.ending().ok_or(Error::StatusLost)?;
        Ok((self.classify(status, report), usage))
    }

    fn debug_thread(&self) -> &Mutex<Option<DebugThread>> {
        &self.debug_thread
    }

    fn dump_core(&self, directory: &Path, name: &str) -> io::Result<PathBuf> {
        let _turn = lock(&self.stopping);
        if let Some(thread) = &*lock(&self.debug_thread) {
            return thread.dump_core(directory);
        }
        if self.slot.ending().is_some() {
            return Err(thread::ended());
        }
        if !self.is_supervised() {
            return Err(io::Error::other("the guest is not supervised"));
        }
        let directory = core::CoreDirectory::open(directory)?;
        let mut inspector = Inspector::of_running(&self.supervisor, &self.slot, self.pid, self.memory)?;
        let result = core::write_of_running(&directory, name, self.pid(), &mut inspector);
        inspector.let_go()?;
        result
    }

    fn detach(&self) -> io::Result<()> {
        self.slot.hold.store(0, SeqCst);
        self.supervisor.detach(&self.slot);
        if self.slot.released.load(SeqCst) == 0 {
            return Err(io::Error::other("its supervisor has been killed, and the guest with it"));
        }
        self.detached.store(true, SeqCst);
        Ok(())
    }
}

impl Drop for ProcessGuest {
    fn drop(&mut self) {
        if self.owner != own_pid() || self.detached.load(SeqCst) {
            return;
        }
        if self.slot.ended.load(SeqCst) == 0 {
            let _ = self.kill();
        }
        // The slot must outlive the supervisor's use of it, and the guest shall be gone when this returns.
        self.supervisor.release(&self.slot);
        // The guests of a supervisor that was killed may live, if it did not trace them.
        if self.slot.released.load(SeqCst) == 0 && self.signal(Signal::KILL).is_ok() {
            self.wait_gone();
        }
    }
}
