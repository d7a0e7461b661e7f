//! Takes everything that comes to port 9 and sends without end from port 19, as RFC 863 and RFC 864 have it.
//!
//! `tcp-peer --ipv4=ADDRESS/PREFIX`. Prints "ready" first. Serves one connection on each port at a time.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{boxed::Box, vec};
use core::convert::Infallible;
use nabla_guest::{
    Net, println,
    tcpip::{
        Settings, Stack,
        smoltcp::{
            iface::SocketHandle,
            socket::tcp::{Socket, SocketBuffer, State},
        },
    },
};

nabla_guest::entry!(main, net "service0");

const DISCARD: u16 = 9;
const GENERATE: u16 = 19;
/// Bytes under way.
const BUFFER: usize = 256 << 10;

fn main() -> Result<Infallible, Box<dyn core::error::Error>> {
    let (settings, _) = Settings::from_args()?;
    let mut stack = Stack::new(Net::acquire("service0")?, &settings);
    let add = |stack: &mut Stack| {
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        stack.sockets().add(Socket::new(buffer(), buffer()))
    };
    let (discard, generate) = (add(&mut stack), add(&mut stack));
    println!("ready");
    loop {
        stack.poll();
        let taken = socket(&mut stack, discard, DISCARD);
        let _ = taken.recv(|bytes| (bytes.len(), ()));
        if taken.state() == State::CloseWait {
            taken.close();
        }
        let sent = socket(&mut stack, generate, GENERATE);
        // The bytes do not matter: they are not looked at.
        let _ = sent.send(|room| (room.len(), ()));
        if sent.state() == State::CloseWait {
            sent.abort();
        }
        stack.wait()?;
    }
}

/// A socket, which listens if it is not connected.
fn socket(stack: &mut Stack, handle: SocketHandle, port: u16) -> &mut Socket<'static> {
    let socket = stack.sockets().get_mut::<Socket<'static>>(handle);
    if !socket.is_open() {
        let _ = socket.listen(port);
    }
    socket
}
