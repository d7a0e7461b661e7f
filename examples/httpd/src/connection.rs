//! One client: requests in, responses out.

use alloc::{format, string::String};
use core::time::Duration;

use httpd::{Body, Cache, Entry, File, Files, Head, Method, Parsed, Request, Status, lookup, parse};
use nabla_guest::{
    println,
    tcpip::smoltcp::socket::tcp::Socket,
    time::{self, Instant},
};

/// The time, as of one round of the server: reading a clock costs as much as looking at an idle connection.
pub struct Clock {
    now: Instant,
    wall: Duration,
    /// When the wall clock was read.
    read: Instant,
}

impl Clock {
    /// How long the wall clock is continued by the other.
    const CONTINUED: Duration = Duration::from_secs(1);

    pub fn new() -> Self {
        let now = Instant::now();
        Self { now, wall: time::wall_clock(), read: now }
    }

    /// Another round begins.
    pub fn update(&mut self) {
        self.now = Instant::now();
        if self.now.duration_since(self.read) > Self::CONTINUED {
            (self.wall, self.read) = (time::wall_clock(), self.now);
        }
    }

    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Since 1970.
    fn wall(&self) -> Duration {
        self.wall + self.now.duration_since(self.read)
    }
}

/// What is under way on a connection.
pub struct Connection<F> {
    /// A response that has not been sent completely.
    response: Option<Response<F>>,
    /// Whether no other request follows.
    closing: bool,
    /// When the client has last said or taken something, and what was still under way then.
    progress: Instant,
    queues: (usize, usize),
}

struct Response<F> {
    head: String,
    body: Body<F>,
    /// Bytes of head and body that have been sent.
    sent: u64,
    /// Bytes of the body that are sent at all: none for HEAD.
    body_size: u64,
}

impl<F: File> Connection<F> {
    pub const fn new(now: Instant) -> Self {
        Self { response: None, closing: false, progress: now, queues: (0, 0) }
    }

    /// When the client has last said or taken something.
    pub const fn last_progress(&self) -> Instant {
        self.progress
    }

    /// Whether nothing is being sent.
    pub const fn is_idle(&self) -> bool {
        self.response.is_none()
    }

    /// Sends and receives as much as possible.
    pub fn serve<Fs>(&mut self, socket: &mut Socket<'_>, files: &mut Cache<Fs>, clock: &Clock)
    where
        Fs: Files<File = F, Error = F::Error>,
    {
        let queues = (socket.recv_queue(), socket.send_queue());
        if queues != self.queues {
            self.progress = clock.now();
        }
        self.exchange(socket, files, clock);
        self.queues = (socket.recv_queue(), socket.send_queue());
    }

    fn exchange<Fs>(&mut self, socket: &mut Socket<'_>, files: &mut Cache<Fs>, clock: &Clock)
    where
        Fs: Files<File = F, Error = F::Error>,
    {
        loop {
            if let Some(response) = &mut self.response {
                match response.send(socket) {
                    Ok(true) => self.response = None,
                    Ok(false) => return,
                    Err(error) => {
                        println!("httpd: {error}");
                        // The length has been promised; breaking off is the only way to say that it is not kept.
                        socket.abort();
                        return;
                    }
                }
            }
            if self.closing {
                // Whatever the client still sends: it has been answered. What was not read would make the end an abrupt one.
                let _ = socket.recv(|bytes| (bytes.len(), ()));
                socket.close();
                return;
            }
            if !socket.can_recv() {
                if !socket.may_recv() {
                    socket.close();
                }
                return;
            }
            if !self.receive(socket, files, clock) {
                return;
            }
        }
    }

    /// Takes the next request, and returns whether there was one.
    fn receive<Fs>(&mut self, socket: &mut Socket<'_>, files: &mut Cache<Fs>, clock: &Clock) -> bool
    where
        Fs: Files<File = F, Error = F::Error>,
    {
        let (is_full, ended) = (socket.recv_queue() == socket.recv_capacity(), !socket.may_recv());
        let taken = socket.recv(|bytes| match parse(bytes) {
            Parsed::Complete(request, length) => (length, Some(answer(&request, files, clock.wall()))),
            Parsed::Invalid(status) => (bytes.len(), Some((refuse(status, clock.wall()), false))),
            Parsed::Partial => (0, None),
        });
        let answered = match taken {
            Ok(Some(answered)) => Some(answered),
            Ok(None) => self.receive_wrapped(socket, files, clock),
            Err(_) => None,
        };
        match answered {
            Some((response, keep_alive)) => {
                self.response = Some(response);
                self.closing |= !keep_alive;
                true
            }
            None if is_full => {
                self.response = Some(refuse(Status::TooLarge, clock.wall()));
                self.closing = true;
                true
            }
            None => {
                self.closing |= ended;
                ended
            }
        }
    }

    /// The same for a request whose end is at the start of the socket's ring.
    fn receive_wrapped<Fs>(
        &self,
        socket: &mut Socket<'_>,
        files: &mut Cache<Fs>,
        clock: &Clock,
    ) -> Option<(Response<F>, bool)>
    where
        Fs: Files<File = F, Error = F::Error>,
    {
        let mut copy = alloc::vec![0; socket.recv_queue()];
        let length = socket.peek_slice(&mut copy).ok()?;
        let (length, answered) = match parse(copy.get(..length)?) {
            Parsed::Complete(request, length) => (length, answer(&request, files, clock.wall())),
            Parsed::Invalid(status) => (length, (refuse(status, clock.wall()), false)),
            Parsed::Partial => return None,
        };
        let _ = socket.recv_slice(copy.get_mut(..length)?);
        Some(answered)
    }
}

/// The response to a request, and whether another one may follow.
fn answer<Fs: Files>(
    request: &Request<'_>,
    files: &mut Cache<Fs>,
    now: Duration,
) -> (Response<Fs::File>, bool) {
    let (status, path, body) = match request.method {
        Method::Other => (Status::MethodNotAllowed, String::new(), None),
        Method::Get | Method::Head => find(request.target, files),
    };
    let body = body.unwrap_or(Body::Text(status.body()));
    let keep_alive = request.keep_alive;
    let head = Head { status, length: body.size(), path: &path, keep_alive, now };
    let body_size = if request.method == Method::Head { 0 } else { body.size() };
    (Response { head: format!("{head}"), body, sent: 0, body_size }, keep_alive)
}

/// What a path means: a file, or the `index.html` of a directory.
fn find<Fs: Files>(target: &str, files: &mut Cache<Fs>) -> (Status, String, Option<Body<Fs::File>>) {
    let Some(path) = lookup(target) else { return (Status::NotFound, String::new(), None) };
    let wants_directory = target.split('?').next().is_some_and(|path| path.ends_with('/'));
    let mut open = |path: String| match files.open(&path) {
        Ok(entry) => Ok((path, entry)),
        Err(error) => {
            println!("httpd: {path}: {error}");
            Err((Status::Internal, path, None))
        }
    };
    match open(path) {
        Ok((path, Entry::File(body))) if !wants_directory => (Status::Ok, path, Some(body)),
        Ok((path, Entry::Directory)) => {
            let index =
                if path.is_empty() { String::from("index.html") } else { format!("{path}/index.html") };
            match open(index) {
                Ok((_, Entry::File(_))) if !wants_directory => {
                    let target = target.split('?').next().unwrap_or_default();
                    (Status::MovedPermanently, String::from(target), None)
                }
                Ok((index, Entry::File(body))) => (Status::Ok, index, Some(body)),
                Ok((index, _)) => (Status::NotFound, index, None),
                Err(failed) => failed,
            }
        }
        Ok((path, _)) => (Status::NotFound, path, None),
        Err(failed) => failed,
    }
}

/// The response to what is no request.
fn refuse<F: File>(status: Status, now: Duration) -> Response<F> {
    let body = Body::Text(status.body());
    let head = Head { status, length: body.size(), path: "", keep_alive: false, now };
    Response { head: format!("{head}"), sent: 0, body_size: body.size(), body }
}

impl<F: File> Response<F> {
    /// Sends what the socket has room for, and returns whether that was all.
    fn send(&mut self, socket: &mut Socket<'_>) -> Result<bool, F::Error> {
        let head = self.head.len() as u64;
        while self.sent < head + self.body_size {
            let mut failed = None;
            let sent = socket.send(|room| {
                let from = self.sent;
                let sent = if from < head {
                    let rest =
                        self.head.as_bytes().get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default();
                    let length = rest.len().min(room.len());
                    room[..length].copy_from_slice(&rest[..length]);
                    length
                } else {
                    let left = usize::try_from(self.body_size - (from - head)).unwrap_or(usize::MAX);
                    let length = left.min(room.len());
                    match self.body.read_at(from - head, &mut room[..length]) {
                        Ok(()) => length,
                        Err(error) => {
                            failed = Some(error);
                            0
                        }
                    }
                };
                (sent, sent)
            });
            if let Some(error) = failed {
                return Err(error);
            }
            match sent {
                // The client is gone, and the rest with it.
                Err(_) => return Ok(true),
                Ok(0) => return Ok(false),
                Ok(sent) => self.sent += sent as u64,
            }
        }
        Ok(true)
    }
}
