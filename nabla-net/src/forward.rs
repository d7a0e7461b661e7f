//! Passing connections to a port of the host on to a guest.

use crate::error::Error;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Sockets that are open at the same time, two for each connection; further clients wait until one ends.
const SOCKETS_MAX: usize = 1024;
/// How long the guest has for taking a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);
const BUFFER: usize = 64 << 10;
/// Threads that copy need little more than their buffer.
const STACK: usize = 256 << 10;

/// Accepts TCP connections on the host and passes them on, byte by byte, to an address that the host reaches. It takes
/// no rules in anybody's firewall, and ends when it is dropped, with all connections.
///
/// ```
/// use std::{io::{Read, Write}, net::{TcpListener, TcpStream}};
///
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let forwarder = nabla_net::Forwarder::start("127.0.0.1:0".parse()?, server.local_addr()?)?;
/// let mut client = TcpStream::connect(forwarder.local_address())?;
/// client.write_all(b"hello")?;
/// let mut text = [0; 5];
/// server.accept()?.0.read_exact(&mut text)?;
/// assert_eq!(&text, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// Becomes readable when everything is to end.
    stop: OwnedFd,
    stopping: AtomicBool,
    connections: Mutex<Connections>,
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Vec<TcpStream>>,
}

impl Forwarder {
    /// Listens on `listen` and passes connections on to `target`. Port 0 is any that is free.
    ///
    /// ```
    /// let forwarder = nabla_net::Forwarder::start("127.0.0.1:0".parse()?, "127.0.0.1:9".parse()?)?;
    /// let taken = forwarder.local_address();
    /// let error = nabla_net::Forwarder::start(taken, "127.0.0.1:9".parse()?).unwrap_err();
    /// assert!(error.to_string().contains("another program listens there"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on, or no thread be made.
    pub fn start(listen: SocketAddr, target: SocketAddr) -> Result<Self, Error> {
        let fail = |error: io::Error| {
            let object = format!("port {} of {}", listen.port(), listen.ip());
            if error.kind() == io::ErrorKind::AddrInUse {
                let reason = "another program listens there; choose another port".to_owned();
                return Error::new("listen on", object, crate::ErrorKind::Other(reason));
            }
            Error::new("listen on", object, crate::ErrorKind::System(error))
        };
        let listener = TcpListener::bind(listen).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| fail(errno.into()))?;
        let shared = Arc::new(Shared {
            target,
            stop,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            fewer: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = spawn(move || accept(&listener, &for_thread)).map_err(fail)?;
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    ///
    /// ```
    /// let forwarder = nabla_net::Forwarder::start("127.0.0.1:0".parse()?, "127.0.0.1:9".parse()?)?;
    /// assert_ne!(forwarder.local_address().port(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        for stream in self.shared.connections().open.values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.fewer.notify_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        // What is inside is consistent after every statement.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Remembers a connection, so that it can be ended; nothing when it is to end at once.
    fn register(&self, streams: &[&TcpStream]) -> Option<u64> {
        let streams = streams.iter().map(|stream| stream.try_clone()).collect::<io::Result<_>>().ok()?;
        let mut connections = self.connections();
        if self.is_stopping() {
            return None;
        }
        let id = connections.next;
        connections.next = connections.next.wrapping_add(1);
        connections.open.insert(id, streams);
        Some(id)
    }

    fn forget(&self, id: u64) {
        self.connections().open.remove(&id);
        self.fewer.notify_all();
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("nabla-forward".to_owned()).stack_size(STACK).spawn(work)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let mut descriptors =
            [PollFd::new(listener, PollFlags::IN), PollFd::new(&shared.stop, PollFlags::IN)];
        let polled = rustix::io::retry_on_intr(|| poll(&mut descriptors, None));
        if shared.is_stopping() || polled.is_err() {
            return;
        }
        match listener.accept() {
            Ok((client, _)) => {
                let in_thread = Arc::clone(shared);
                let Some(id) = shared.register(&[&client]) else { return };
                if spawn(move || serve(&client, id, &in_thread)).is_err() {
                    shared.forget(id);
                }
                let open = shared.connections();
                let full = |open: &mut Connections| open.open.len() >= SOCKETS_MAX && !shared.is_stopping();
                drop(shared.fewer.wait_while(open, full));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                thread::sleep(RETRY);
            }
        }
    }
}

/// Passes one connection on until both sides have said all.
fn serve(client: &TcpStream, id: u64, shared: &Arc<Shared>) {
    let pass = || -> io::Result<()> {
        client.set_nonblocking(false)?;
        let server = TcpStream::connect_timeout(&shared.target, CONNECT_TIMEOUT)?;
        for stream in [client, &server] {
            stream.set_nodelay(true)?;
        }
        let Some(second) = shared.register(&[&server]) else { return Ok(()) };
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        let there = spawn(move || copy(&from, &to));
        if there.is_ok() {
            copy(&server, client);
        }
        let joined = there.map(|thread| drop(thread.join()));
        shared.forget(second);
        joined
    };
    if let Err(error) = pass() {
        tracing::debug!(%error, target = %shared.target, "a connection could not be passed on");
    }
    shared.forget(id);
}

/// Copies until one side ends, and passes the end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(length @ 1..) if to.write_all(&buffer[..length]).is_ok() => {}
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            _ => {
                // Nobody takes it, or somebody broke off: so does the other side.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (TcpListener, Forwarder) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        (server, Forwarder::start(SocketAddr::from(([127, 0, 0, 1], 0)), target).unwrap())
    }

    #[test]
    fn both_directions_end_on_their_own() {
        let (server, forwarder) = pair();
        let mut client = TcpStream::connect(forwarder.local_address()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(&[7; 300_000]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        served.read_to_end(&mut got).unwrap();
        assert_eq!(got, vec![7; 300_000]);
        served.write_all(b"answer").unwrap();
        drop(served);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn open_connections_end_when_it_is_dropped() {
        let (server, forwarder) = pair();
        let mut client = TcpStream::connect(forwarder.local_address()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
        let address = forwarder.local_address();
        drop(forwarder);
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_target_that_refuses_ends_the_connection() {
        let (server, forwarder) = pair();
        drop(server);
        let mut client = TcpStream::connect(forwarder.local_address()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }

    #[test]
    fn port_in_use_says_so() {
        let (_server, forwarder) = pair();
        let error = Forwarder::start(forwarder.local_address(), forwarder.local_address()).unwrap_err();
        assert!(error.to_string().contains("choose another port"), "{error}");
    }
}
