//! The thread that serves debuggers and core dumps of one guest.

#[cfg(feature = "gdb")]
use super::gdb;
use super::{
    DebugOptions, Debuggee, End, Resume, Stop,
    core::{self, CoreDirectory},
    wait_for,
};
use crate::sys::{
    event::Event,
    lock,
    signals::{BlockedSignals, SIGABRT},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

#[derive(Debug)]
pub(super) struct Channel {
    /// Readable when there are requests.
    pub request: Event,
    /// Readable when nobody needs the thread any more.
    pub closing: Event,
    requests: Mutex<Requests>,
    /// What became of the core at the end.
    core: Mutex<Option<io::Result<PathBuf>>>,
}

impl Channel {
    fn take_requests(&self) -> Vec<Request> {
        self.request.clear();
        std::mem::take(&mut lock(&self.requests).waiting)
    }

    /// Tells those who want something that they cannot have it now.
    #[cfg(feature = "gdb")]
    pub fn refuse(&self) {
        for Request { answer, .. } in self.take_requests() {
            let _ = answer.send(Err(io::Error::other("a debugger has stopped the guest")));
        }
    }
}

#[derive(Debug, Default)]
struct Requests {
    waiting: Vec<Request>,
    /// Requests are no longer taken.
    closed: bool,
}

/// A request for a core of the guest as it is now.
#[derive(Debug)]
struct Request {
    directory: PathBuf,
    answer: Sender<io::Result<PathBuf>>,
}

/// The thread, which ends with its guest.
#[derive(Debug)]
pub struct DebugThread {
    shared: Arc<Channel>,
    thread: Option<JoinHandle<()>>,
    /// The process whose thread it is: not a fork of it.
    owner: u32,
}

impl DebugThread {
    /// Starts the thread. The guest stands still; `prepare` takes it to its first instruction.
    pub fn start<D: Debuggee + 'static>(
        options: DebugOptions,
        name: &str,
        pid: u32,
        mut guest: D,
        prepare: impl FnOnce(&mut D) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (request, closing) = (Event::new()?, Event::new()?);
        let shared =
            Arc::new(Channel { request, closing, requests: Mutex::default(), core: Mutex::new(None) });
        let (name, theirs) = (name.to_owned(), Arc::clone(&shared));
        let blocked = BlockedSignals::all_but_setxid();
        let thread = thread::Builder::new().name("debug".to_owned()).spawn(move || {
            let prepared = prepare(&mut guest);
            let guest = Box::new(guest);
            Task { options, name, pid, guest, shared: theirs, dumped: false, closing: false }.run(prepared);
        })?;
        drop(blocked);
        Ok(Self { shared, thread: Some(thread), owner: std::process::id() })
    }

    /// Has a core written of the running guest.
    pub fn dump_core(&self, directory: &Path) -> io::Result<PathBuf> {
        let (answer, result): (_, Receiver<_>) = channel();
        let mut requests = lock(&self.shared.requests);
        if requests.closed {
            return Err(ended());
        }
        requests.waiting.push(Request { directory: directory.to_owned(), answer });
        drop(requests);
        self.shared.request.set();
        result.recv().unwrap_or_else(|_| Err(ended()))
    }

    /// The core that was written at the end. Waits for the thread, which ends with the guest.
    pub fn core(&mut self) -> Option<io::Result<PathBuf>> {
        self.join();
        lock(&self.shared.core).take()
    }

    fn join(&mut self) {
        // A debugger that says nothing is not waited for.
        self.shared.closing.set();
        if let Some(thread) = self.thread.take()
            && self.owner == std::process::id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for DebugThread {
    /// The guest must have ended, or be about to.
    fn drop(&mut self) {
        self.join();
    }
}

pub fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the guest has ended")
}

/// What the thread works with.
pub(super) struct Task {
    pub options: DebugOptions,
    pub name: String,
    pub pid: u32,
    pub guest: Box<dyn Debuggee>,
    pub shared: Arc<Channel>,
    /// Whether the core at the end has been written.
    pub dumped: bool,
    /// Nobody needs this any more.
    pub closing: bool,
}

impl Task {
    fn run(mut self, prepared: io::Result<()>) {
        let result = prepared.and_then(|()| self.serve());
        if let Err(error) = result {
            tracing::warn!(%error, "the guest can no longer be looked into");
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        #[cfg(feature = "gdb")]
        if let Some(listener) = self.options.gdb.take() {
            return gdb::serve(self, &listener);
        }
        // It is looked at before each wait: what has happened so far may have been seen by others, and is no event any more.
        loop {
            match self.look()? {
                Some(Stop::Ended(_)) => return Ok(()),
                Some(stop) => self.guest.resume(stop.undisturbed())?,
                None if self.wait(&[])? => {}
                None => return Ok(()),
            }
        }
    }

    /// Waits until the guest, somebody with a request or one of `others` has something. False when nobody needs this any
    /// more, and that was said before.
    pub(super) fn wait(&mut self, others: &[BorrowedFd<'_>]) -> io::Result<bool> {
        if self.closing {
            return Ok(false);
        }
        let closing = self.shared.closing.as_fd();
        wait_for(&[&self.guest.events(), &[self.shared.request.as_fd(), closing][..], others].concat())?;
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut set = [PollFd::from_borrowed_fd(closing, PollFlags::IN)];
        self.closing = rustix::io::retry_on_intr(|| poll(&mut set, Some(&now)))? > 0;
        Ok(true)
    }

    /// Says whether the guest stands still, and why. Meanwhile writes the cores that are wanted.
    pub(super) fn look(&mut self) -> io::Result<Option<Stop>> {
        let mut stop = self.guest.stop()?;
        if let Some(Stop::Ending(end)) = stop
            && end.is_crash()
            && !self.dumped
            && self.options.cores.is_some()
        {
            self.dumped = true;
            let signal = if let End::Signal(signal) = end { signal } else { SIGABRT };
            let core = self.dump(None, signal);
            *lock(&self.shared.core) = Some(core);
        }
        let waiting = self.shared.take_requests();
        if waiting.is_empty() {
            return Ok(stop);
        }
        let was_running = stop.is_none();
        if was_running {
            stop = Some(self.guest.stop_now()?);
        }
        for Request { directory, answer } in waiting {
            let core = if matches!(stop, Some(Stop::Ended(_))) {
                Err(ended())
            } else {
                CoreDirectory::open(&directory).and_then(|directory| self.dump(Some(&directory), 0))
            };
            let _ = answer.send(core);
        }
        if was_running && stop == Some(Stop::Interrupted) {
            self.guest.resume(Resume::Continue { signal: None })?;
            return Ok(None);
        }
        Ok(stop)
    }

    /// Writes a core of the guest, which stands still: to the directory for cores, unless another one is given.
    pub(super) fn dump(&mut self, directory: Option<&CoreDirectory>, signal: i32) -> io::Result<PathBuf> {
        let subject = core::Subject { name: self.name.clone(), pid: self.pid, signal };
        let none =
            || io::Error::other("there is no directory for cores: start the guest with one (--dumpcore DIR)");
        let directory = directory.or(self.options.cores.as_ref()).ok_or_else(none)?;
        core::write(directory, &subject, &mut *self.guest)
    }
}

impl Drop for Task {
    /// However the thread ends, nobody waits for it.
    fn drop(&mut self) {
        let _ = self.guest.let_go();
        // Requests that come too late are answered: the guest has ended.
        let mut requests = lock(&self.shared.requests);
        requests.closed = true;
        requests.waiting.clear();
    }
}
