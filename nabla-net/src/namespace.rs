//! Network namespaces, entered by threads of their own.

use crate::error::{Error, ErrorKind};
use linux_raw_sys::general::CLONE_NEWNET;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags},
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    thread,
};

/// A network namespace, held by a descriptor: it exists at least as long as this does.
///
/// Nothing here moves the calling thread into another namespace. What has to be done inside is done by a thread that is
/// made for it and ends with it; sockets that are opened there stay in the namespace wherever they are used.
///
/// ```
/// # if !nabla_testkit::need::root() { return Ok(()) }
/// use nabla_net::Namespace;
///
/// let namespace = Namespace::new()?;
/// let interfaces = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
/// assert_eq!(interfaces.lines().count(), 3, "two lines of heading, and lo");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
    /// For messages.
    name: String,
}

impl Namespace {
    /// The namespace of the calling thread.
    ///
    /// ```
    /// let here = nabla_net::Namespace::current()?;
    /// let also_here = nabla_net::Namespace::of_process(std::process::id())?;
    /// assert!(here.is_same(&also_here)?);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When /proc is not there.
    pub fn current() -> Result<Self, Error> {
        Self::open("/proc/thread-self/ns/net".as_ref(), "the current network namespace".to_owned())
    }

    /// The namespace that a path names: /run/netns/NAME, or /proc/PID/ns/net.
    ///
    /// ```
    /// let namespace = nabla_net::Namespace::open_path("/proc/self/ns/net")?;
    /// # let _ = namespace;
    /// assert!(nabla_net::Namespace::open_path("/etc/passwd").is_err());
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the path cannot be opened, or is no network namespace.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::open(path, format!("network namespace '{}'", path.display()))
    }

    /// The namespace of a process.
    ///
    /// ```
    /// use nabla_net::Namespace;
    ///
    /// let own = Namespace::of_process(std::process::id())?;
    /// assert!(own.is_same(&Namespace::current()?)?);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no such process, or it may not be looked at.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        let path = format!("/proc/{pid}/ns/net");
        Self::open(path.as_ref(), format!("the network namespace of process {pid}"))
    }

    fn open(path: &Path, name: String) -> Result<Self, Error> {
        let fail = |errno: Errno| match errno {
            Errno::ACCESS | Errno::PERM => Error::new(
                "open",
                name.clone(),
                ErrorKind::NotPermitted { needs: "CAP_SYS_PTRACE, or to be of the same user," },
            ),
            errno => Error::system("open", name.clone(), errno.into()),
        };
        let descriptor =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                .map_err(fail)?;
        // Asked of another file, the kernel does not know the question.
        match namespace_type(descriptor.as_fd()) {
            Ok(CLONE_NEWNET) => Ok(Self { descriptor, name }),
            _ => Err(Error::new("open", name, ErrorKind::Kind { expected: "network namespace" })),
        }
    }

    /// A new namespace with nothing but a loopback interface that is down. Takes CAP_SYS_ADMIN. It goes away with the
    /// last that refers to it.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// use nabla_net::Namespace;
    ///
    /// let namespace = Namespace::new()?;
    /// assert!(!namespace.is_same(&Namespace::current()?)?);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn new() -> Result<Self, Error> {
        let fail = |error: io::Error| {
            let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::PERM) => ErrorKind::NotPermitted { needs: "CAP_SYS_ADMIN" },
                _ => ErrorKind::System(error),
            };
            Error::new("create", "a network namespace", kind)
        };
        let enter = || {
            // SAFETY: the thread has just been made and ends after this. A network namespace is the thread's own
            // property, and concerns neither memory nor descriptors.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        };
        on_a_thread(enter, Self::current).map_err(fail)?.map(|namespace| Self {
            name: "the network namespace that was made here".to_owned(),
            ..namespace
        })
    }

    /// Runs `work` inside and returns what it returns: on a thread of its own, unless the calling thread is in this
    /// namespace already.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// let namespace = nabla_net::Namespace::new()?;
    /// let listener = namespace.run(|| std::net::TcpListener::bind("0.0.0.0:80"))??;
    /// // Nobody else in there has port 80, and here it is as it was.
    /// # drop(listener);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered (that takes CAP_SYS_ADMIN), or no thread be made.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        if Self::current()?.is_same(self)? {
            return Ok(work());
        }
        let enter = || {
            let kind = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(self.descriptor.as_fd(), kind)
        };
        on_a_thread(enter, work).map_err(|error| {
            let kind = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::PERM) => ErrorKind::NotPermitted { needs: "CAP_SYS_ADMIN" },
                _ => ErrorKind::System(error),
            };
            Error::new("enter", self.name.clone(), kind)
        })
    }

    /// Whether this is the same namespace as another.
    ///
    /// ```
    /// # if !nabla_testkit::need::root() { return Ok(()) }
    /// use nabla_net::Namespace;
    ///
    /// let current = Namespace::current()?;
    /// assert!(current.is_same(&Namespace::current()?)?);
    /// assert!(!current.is_same(&Namespace::new()?)?);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn is_same(&self, other: &Self) -> Result<bool, Error> {
        Ok(self.identity()? == other.identity()?)
    }

    /// What tells namespaces apart: device and inode.
    pub(crate) fn identity(&self) -> Result<(u64, u64), Error> {
        let stat = rustix::fs::fstat(&self.descriptor)
            .map_err(|errno| Error::system("look at", self.name.clone(), errno.into()))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Visits every namespace that can be found: the current one, those that have names below /run, and those of processes
    /// that may be looked at. One at a time: however many there are, a few descriptors are enough.
    ///
    /// ```
    /// use nabla_net::Namespace;
    ///
    /// let mut found = Vec::new();
    /// Namespace::for_each(|namespace| found.push(namespace))?;
    /// assert!(found[0].is_same(&Namespace::current()?)?);
    /// # Ok::<(), nabla_net::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The first thing that keeps it from seeing all that it may see, such as a lack of descriptors. What can be visited has
    /// been.
    pub fn for_each(mut visit: impl FnMut(Self)) -> Result<(), Error> {
        let current = Self::current()?;
        let mut known = vec![current.identity()?];
        visit(current);
        let mut result = Ok(());
        for (directory, below) in [("/run/netns", ""), ("/run/docker/netns", ""), ("/proc", "ns/net")] {
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    result = result.and(Err(Error::system("list", directory, error)));
                    continue;
                }
            };
            for entry in entries.flatten() {
                let is_process = entry.file_name().as_encoded_bytes()[0].is_ascii_digit();
                if directory == "/proc" && !is_process {
                    continue;
                }
                let path = entry.path().join(below);
                // Most processes share one; looking is cheaper than opening.
                let Ok(metadata) = fs::metadata(&path) else { continue };
                let identity = (metadata.dev(), metadata.ino());
                if known.contains(&identity) {
                    continue;
                }
                known.push(identity);
                match Self::open_path(&path) {
                    Ok(namespace) => visit(namespace),
                    // The process has ended, or is somebody else's; the file has been left behind.
                    Err(error) if error.is_not_found() || error.is_not_permitted() => {}
                    Err(Error { kind: ErrorKind::Kind { .. }, .. }) => {}
                    Err(error) => result = result.and(Err(error)),
                }
            }
        }
        result
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The kind of a namespace: the flag with which clone(2) makes one.
fn namespace_type(descriptor: BorrowedFd<'_>) -> Result<u32, Errno> {
    struct GetType;
    // SAFETY: NS_GET_NSTYPE (ioctl_ns(2)) takes no argument and returns a number.
    unsafe impl rustix::ioctl::Ioctl for GetType {
        type Output = u32;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> rustix::ioctl::Opcode {
            linux_raw_sys::ioctl::NS_GET_NSTYPE
        }
        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            std::ptr::null_mut()
        }
        unsafe fn output_from_ptr(
            out: rustix::ioctl::IoctlOutput,
            _: *mut std::ffi::c_void,
        ) -> rustix::io::Result<u32> {
            Ok(out.cast_unsigned())
        }
    }
    // SAFETY: see there. Descriptors of other kinds refuse it.
    unsafe { rustix::ioctl::ioctl(descriptor, GetType) }
}

/// Does `work` on a new thread that has entered something first.
fn on_a_thread<T: Send>(
    enter: impl FnOnce() -> rustix::io::Result<()> + Send,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("nabla-net".to_owned());
        let thread = builder.spawn_scoped(scope, move || match enter() {
            Ok(()) => Ok(work()),
            Err(errno) => Err(errno.into()),
        });
        // The system's own word for it would pass for the namespace's.
        let thread = thread.map_err(|error| {
            io::Error::other(format!(
                "cannot start a thread ({error}): is clone3 denied by a system call filter?"
            ))
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
