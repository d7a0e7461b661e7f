//! The server: sockets that wait for clients, and connections.

use alloc::{collections::VecDeque, string::String, vec, vec::Vec};
use core::{convert::Infallible, time::Duration};

use httpd::{Cache, Files};
use nabla_guest::{
    memory, println,
    tcpip::{
        Stack,
        smoltcp::{
            iface::SocketHandle,
            socket::tcp::{Socket, SocketBuffer, State},
            wire::IpCidr,
        },
    },
};

use crate::{
    connection::{Clock, Connection},
    failure::Failure,
};

/// Bytes of a request that are waited for.
const RECEIVE: usize = 8 << 10;
/// Bytes that are under way to a client.
const SEND: usize = 64 << 10;
/// Sockets that wait for clients who come at the same time.
const WAITING_MAX: usize = 128;
/// Of those, the ones that listen. The rest waits for the third word of a handshake, which may never come: then those that
/// have waited longest give way, as in a kernel's queue. Each frame of a round finds a socket.
const LISTENING_MIN: usize = Stack::FRAMES_AT_ONCE;
/// Sockets that are kept for clients to come where connections have taken the rest: idle ones give way.
const RESERVED: usize = LISTENING_MIN * 3;
/// Connections, unless there is memory for less.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may neither say nor take anything.
const IDLE: Duration = Duration::from_secs(60);
/// The share of memory that connections may take, and that files may.
const SHARE: usize = 3;

/// The server.
pub struct Server<F: Files> {
    stack: Stack,
    files: Cache<F>,
    port: u16,
    /// Sockets that no client has connected to yet.
    waiting: Vec<SocketHandle>,
    /// Those of them that a client has begun to connect to, in this order.
    half_open: VecDeque<SocketHandle>,
    connections: Vec<(SocketHandle, Connection<F::File>)>,
    limit: usize,
    told: Vec<IpCidr>,
    clock: Clock,
}

impl<F: Files> Server<F> {
    /// A server for files on a port.
    pub fn new(stack: Stack, files: F, port: u16) -> Self {
        let heap = memory().heap;
        let share = (heap.end - heap.start) / SHARE;
        let limit = (share / (RECEIVE + SEND)).clamp(2, CONNECTIONS_MAX);
        let files = Cache::new(files, share);
        let (waiting, connections, told) = (Vec::new(), Vec::new(), Vec::new());
        let half_open = VecDeque::new();
        Self { stack, files, port, waiting, half_open, connections, limit, told, clock: Clock::new() }
    }

    /// Serves for as long as the guest runs.
    pub fn run(&mut self) -> Result<Infallible, Failure> {
        loop {
            self.listen();
            self.stack.poll();
            self.clock.update();
            self.tell();
            self.accept();
            self.serve();
            let waited = if self.connections.is_empty() {
                self.stack.wait()
            } else {
                self.stack.wait_until(self.clock.now() + IDLE / 2)
            };
            waited.map_err(|_| Failure(String::from("the host has taken the network device away")))?;
        }
    }

    /// Sees to it that there are sockets for clients who come at the same time.
    fn listen(&mut self) {
        let listening = self.waiting.len() - self.half_open.len();
        let missing = LISTENING_MIN.min(self.limit / 4).saturating_sub(listening);
        for handle in self.half_open.drain(..missing.min(self.half_open.len())) {
            self.stack.sockets().remove(handle);
            self.waiting.retain(|&waiting| waiting != handle);
        }
        self.make_room();
        let free = self.limit - (self.waiting.len() + self.connections.len()).min(self.limit);
        let missing = WAITING_MAX - self.waiting.len().min(WAITING_MAX);
        for _ in 0..missing.min(free) {
            let mut socket =
                Socket::new(SocketBuffer::new(vec![0; RECEIVE]), SocketBuffer::new(vec![0; SEND]));
            // Everything that is sent is all that there is to be sent.
            socket.set_nagle_enabled(false);
            socket.set_timeout(Some(IDLE.into()));
            if socket.listen(self.port).is_err() {
                return;
            }
            let handle = self.stack.sockets().add(socket);
            self.waiting.push(handle);
        }
    }

    /// Ends connections that carry nothing, where there would be too few sockets for clients to come: first those that have
    /// been idle for longest.
    fn make_room(&mut self) {
        let excess = (self.connections.len() + RESERVED.min(self.limit / 2)).saturating_sub(self.limit);
        if excess == 0 {
            return;
        }
        let mut idle: Vec<_> =
            self.connections.iter().filter(|(_, connection)| connection.is_idle()).collect();
        idle.sort_by_key(|(_, connection)| connection.last_progress());
        for &&(handle, _) in idle.iter().take(excess) {
            self.stack.sockets().get_mut::<Socket<'_>>(handle).abort();
        }
    }

    /// Says where the server is, at the start and when a DHCP server has said something else.
    fn tell(&mut self) {
        if self.stack.addresses() == self.told {
            return;
        }
        self.told = self.stack.addresses().to_vec();
        for address in &self.told {
            let port = self.port;
            match address {
                IpCidr::Ipv4(cidr) if !cidr.address().is_link_local() && port == 80 => {
                    println!("httpd: http://{}/", cidr.address());
                }
                IpCidr::Ipv4(cidr) if !cidr.address().is_link_local() => {
                    println!("httpd: http://{}:{port}/", cidr.address());
                }
                IpCidr::Ipv6(cidr) if !cidr.address().is_unicast_link_local() => {
                    println!("httpd: http://[{}]:{port}/", cidr.address());
                }
                _ => {}
            }
        }
    }

    /// Takes the sockets that clients have connected to.
    fn accept(&mut self) {
        let sockets = self.stack.sockets();
        let (connections, now) = (&mut self.connections, self.clock.now());
        let state = |handle| sockets.get::<Socket<'_>>(handle).state();
        self.half_open.retain(|&handle| state(handle) == State::SynReceived);
        self.waiting.retain(|&handle| match state(handle) {
            State::Listen => true,
            State::SynReceived => {
                if !self.half_open.contains(&handle) {
                    self.half_open.push_back(handle);
                }
                true
            }
            _ => {
                connections.push((handle, Connection::new(now)));
                false
            }
        });
    }

    /// Gets every connection on, and forgets those that have ended.
    fn serve(&mut self) {
        let (sockets, files, clock) = (self.stack.sockets(), &mut self.files, &self.clock);
        self.connections.retain_mut(|(handle, connection)| {
            let socket = sockets.get_mut::<Socket<'_>>(*handle);
            connection.serve(socket, files, clock);
            if clock.now().duration_since(connection.last_progress()) > IDLE {
                socket.abort();
            }
            // The client has the last byte when both sides have said their end. What may still come is answered
            // with a reset.
            let has_ended = matches!(socket.state(), State::Closed | State::TimeWait);
            if has_ended {
                sockets.remove(*handle);
            }
            !has_ended
        });
    }
}
