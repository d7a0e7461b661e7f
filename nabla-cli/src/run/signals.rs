//! The signals that end a guest with its parent, and a parent that is still starting its guest.

use crate::{output, system};
use anyhow::Context;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Those that end the guest, apart from those that were ignored when nabla started: a shell ignores some for its background
/// jobs, and nohup SIGHUP.
pub fn ending() -> SigSet {
    let all = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
    all.into_iter().filter(|&signal| !system::is_ignored(signal)).collect()
}

/// What the shell calls the end by a signal.
pub fn shell_code(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}

/// The signals that end the guest, as a descriptor instead of handlers. They are held back from now on.
#[derive(Debug)]
pub struct Signals(Arc<SignalFd>);

impl Signals {
    pub fn hold() -> anyhow::Result<Self> {
        let set = ending();
        set.thread_block().context("cannot hold signals back")?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self(Arc::new(descriptor.context("cannot watch for signals")?)))
    }

    /// Lets them end this program from now on, also by one that has come and was not read.
    pub fn release(self) -> anyhow::Result<()> {
        let set = ending();
        // Not their default actions, which process 1 does not have.
        set.iter().try_for_each(system::exit_on).context("cannot handle signals")?;
        set.thread_unblock().context("cannot let signals through")
    }

    pub fn read(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The start of a guest, which may wait: for the reader of a FIFO, in a cgroup that is frozen, on a file system that does not
/// answer. A thread ends this program should one of the signals come meanwhile.
#[derive(Debug)]
pub struct Startup<T: Default> {
    /// What is undone should nabla be ended before its guest runs.
    undo: Arc<Mutex<T>>,
    /// Closed when the guest runs, and the thread that ends then.
    watch: Option<(OwnedFd, thread::JoinHandle<()>)>,
}

/// How long a start is given to come to its end, so that a signal finds the guest rather than the half of one.
const GRACE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl<T: Default + Send + 'static> Startup<T> {
    pub fn watch(signals: &Signals, image: &Path) -> anyhow::Result<Self> {
        let (end, running) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        let signals = Signals(Arc::clone(&signals.0));
        let undo = Arc::<Mutex<T>>::default();
        let (undone, image) = (Arc::clone(&undo), image.display().to_string());
        let watch = move || {
            if let Some(signal) = interrupted(&signals, &end) {
                drop(mem::take(&mut *undone.lock().unwrap_or_else(PoisonError::into_inner)));
                let text = format!("nabla: {image}: nabla received {signal} before the guest ran");
                output::complain(&output::one_line(&text));
                process::exit(shell_code(signal).into());
            }
        };
        let watch = match thread::Builder::new().name("nabla-startup".into()).spawn(watch) {
            Ok(thread) => Some((running, thread)),
            // Hosts limit threads, or deny `clone3` in a way that the C library does not expect.
            Err(error) => {
                tracing::debug!(%error, "no thread can be started: signals wait until the guest runs");
                None
            }
        };
        Ok(Self { undo, watch })
    }

    /// Keeps something that is to be undone.
    pub fn keep(&self, keep: impl FnOnce(&mut T)) {
        keep(&mut self.undo.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The guest runs, or there is none. What was kept is the caller's again.
    pub fn end(mut self) -> T {
        self.stop()
    }
}

impl<T: Default> Startup<T> {
    fn stop(&mut self) -> T {
        if let Some((running, thread)) = self.watch.take() {
            drop(running);
            // It panics only if this program does.
            let _ = thread.join();
        }
        mem::take(&mut self.undo.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Default> Drop for Startup<T> {
    /// What was kept is undone if it was not taken.
    fn drop(&mut self) {
        self.stop();
    }
}

/// The signal that came while a start did not come to its end.
fn interrupted(signals: &Signals, end: &OwnedFd) -> Option<Signal> {
    let mut both = [PollFd::new(signals, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut both, None)).ok()?;
    if !both[1].revents().is_empty() {
        return None;
    }
    let ended = rustix::io::retry_on_intr(|| poll(&mut both[1..], Some(&GRACE))).ok()?;
    if ended == 0 { signals.read() } else { None }
}

/// A virtual machine's monitor that is the first process of its namespace: the kernel keeps signals from it that it has no
/// handler for, so it gets handlers that do what happens to other processes.
#[derive(Debug)]
pub struct First(Startup<()>, Signals);

impl First {
    /// Holds the signals back in this thread and those that it starts, since a confined thread may not end the program.
    pub fn begin(image: &Path) -> anyhow::Result<Self> {
        let signals = Signals::hold()?;
        Ok(Self(Startup::watch(&signals, image)?, signals))
    }

    /// The guest runs: from now on, the signals end this program.
    pub fn end(self) -> anyhow::Result<()> {
        self.0.end();
        self.1.release()
    }
}
