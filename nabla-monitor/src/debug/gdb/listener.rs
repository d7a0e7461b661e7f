//! Where debuggers connect to.

use rustix::{
    fs::{Mode, fchmod},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};
use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Debuggers that can wait to be accepted.
const BACKLOG: i32 = 8;

/// Waits for gdb. A program that can connect to it controls the guest: not the host, but everything that the guest has.
///
/// ```
/// use nabla_monitor::GdbListener;
///
/// let listener = GdbListener::tcp("127.0.0.1:0")?;
/// assert!(listener.to_string().starts_with("127.0.0.1:")); // for `target remote`
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct GdbListener(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// A connected debugger.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl GdbListener {
    /// Listens on a TCP address. Port 0 lets the system choose one.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub fn tcp(address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self(Listener::Tcp(listener, address)))
    }

    /// Listens on a Unix socket at `path`, which is removed in the end. Only this program's user can connect.
    ///
    /// # Errors
    ///
    /// When there is something at `path`, or no socket can be made there.
    pub fn unix(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file that `bind` makes has these permissions from the start.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        let result = Self(Listener::Unix(socket.into(), path.to_owned()));
        if let Listener::Unix(socket, _) = &result.0 {
            listen(socket, BACKLOG)?;
        }
        Ok(result)
    }

    /// The next debugger, if there is one.
    pub(super) fn accept(&self) -> io::Result<Option<Stream>> {
        let stream = match &self.0 {
            Listener::Tcp(listener, _) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener, _) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        };
        match stream {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match Errno::from_io_error(&error) {
                // One that has gone away again, too.
                Some(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// What gdb's `target remote` takes.
impl fmt::Display for GdbListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Listener::Tcp(_, address) => address.fmt(f),
            Listener::Unix(_, path) => path.display().fmt(f),
        }
    }
}

impl AsFd for GdbListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Listener::Tcp(listener, _) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
