//! One debugger, from its connection to its leave.

use super::{
    super::{
        End,
        thread::{Channel, Task},
    },
    listener::Stream,
    target::Target,
};
use gdbstub::{
    common::Signal,
    conn::{Connection, ConnectionExt},
    stub::{
        DisconnectReason, GdbStub, SingleThreadStopReason,
        run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError},
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::{collections::VecDeque, io, marker::PhantomData, os::fd::AsFd, sync::Arc};

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With the guest.
    Ended,
    /// The debugger has left, or has been lost.
    Left,
}

/// Runs a session with a guest that stands still.
pub fn run(task: &mut Task, stream: Stream) -> io::Result<Outcome> {
    if let Stream::Tcp(stream) = &stream {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(false)?;
    }
    if let Stream::Unix(stream) = &stream {
        stream.set_nonblocking(false)?;
    }
    let channel = Arc::clone(&task.shared);
    let mut target = Target::new(task);
    let wire = Wire { stream, channel, received: VecDeque::new(), to_send: Vec::new() };
    let result = GdbStub::new(wire).run_blocking::<Loop<'_>>(&mut target);
    match result {
        Ok(DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_)) => {
            return Ok(Outcome::Ended);
        }
        Ok(DisconnectReason::Kill) => {
            target.task.guest.kill()?;
            return Ok(Outcome::Ended);
        }
        Ok(DisconnectReason::Disconnect) => {}
        // What it sent was nonsense, or it is gone. The next one finds the guest as it was before this one.
        Err(error) => tracing::info!(%error, "the connection to the debugger is lost; the guest goes on"),
    }
    target.clean_up()
}

struct Loop<'a>(PhantomData<&'a ()>);

impl<'a> BlockingEventLoop for Loop<'a> {
    type Target = Target<'a>;
    type Connection = Wire;
    type StopReason = SingleThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Target<'a>,
        wire: &mut Wire,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<io::Error, io::Error>> {
        // The acknowledgement of what has made the guest go on.
        Connection::flush(wire).map_err(WaitForStopReasonError::Connection)?;
        loop {
            let from_gdb = wire.peek().map_err(WaitForStopReasonError::Connection)?;
            if from_gdb.is_some() {
                let byte = wire.read().map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
            if let Some(reason) = target.stop_reason().map_err(WaitForStopReasonError::Target)? {
                return Ok(Event::TargetStopped(reason));
            }
            if !target.task.wait(&[wire.stream.as_fd()]).map_err(WaitForStopReasonError::Target)? {
                return Err(WaitForStopReasonError::Connection(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn on_interrupt(target: &mut Target<'a>) -> Result<Option<Self::StopReason>, io::Error> {
        target.interrupt()?;
        // The stop comes as an event.
        Ok(None)
    }
}

/// The connection, with buffers.
pub struct Wire {
    stream: Stream,
    /// To those who need the session, or want something else of its thread.
    channel: Arc<Channel>,
    received: VecDeque<u8>,
    to_send: Vec<u8>,
}

/// Bytes that are collected before they are sent.
const LONGEST: usize = 64 << 10;

impl Wire {
    /// Waits until the connection is ready for this (for nothing: not at all). An error when nobody needs the session any
    /// more.
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        let Channel { closing, request, .. } = &*self.channel;
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = what.is_empty().then_some(&now);
        loop {
            let mut set = [
                PollFd::new(closing, PollFlags::IN),
                PollFd::new(&self.stream, what),
                PollFd::new(request, PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| poll(&mut set, timeout))?;
            let [closing, stream, request] = set.map(|entry| !entry.revents().is_empty());
            if closing {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if request {
                // A debugger may take its time, and nobody waits for that.
                self.channel.refuse();
            }
            if stream || what.is_empty() {
                return Ok(());
            }
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match rustix::io::retry_on_intr(|| recv(&self.stream, &mut buffer, flags)) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => {
                self.received.extend(&buffer[..count]);
                Ok(())
            }
            Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Connection for Wire {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.to_send.push(byte);
        // An answer can be as long as the guest's memory.
        if self.to_send.len() >= LONGEST { self.flush() } else { Ok(()) }
    }

    /// A debugger that does not read its answers is waited for as long as the session is needed.
    fn flush(&mut self) -> io::Result<()> {
        const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
        let bytes = std::mem::take(&mut self.to_send);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match rustix::io::retry_on_intr(|| send(&self.stream, rest, FLAGS)) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
            let left = if rest.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            self.wait(left)?;
        }
        Ok(())
    }
}

impl ConnectionExt for Wire {
    fn read(&mut self) -> io::Result<u8> {
        loop {
            if let Some(byte) = self.received.pop_front() {
                return Ok(byte);
            }
            self.wait(PollFlags::IN)?;
            self.receive(RecvFlags::DONTWAIT)?;
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.received.is_empty() {
            self.receive(RecvFlags::DONTWAIT)?;
        }
        Ok(self.received.front().copied())
    }
}

/// A signal of Linux by gdb's own number.
pub fn signal(number: i32) -> Signal {
    match number {
        2 => Signal::SIGINT,
        4 => Signal::SIGILL,
        5 => Signal::SIGTRAP,
        6 => Signal::SIGABRT,
        7 => Signal::SIGBUS,
        8 => Signal::SIGFPE,
        9 => Signal::SIGKILL,
        10 => Signal::SIGUSR1,
        11 => Signal::SIGSEGV,
        12 => Signal::SIGUSR2,
        13 => Signal::SIGPIPE,
        14 => Signal::SIGALRM,
        15 => Signal::SIGTERM,
        24 => Signal::SIGXCPU,
        25 => Signal::SIGXFSZ,
        31 => Signal::SIGSYS,
        _ => Signal::UNKNOWN,
    }
}

/// What gdb is told about an end.
pub fn end(end: End) -> SingleThreadStopReason<u64> {
    match end {
        End::Code(code) => SingleThreadStopReason::Exited(code),
        End::Signal(number) => SingleThreadStopReason::Terminated(signal(number)),
    }
}
