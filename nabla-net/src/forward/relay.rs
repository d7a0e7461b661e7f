//! The thread that passes connections on.

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with},
};
use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the guest has for taking a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no descriptors or memory, and no connection ends.
const RETRY: Duration = Duration::from_millis(100);
const BUFFER: usize = 64 << 10;
/// Buffers that are copied for one connection before another one has its turn.
const TURN: usize = 16;

/// What is told apart by the number of an event. Connections have two each, from 0.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// How many connections, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// How long one may carry nothing.
    pub idle: Duration,
    /// How long one must have carried nothing before it gives way to a new one.
    pub gives_way: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 512, idle: Duration::from_secs(3600), gives_way: Duration::from_secs(60) }
    }
}

/// Passes connections on until it is told to stop.
#[derive(Debug)]
pub struct Relay {
    listener: TcpListener,
    target: SocketAddr,
    limits: Limits,
    epoll: OwnedFd,
    /// It must stay open as long as epoll has it.
    _stop: Arc<OwnedFd>,
    connections: HashMap<u64, Connection>,
    next: u64,
    buffer: Vec<u8>,
    /// When to accept again, if not now.
    paused: Option<Instant>,
    /// When to look for connections that have taken too long.
    sweep: Instant,
}

#[derive(Debug)]
struct Connection {
    client: Side,
    server: Side,
    /// From the client to the server, and back.
    there: Flow,
    back: Flow,
    is_connected: bool,
    progress: Instant,
}

#[derive(Debug)]
struct Side {
    stream: TcpStream,
    /// What epoll looks for.
    interest: EventFlags,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// What was read and not taken yet. Nothing is read meanwhile.
    pending: Vec<u8>,
    /// Nothing else comes, and that was passed on.
    ended: bool,
}

impl Relay {
    /// Passes what comes to `listener`, which is non-blocking, on to `target`, until `stop` becomes readable.
    pub fn new(
        listener: TcpListener,
        target: SocketAddr,
        stop: Arc<OwnedFd>,
        limits: Limits,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self {
            listener,
            target,
            limits,
            epoll,
            _stop: stop,
            connections: HashMap::new(),
            next: 0,
            buffer: vec![0; BUFFER],
            paused: None,
            sweep: Instant::now() + limits.idle,
        })
    }

    /// Does it.
    pub fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            let timeout = self.timeout();
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "connections are not passed on any more");
                    return;
                }
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    LISTENER => self.accept(),
                    number => self.serve(number / 2, event.flags),
                }
            }
            self.look_at_the_clock();
        }
    }

    /// How long nothing has to be done; for ever when there is no connection.
    fn timeout(&self) -> Option<rustix::time::Timespec> {
        let sweep = (!self.connections.is_empty()).then_some(self.sweep);
        let next = [sweep, self.paused].into_iter().flatten().min()?;
        // A little more, so that the time has come when this is over.
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        wait.try_into().ok()
    }

    fn accept(&mut self) {
        match self.try_accept() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The client has thought better of it.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::debug!(%error, "a connection cannot be accepted now");
                self.pause(Instant::now() + RETRY);
            }
        }
    }

    /// Accepts a connection, or makes room for one.
    fn try_accept(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.connections.len() >= self.limits.connections && !self.make_room(now) {
            return Ok(());
        }
        // First the server's socket: a client that is not accepted waits, one that was accepted would have to be sent away.
        let opened = self.open().and_then(|server| Ok((self.listener.accept()?.0, server)));
        let (client, server) = match opened {
            Err(error) if lacks_descriptors(&error) && self.make_room(now) => return Ok(()),
            opened => opened?,
        };
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let is_connected = match connect(&server, &self.target) {
            Ok(()) => true,
            Err(Errno::INPROGRESS) => false,
            // The client learns it by the end of its connection.
            Err(error) => {
                tracing::debug!(%error, target = %self.target, "a connection could not be passed on");
                return Ok(());
            }
        };
        let id = self.next;
        self.next += 1;
        let side = |stream| Side { stream, interest: EventFlags::empty() };
        let (there, back) = (Flow::default(), Flow::default());
        let connection = Connection {
            client: side(client),
            server: side(server),
            there,
            back,
            is_connected,
            progress: now,
        };
        self.connections.insert(id, connection);
        self.sweep = self.sweep.min(now + CONNECT.min(self.limits.idle));
        self.serve(id, EventFlags::empty());
        Ok(())
    }

    fn open(&self) -> io::Result<TcpStream> {
        let family = if self.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(socket_with(family, SocketType::STREAM, flags, None)?.into())
    }

    /// Ends the connection that has been idle for longest, if that is long enough. Otherwise, nobody is accepted until one is
    /// or has ended.
    fn make_room(&mut self, now: Instant) -> bool {
        let Some((&id, connection)) =
            self.connections.iter().min_by_key(|(_, connection)| connection.progress)
        else {
            return false;
        };
        let gives_way = connection.progress + self.limits.gives_way;
        if gives_way > now {
            self.pause(gives_way);
            return false;
        }
        self.end(id);
        true
    }

    fn pause(&mut self, until: Instant) {
        if self.paused.is_none() {
            let _ = epoll::delete(&self.epoll, &self.listener);
        }
        self.paused = Some(until);
    }

    fn go_on(&mut self) {
        if self.paused.take().is_some()
            && let Err(error) =
                epoll::add(&self.epoll, &self.listener, EventData::new_u64(LISTENER), EventFlags::IN)
        {
            tracing::debug!(%error, "connections cannot be accepted now");
            self.paused = Some(Instant::now() + RETRY);
        }
    }

    fn end(&mut self, id: u64) {
        // Closing the sockets takes them out of epoll.
        self.connections.remove(&id);
        self.go_on();
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if self.paused.is_some_and(|until| until <= now) {
            self.go_on();
        }
        if self.sweep > now {
            return;
        }
        let idle = self.limits.idle;
        let deadline = |connection: &Connection| {
            connection.progress + if connection.is_connected { idle } else { CONNECT.min(idle) }
        };
        let late = self.connections.iter().filter(|(_, connection)| deadline(connection) <= now);
        for id in late.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.end(id);
        }
        self.sweep = self.connections.values().map(deadline).min().unwrap_or(now + idle);
    }

    /// Gets a connection on after something has happened to it.
    fn serve(&mut self, id: u64, flags: EventFlags) {
        // Events of one round may be of a connection that an earlier one has ended.
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let served = connection.serve(flags, &mut self.buffer).and_then(|is_done| {
            if is_done { Ok(true) } else { connection.watch(&self.epoll, id).map(|()| false) }
        });
        match served {
            Ok(false) => {}
            Ok(true) => self.end(id),
            Err(error) => {
                tracing::debug!(%error, target = %self.target, "a connection was broken off");
                self.end(id);
            }
        }
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::MFILE | Errno::NFILE))
}

impl Connection {
    /// Copies what there is, and returns whether both sides have said all.
    fn serve(&mut self, flags: EventFlags, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.is_connected {
            if let Some(error) = self.server.stream.take_error()? {
                return Err(error);
            }
            if !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
                return Ok(false);
            }
            (self.is_connected, self.progress) = (true, Instant::now());
        }
        let (client, server) = (&self.client.stream, &self.server.stream);
        let there = self.there.copy(client, server, buffer)?;
        let back = self.back.copy(server, client, buffer)?;
        if there || back {
            self.progress = Instant::now();
        }
        Ok(self.there.ended && self.back.ended)
    }

    /// Has epoll look for what would get it on.
    fn watch(&mut self, epoll: &OwnedFd, id: u64) -> io::Result<()> {
        let interest = |from: &Flow, to: &Flow| {
            let mut interest = EventFlags::empty();
            interest.set(EventFlags::IN, !from.ended && from.pending.is_empty());
            interest.set(EventFlags::OUT, !to.pending.is_empty());
            interest
        };
        let (client, server) = match self.is_connected {
            true => (interest(&self.there, &self.back), interest(&self.back, &self.there)),
            false => (EventFlags::empty(), EventFlags::OUT),
        };
        self.client.watch(epoll, id * 2, client)?;
        self.server.watch(epoll, id * 2 + 1, server)
    }
}

impl Side {
    fn watch(&mut self, epoll: &OwnedFd, number: u64, interest: EventFlags) -> io::Result<()> {
        let (was, data) = (self.interest, EventData::new_u64(number));
        match (was.is_empty(), interest.is_empty()) {
            _ if was == interest => {}
            (true, _) => epoll::add(epoll, &self.stream, data, interest)?,
            // Errors and ends would be told, too, again and again.
            (_, true) => epoll::delete(epoll, &self.stream)?,
            _ => epoll::modify(epoll, &self.stream, data, interest)?,
        }
        self.interest = interest;
        Ok(())
    }
}

impl Flow {
    /// Copies until one side has to be waited for, and passes the end on. Returns whether anything was copied.
    fn copy(&mut self, mut from: &TcpStream, mut to: &TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
        let mut copied = false;
        for _ in 0..TURN {
            if !self.pending.is_empty() {
                let Some(length) = unless_blocked(to.write(&self.pending))? else { return Ok(copied) };
                self.pending.drain(..length);
                copied = true;
                continue;
            }
            if self.ended {
                return Ok(copied);
            }
            let Some(length) = unless_blocked(from.read(buffer))? else { return Ok(copied) };
            if length == 0 {
                let _ = to.shutdown(Shutdown::Write);
                self.ended = true;
                return Ok(true);
            }
            copied = true;
            let written = unless_blocked(to.write(&buffer[..length]))?.unwrap_or(0);
            self.pending.extend_from_slice(&buffer[written..length]);
        }
        Ok(copied)
    }
}

fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
