//! A running guest.

use crate::{
    backend::Running,
    counters::Counters,
    debug::DebugThread,
    device::{ConsoleReader, DeviceInfo, Drained},
    error::Error,
    exit::ExitStatus,
    sys::lock,
    usage::ResourceUsage,
};
use nabla_core::Abi;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

/// A guest that has been started. It is killed when this is dropped, unless it was [detached](Self::detach).
///
/// Every method takes `&self`: one thread can wait while another kills.
#[derive(Debug)]
pub struct Guest {
    running: Box<dyn Running>,
    console: Mutex<Option<ConsoleReader>>,
    drained: Option<Drained>,
    ended: Mutex<Option<(ExitStatus, ResourceUsage)>>,
    description: Description,
}

/// How a guest ended, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything that came out of [`Console::pipe`](crate::Console::pipe).
    pub console: Vec<u8>,
}

/// What a running guest is.
#[derive(Debug)]
pub(crate) struct Description {
    /// Of its process or thread.
    pub name: String,
    pub abi: Abi,
    pub devices: Vec<DeviceInfo>,
}

impl Guest {
    pub(crate) fn new(
        running: Box<dyn Running>,
        console: Option<ConsoleReader>,
        drained: Option<Drained>,
        description: Description,
    ) -> Self {
        Self { running, console: Mutex::new(console), drained, ended: Mutex::new(None), description }
    }

    /// Confines the program around a guest in a virtual machine, when it is dedicated to that guest, as `nabla run` is.
    ///
    /// The calling thread can then only wait for this guest, kill it, write to the descriptors 0 to 2, and exit: it can
    /// open, execute, start and look at nothing any more. **Every other descriptor of the program is closed**, but for
    /// those that the guest needs, whichever code owned it; other threads should not exist. A guest that is debugged, whose core
    /// is wanted, or whose console this program reads needs more, and must not be confined so. Nothing happens where the
    /// guest is a process, which is confined by itself.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").exec()?;
    /// // From here on, this thread can only wait, kill the guest, write to descriptors 0 to 2, and exit.
    /// guest.confine_program()?;
    /// let status = guest.wait()?;
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the system refuses. The guest runs all the same.
    pub fn confine_program(&self) -> Result<(), Error> {
        self.running
            .confine_program()
            .map_err(|source| Error::Operation { operation: "confine the program around the guest", source })
    }

    /// Waits until the guest has ended. Can be called again, and from several threads.
    ///
    /// A guest with [`Console::pipe`](crate::Console::pipe) stops while the pipe is full (64 KiB), and then does not end:
    /// [`wait_with_output`](Self::wait_with_output) reads it meanwhile. Or read it to its end before, or in another thread.
    ///
    /// ```no_run
    /// use nabla_monitor::{Console, Runtime};
    /// use std::io::Read;
    ///
    /// let guest = Runtime::new().guest("app.nabla").console(Console::pipe()).start()?;
    /// // The output first: with a pipe that nobody reads, the guest may never end.
    /// let mut output = Vec::new();
    /// guest.take_console().expect("the console is a pipe").read_to_end(&mut output)?;
    /// println!("{}", guest.wait()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::StatusLost`] when the guest's supervisor was killed, [`Error::Operation`] when the virtual machine
    /// failed.
    pub fn wait(&self) -> Result<ExitStatus, Error> {
        loop {
            if let Some(status) = self.poll_exit(None)? {
                return Ok(status);
            }
        }
    }

    /// Waits until the guest has ended, and collects what it writes to its [pipe](crate::Console::pipe) meanwhile: nothing
    /// for other consoles, and where the pipe [was taken](Self::take_console). As
    /// [`Child::wait_with_output`](std::process::Child::wait_with_output).
    ///
    /// All of the output is kept in memory, however much the guest writes: take the console and read it yourself where
    /// you do not trust the guest to be brief.
    ///
    /// ```no_run
    /// use nabla_monitor::{Console, Runtime};
    ///
    /// let guest = Runtime::new().guest("app.nabla").console(Console::pipe()).start()?;
    /// println!("process {}", guest.pid());
    /// let output = guest.wait_with_output()?;
    /// println!("{}: {}", output.status, String::from_utf8_lossy(&output.console));
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::wait`], and [`Error::Operation`] when the pipe cannot be read.
    pub fn wait_with_output(self) -> Result<Output, Error> {
        let mut console = Vec::new();
        if let Some(mut reader) = self.take_console() {
            let read = reader.read_to_end(&mut console);
            read.map_err(|source| Error::Operation { operation: "read the guest's console", source })?;
        }
        Ok(Output { status: self.wait()?, console })
    }

    /// Says whether the guest has ended, without waiting.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// if let Some(status) = guest.try_wait()? {
    ///     println!("it has ended: {status}");
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.poll_exit(Some(Duration::ZERO))
    }

    /// Waits at most `timeout`. `None` when the guest still runs.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    /// use std::time::Duration;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// if guest.wait_timeout(Duration::from_secs(10))?.is_none() {
    ///     guest.kill()?;
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if let Some(status) = self.poll_exit(left)? {
                return Ok(Some(status));
            }
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }

    /// Kills the guest. Not an error when it has ended already. [`Self::wait`] tells when it is gone.
    ///
    /// ```no_run
    /// use nabla_monitor::{ExitStatus, Runtime};
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// guest.kill()?;
    /// assert_eq!(guest.wait()?, ExitStatus::Killed(9)); // unless it had ended before
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the system refuses, which it does for a guest that runs as another user.
    pub fn kill(&self) -> Result<(), Error> {
        self.running.kill().map_err(|source| Error::Operation { operation: "kill the guest", source })
    }

    /// Stops the guest where it is, until [`Self::resume`]. Returns when it stands still. Time goes on for it.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// guest.pause()?;
    /// println!("{} bytes resident", guest.usage()?.resident);
    /// guest.resume()?;
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn pause(&self) -> Result<(), Error> {
        self.running.pause().map_err(|source| Error::Operation { operation: "pause the guest", source })
    }

    /// Lets a paused guest go on.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// guest.pause()?;
    /// guest.resume()?;
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::kill`].
    pub fn resume(&self) -> Result<(), Error> {
        self.running.resume().map_err(|source| Error::Operation { operation: "resume the guest", source })
    }

    /// The guest's process id; this program's own for a guest in a virtual machine, which has none: a signal to it
    /// is one to this program.
    ///
    /// It stays the guest's until [`Self::wait`] (or [`Self::try_wait`], [`Self::wait_timeout`]) has told that the
    /// guest ended; after that it may be another process's.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// println!("runs as process {}", guest.pid());
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The ABI of its image.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// if guest.abi().needs_kvm() {
    ///     println!("runs in a virtual machine");
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.description.abi
    }

    /// The devices that it has, in the order of its manifest, as they are: with the MAC address that was made up where
    /// none was given, for example.
    ///
    /// ```no_run
    /// let guest = nabla_monitor::Runtime::new().guest("app.nabla").block("rootfs.iso").net("tap0").start()?;
    /// for device in guest.devices() {
    ///     println!("{device}"); // "service0: net, address 02:c5:.., MTU 1500"
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn devices(&self) -> &[DeviceInfo] {
        &self.description.devices
    }

    /// A descriptor that is readable once the guest has ended: for poll, epoll, or any event loop built on them.
    /// Not to be read from.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let runtime = Runtime::new();
    /// let guests = [runtime.guest("a.nabla").start()?, runtime.guest("b.nabla").start()?];
    /// let mut events = guests.each_ref().map(|guest| PollFd::new(guest, PollFlags::IN));
    /// poll(&mut events, None)?; // until one of them has ended
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.running.exit_fd()
    }

    /// The reading end of [`Console::pipe`](crate::Console::pipe); `None` for other consoles and the second time.
    ///
    /// ```no_run
    /// use nabla_monitor::{Console, Runtime};
    /// use std::io::{BufRead, BufReader};
    ///
    /// let guest = Runtime::new().guest("app.nabla").console(Console::pipe()).start()?;
    /// for line in BufReader::new(guest.take_console().expect("the console is a pipe")).lines() {
    ///     println!("guest: {}", line?.escape_debug());
    /// }
    /// guest.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn take_console(&self) -> Option<ConsoleReader> {
        lock(&self.console).take()
    }

    /// What the guest has used so far, or used in all.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// guest.wait()?;
    /// let usage = guest.usage()?;
    /// println!("{:?}, at most {} bytes", usage.user_time + usage.system_time, usage.max_resident);
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn usage(&self) -> Result<ResourceUsage, Error> {
        if let Some((_, usage)) = *lock(&self.ended) {
            return Ok(usage);
        }
        self.running
            .usage()
            .map_err(|source| Error::Operation { operation: "read the guest's resource usage", source })
    }

    /// What the guest has made its monitor do so far: exits, hypercalls, bytes through devices, and time.
    ///
    /// `None` for a guest in a process: nothing stands between it and the kernel that could count, and
    /// [`usage`](Self::usage) tells what the kernel does.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// guest.wait()?;
    /// if let Some(counters) = guest.counters() {
    ///     println!("{} hypercalls in {:?}", counters.exits.hypercalls, counters.time_in_host);
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        self.running.counters()
    }

    /// Whether the guest is supervised: see [`Supervision`](crate::Supervision).
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").start()?;
    /// if !guest.is_supervised() {
    ///     eprintln!("a fault's address will not be known");
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    #[must_use]
    pub fn is_supervised(&self) -> bool {
        self.running.is_supervised()
    }

    /// Writes a core dump of the guest as it is now to `directory`: its memory and registers, for debuggers. Returns the
    /// file's path. The guest stands still meanwhile, and goes on, unless it is [paused](Self::pause).
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").dumpable(true).start()?;
    /// let path = guest.dump_core("/var/tmp")?;
    /// println!("gdb app.nabla {}", path.display());
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the guest has ended, a debugger has stopped it, the file cannot be written, or the system does not let this
    /// program look into the guest's process: without root, [`GuestBuilder::core_dumps`](crate::GuestBuilder::core_dumps) or
    /// [`dumpable`](crate::GuestBuilder::dumpable) must have been set.
    pub fn dump_core(&self, directory: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let result = self.running.dump_core(directory.as_ref(), &self.description.name);
        result.map_err(|source| Error::Operation { operation: "write a core of the guest", source })
    }

    /// The core dump that [`GuestBuilder::core_dumps`](crate::GuestBuilder::core_dumps) asked for; `None` when the guest
    /// did not crash. Waits for the guest's end, and tells it once.
    ///
    /// ```no_run
    /// use nabla_monitor::Runtime;
    ///
    /// let guest = Runtime::new().guest("app.nabla").core_dumps("/var/tmp").start()?;
    /// match guest.core()? {
    ///     Some(path) => println!("crashed, see {}", path.display()),
    ///     None => println!("{}", guest.wait()?),
    /// }
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When it could not be written.
    pub fn core(&self) -> Result<Option<PathBuf>, Error> {
        self.wait()?;
        let core = lock(self.running.debug_thread()).as_mut().and_then(DebugThread::core).transpose();
        core.map_err(|source| Error::Operation { operation: "write a core of the guest", source })
    }

    /// Lets the guest live on without this handle, and without this program. Returns its process id.
    ///
    /// A console with a reader or writer in this program breaks when the program ends. How the guest ends can no
    /// longer be told.
    ///
    /// ```no_run
    /// use nabla_monitor::{Console, Runtime};
    ///
    /// let guest = Runtime::new().guest("app.nabla").console(Console::null()).start()?;
    /// println!("process {} lives on", guest.detach()?);
    /// # Ok::<(), nabla_monitor::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the supervisor cannot let it go, and for guests in virtual machines; the guest is killed then.
    pub fn detach(self) -> Result<u32, Error> {
        let pid = self.pid();
        self.running.detach().map_err(|source| Error::Operation { operation: "detach the guest", source })?;
        Ok(pid)
    }

    fn poll_exit(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>, Error> {
        if let Some((status, _)) = *lock(&self.ended) {
            return Ok(Some(status));
        }
        if !readable(self.exit_fd(), timeout)? {
            return Ok(None);
        }
        let mut ended = lock(&self.ended);
        let (status, _) = match *ended {
            Some(known) => known,
            None => {
                let known = self.running.collect()?;
                *ended.insert(known)
            }
        };
        drop(ended);
        if let Some(drained) = &self.drained {
            drained.wait();
        }
        Ok(Some(status))
    }
}

/// Waits until a descriptor is readable; false when the time is over or a signal came.
fn readable(descriptor: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool, Error> {
    // A timeout too long for the kernel is as good as none; callers look at the clock themselves.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(Error::Operation { operation: "wait for the guest", source: errno.into() }),
    }
}

impl AsFd for Guest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exit_fd()
    }
}
