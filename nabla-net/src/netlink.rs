//! A routing socket: one request, its answers.

use linux_raw_sys::netlink::{NLMSG_DONE, NLMSG_ERROR};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    io,
    sync::{Mutex, PoisonError},
};

/// How often a list is asked for that changes while it is read.
const ATTEMPTS: usize = 16;

/// A connected routing socket. Requests are made one after the other.
#[derive(Debug)]
pub struct RoutingSocket(Mutex<State>);

#[derive(Debug)]
struct State {
    socket: Socket,
    sequence: u32,
}

impl RoutingSocket {
    /// Opens one in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(Mutex::new(State { socket, sequence: 0 })))
    }

    /// Changes something. Returns what the kernel sends along, which is only something with `NLM_F_ECHO`.
    pub fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(|(answers, _)| answers)
    }

    /// Asks for one thing.
    pub fn get(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK).map(|(answers, _)| answers)
    }

    /// Asks for all of a kind.
    pub fn list(&self, message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..ATTEMPTS {
            let (answers, consistent) = self.request(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if consistent {
                return Ok(answers);
            }
        }
        Err(io::Error::other("it changes faster than it can be read"))
    }

    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        // What is inside is consistent: the next request has another sequence number.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.sequence = state.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = state.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        state.socket.send(&bytes, 0)?;
        state.answers()
    }
}

impl State {
    /// Reads until the answer to the last request is complete.
    fn answers(&self) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        let (mut answers, mut consistent) = (Vec::new(), true);
        loop {
            let (datagram, _) = match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                datagram => datagram?,
            };
            let mut rest = &datagram[..];
            while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
                let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
                let Some(bytes) = rest.get(..length) else { break };
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if buffer.sequence_number() != self.sequence {
                    // Left over from a request that failed halfway.
                    continue;
                }
                consistent &= buffer.flags() & NLM_F_DUMP_INTR == 0;
                match buffer.message_type().into() {
                    NLMSG_DONE => return Ok((answers, consistent)),
                    NLMSG_ERROR => {
                        let code =
                            bytes.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
                        return match code {
                            Some(0) => Ok((answers, consistent)),
                            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                            None => Err(io::Error::other("the kernel's answer has no code")),
                        };
                    }
                    // What others made may be of kinds that the decoder does not know.
                    _ => match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                        Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) => {
                            answers.push(message);
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(%error, "an answer of the kernel is skipped"),
                    },
                }
            }
        }
    }
}
