//! Passing connections to a port of the host on to a guest.

mod relay;

use crate::error::Error;
use relay::{Limits, Relay};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
};

/// Accepts TCP connections on the host and passes them on, byte by byte, to an address that the host reaches. It takes
/// no rules in anybody's firewall, and ends when it is dropped, with all connections.
///
/// One thread does it, with two descriptors for each connection. At most 512 are open at the same time, or as many as the
/// program has descriptors for: then one that was idle for a minute or longer gives way to a new one, which waits otherwise.
/// Connections that were idle for an hour are ended.
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
    /// Becomes readable when everything is to end.
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
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
        Self::with_limits(listen, target, Limits::default())
    }

    fn with_limits(listen: SocketAddr, target: SocketAddr, limits: Limits) -> Result<Self, Error> {
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
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| fail(errno.into()))?);
        let relay = Relay::new(listener, target, Arc::clone(&stop), limits).map_err(fail)?;
        let thread = thread::Builder::new()
            .name("nabla-forward".to_owned())
            .spawn(move || relay.run())
            .map_err(fail)?;
        Ok(Self { address, stop, thread: Some(thread) })
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
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpStream},
        time::Duration,
    };

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

    fn exchange(server: &TcpListener, forwarder: &Forwarder) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(forwarder.local_address()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
        (client, served)
    }

    #[test]
    fn idle_connections_give_way_to_new_ones() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = Limits { connections: 2, gives_way: Duration::ZERO, ..Limits::default() };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let forwarder = Forwarder::with_limits(listen, server.local_addr().unwrap(), limits).unwrap();
        let mut first = exchange(&server, &forwarder);
        let _second = exchange(&server, &forwarder);
        let _third = exchange(&server, &forwarder);
        assert_eq!(first.0.read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(first.1.read(&mut [0]).unwrap_or(0), 0);
    }

    #[test]
    fn connections_that_are_idle_for_long_are_ended() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = Limits { idle: Duration::from_millis(20), ..Limits::default() };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let forwarder = Forwarder::with_limits(listen, server.local_addr().unwrap(), limits).unwrap();
        let mut client = TcpStream::connect(forwarder.local_address()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }

    #[test]
    fn reader_that_is_slow_gets_everything() {
        let (server, forwarder) = pair();
        let mut client = TcpStream::connect(forwarder.local_address()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        // More than sockets and relay hold, so that it has to wait for the reader.
        let sent: Vec<u8> = (0..32_u32 << 20).map(|number| (number % 251).to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            served.write_all(&sent).unwrap();
            served.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            served.read_to_string(&mut answer).unwrap();
            answer
        });
        client.write_all(b"both ways").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == expected);
        assert_eq!(writer.join().unwrap(), "both ways");
    }
}
