//! Lets a program end without waiting until the kernel has freed its virtual machine.
//!
//! Freeing a machine takes as long as a good part of a short guest's life (grace periods of the kernel), and a process
//! that waits for a program waits for that, too: it happens when the last descriptor goes. Here the last descriptors
//! are not the program's: they lie in a message that nobody receives, in a socket which lies in that message itself.
//! When the program ends, however it does, nothing refers to the socket any more but its own message. The kernel
//! collects such sockets in a thread of its own (since Linux 6.9; before, as part of closing, which costs what it
//! always did).

use rustix::{
    io::{IoSlice, Result},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
        sendmsg, socketpair,
    },
};
use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

/// Descriptors that the kernel closes some time after this was dropped, or the program ended.
#[derive(Debug)]
pub struct DeferredClose {
    /// Closing this one has the kernel look for sockets that only messages refer to.
    sender: OwnedFd,
    /// The socket that the message is in, and which is in the message.
    receiver: OwnedFd,
}

impl DeferredClose {
    /// Takes a reference to each of the descriptors. The caller's stay the caller's.
    pub fn new([first, second]: [BorrowedFd<'_>; 2]) -> Result<Self> {
        let (sender, receiver) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let kept = [first, second, receiver.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(&kept));
        debug_assert!(fits, "there is space for three descriptors");
        sendmsg(&sender, &[IoSlice::new(&[0])], &mut control, SendFlags::DONTWAIT)?;
        Ok(Self { sender, receiver })
    }

    /// What must stay open for as long as the descriptors are to be kept.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.sender.as_raw_fd(), self.receiver.as_raw_fd()]
    }
}
