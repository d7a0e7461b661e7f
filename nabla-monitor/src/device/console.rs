//! Where a guest's output goes.

use crate::sys::lock;
use rustix::{
    event::epoll,
    fs::OFlags,
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Where a guest's output goes.
///
/// The guest writes directly to a descriptor, so the first four kinds cost the host program nothing. A reader that
/// stalls stops the guest at its next write once the pipe is full (64 KiB), and no other guest; a reader that goes
/// away makes the guest's writes fail, which guests ignore.
pub struct Console(Kind);

enum Kind {
    Inherit,
    Null,
    Pipe,
    File(PathBuf),
    Descriptor(OwnedFd),
    Writer(Box<dyn Write + Send>),
}

impl Console {
    /// The standard output of this program.
    ///
    /// ```
    /// let console = nabla_monitor::Console::inherit();
    /// ```
    #[must_use]
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// Nowhere.
    ///
    /// ```
    /// let console = nabla_monitor::Console::null();
    /// ```
    #[must_use]
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// A pipe. [`Guest::wait_with_output`](crate::Guest::wait_with_output) reads it to its end, and
    /// [`Guest::take_console`](crate::Guest::take_console) gives its other end. One that is not read stops the guest at its
    /// next write once it is full (64 KiB).
    ///
    /// ```
    /// let console = nabla_monitor::Console::pipe(); // for `Guest::wait_with_output` or `Guest::take_console`
    /// ```
    #[must_use]
    pub fn pipe() -> Self {
        Self(Kind::Pipe)
    }

    /// A file, which is created or appended to.
    ///
    /// ```
    /// let console = nabla_monitor::Console::file("/var/log/guest.log");
    /// ```
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// Any descriptor that can be written: a file, a socket, a terminal.
    ///
    /// ```
    /// use nabla_monitor::Console;
    /// use std::os::fd::AsFd;
    ///
    /// let console = Console::from_fd(std::io::stderr().as_fd().try_clone_to_owned()?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn from_fd(descriptor: OwnedFd) -> Self {
        Self(Kind::Descriptor(descriptor))
    }

    /// Any writer. It is called from one thread that serves every such console of the
    /// [`Runtime`](crate::Runtime), so it must not block for long; use [`Self::pipe`] for a sink that may. After
    /// it returned an error (or panicked), output is thrown away.
    ///
    /// When [`Guest::wait`](crate::Guest::wait) returns, everything that the guest wrote has been passed on.
    ///
    /// ```
    /// use nabla_monitor::Console;
    ///
    /// let console = Console::writer(std::io::stderr());
    /// ```
    pub fn writer(writer: impl Write + Send + 'static) -> Self {
        Self(Kind::Writer(Box::new(writer)))
    }

    /// The file that it is, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::File(path) => Some(path),
            _ => None,
        }
    }

    /// Opens it.
    pub(crate) fn open(self) -> io::Result<OpenConsole> {
        let null =
            || -> io::Result<OwnedFd> { Ok(fs::OpenOptions::new().write(true).open("/dev/null")?.into()) };
        let (descriptor, reader, writer) = match self.0 {
            // A program without standard output has closed it; then its guests have nothing to write to either.
            Kind::Inherit => match io::stdout().as_fd().try_clone_to_owned() {
                Ok(descriptor) => (descriptor, None, None),
                Err(_) => (null()?, None, None),
            },
            Kind::Null => (null()?, None, None),
            Kind::File(path) => {
                let file = fs::OpenOptions::new().append(true).create(true).open(path)?;
                (file.into(), None, None)
            }
            Kind::Descriptor(descriptor) => (descriptor, None, None),
            Kind::Pipe => {
                let (reader, descriptor) = pipe_with(PipeFlags::CLOEXEC)?;
                (descriptor, Some(ConsoleReader(reader)), None)
            }
            Kind::Writer(writer) => {
                let (reader, descriptor) = pipe_with(PipeFlags::CLOEXEC)?;
                rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
                (descriptor, None, Some((reader, writer)))
            }
        };
        Ok(OpenConsole { descriptor, reader, writer })
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Inherit => "Console::inherit()",
            Kind::Null => "Console::null()",
            Kind::Pipe => "Console::pipe()",
            Kind::File(path) => return write!(f, "Console::file({path:?})"),
            Kind::Descriptor(descriptor) => return write!(f, "Console::from_fd({descriptor:?})"),
            Kind::Writer(_) => "Console::writer(..)",
        })
    }
}

/// An opened console.
pub(crate) struct OpenConsole {
    /// The guest's end.
    pub descriptor: OwnedFd,
    pub reader: Option<ConsoleReader>,
    pub writer: Option<(OwnedFd, Box<dyn Write + Send>)>,
}

/// The reading end of a guest's console.
///
/// Ends (reads 0 bytes) when the guest has ended.
#[derive(Debug)]
pub struct ConsoleReader(OwnedFd);

impl Read for ConsoleReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut *buffer))?)
    }
}

impl AsFd for ConsoleReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<ConsoleReader> for OwnedFd {
    fn from(reader: ConsoleReader) -> Self {
        reader.0
    }
}

/// The writers of a runtime's consoles. There is a thread that feeds them while there are any.
#[derive(Debug, Default)]
pub(crate) struct Consoles(Mutex<Option<ConsolePoller>>);

impl Consoles {
    /// Passes on what can be read to the writer, from now on.
    pub fn feed(&self, reader: OwnedFd, writer: Box<dyn Write + Send>) -> io::Result<Drained> {
        let mut poller = lock(&self.0);
        match &*poller {
            Some(poller) => poller.add(reader, writer),
            None => poller.insert(ConsolePoller::new()?).add(reader, writer),
        }
    }
}

/// Tells when everything that a guest wrote has reached its writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drained(Arc<(Mutex<bool>, Condvar)>);

impl Drained {
    pub fn wait(&self) {
        let (done, changed) = &*self.0;
        let done = lock(done);
        drop(changed.wait_while(done, |done| !*done));
    }

    fn set(&self) {
        let (done, changed) = &*self.0;
        *lock(done) = true;
        changed.notify_all();
    }
}

/// One thread that feeds every [`Console::writer`] of a runtime. It ends when this is dropped and the last guest
/// with such a console has ended.
#[derive(Debug)]
pub(crate) struct ConsolePoller(Arc<Poll>);

struct Poll {
    set: OwnedFd,
    sinks: Mutex<Sinks>,
}

impl fmt::Debug for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").field("set", &self.set).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Sinks {
    open: HashMap<u64, Arc<Mutex<Sink>>>,
    /// Whether the thread runs. It ends when there is nothing to do, and is started again when there is.
    running: bool,
}

struct Sink {
    reader: OwnedFd,
    writer: Option<Box<dyn Write + Send>>,
    drained: Drained,
}

impl ConsolePoller {
    pub fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self(Arc::new(Poll { set, sinks: Mutex::default() })))
    }

    /// Passes on what comes out of `reader` from now on.
    pub fn add(&self, reader: OwnedFd, writer: Box<dyn Write + Send>) -> io::Result<Drained> {
        let drained = Drained::default();
        let key = u64::from(reader.as_raw_fd().cast_unsigned());
        let sink = Sink { reader, writer: Some(writer), drained: drained.clone() };
        let mut sinks = lock(&self.0.sinks);
        epoll::add(&self.0.set, &sink.reader, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?;
        sinks.open.insert(key, Arc::new(Mutex::new(sink)));
        if !sinks.running {
            let poll = Arc::clone(&self.0);
            thread::Builder::new().name("nabla-console".into()).spawn(move || poll.run())?;
            sinks.running = true;
        }
        Ok(drained)
    }
}

impl Poll {
    fn run(&self) {
        let mut buffer = vec![0; 64 << 10];
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "consoles can no longer be read");
                    let mut sinks = lock(&self.sinks);
                    sinks.running = false;
                    sinks.open.drain().for_each(|(_, sink)| lock(&sink).drained.set());
                    return;
                }
            }
            for event in &events {
                let key = event.data.u64();
                let Some(sink) = lock(&self.sinks).open.get(&key).cloned() else { continue };
                let mut sink = lock(&sink);
                if !sink.pump(&mut buffer) {
                    // Removed from the table before its number can be used again by another pipe.
                    let mut sinks = lock(&self.sinks);
                    let _ = epoll::delete(&self.set, &sink.reader);
                    sinks.open.remove(&key);
                    sink.writer = None;
                    sink.drained.set();
                }
            }
            let mut sinks = lock(&self.sinks);
            if sinks.open.is_empty() {
                sinks.running = false;
                return;
            }
        }
    }
}

impl Sink {
    /// Passes on what is there. False when nothing more can come.
    fn pump(&mut self, buffer: &mut [u8]) -> bool {
        let length = match rustix::io::read(&self.reader, &mut *buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        if let Some(writer) = &mut self.writer {
            let bytes = &buffer[..length];
            let passed_on =
                catch_unwind(AssertUnwindSafe(|| writer.write_all(bytes).and_then(|()| writer.flush())));
            if !matches!(passed_on, Ok(Ok(()))) {
                tracing::debug!("a console's writer failed; the rest of its guest's output is thrown away");
                // A writer whose destructor panics must not take the thread with it, either.
                let writer = self.writer.take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(writer)));
            }
        }
        true
    }
}
