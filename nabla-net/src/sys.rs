//! The ioctls of taps. Source: the kernel's `linux/if_tun.h`.

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{IntegerSetter, Updater, ioctl},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETPERSIST: u32 = 0x4004_54cb;
const TUNSETOWNER: u32 = 0x4004_54cc;
const TUNSETGROUP: u32 = 0x4004_54ce;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_TUN_EXCL: u16 = 0x8000;
const SIOCGIFFLAGS: u32 = 0x8913;

/// `struct ifreq`: a name, and a union of 24 bytes that starts with flags here.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u16; 11],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40);

impl InterfaceRequest {
    fn new(name: &str, flags: u16) -> Self {
        let mut request = Self { name: [0; 16], flags, rest: [0; 11] };
        let length = name.len().min(15);
        request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        request
    }
}

/// A socket for asking about interfaces in the namespace of the calling thread.
pub fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// Opens `/dev/net/tun`. What is made through it is in the namespace in which the calling thread is now.
pub fn open_tun() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Makes an open `/dev/net/tun` the tap `name`: a new one, or one that exists.
pub fn attach_tap(tun: BorrowedFd<'_>, name: &str, new: bool, multi_queue: bool) -> Result<(), Errno> {
    let mut flags = IFF_TAP | IFF_NO_PI;
    if new {
        flags |= IFF_TUN_EXCL;
    }
    if multi_queue {
        flags |= IFF_MULTI_QUEUE;
    }
    let mut request = InterfaceRequest::new(name, flags);
    // SAFETY: TUNSETIFF reads and writes an ifreq, which this is, and the kernel checks the name.
    unsafe { ioctl(tun, Updater::<TUNSETIFF, _>::new(&mut request)) }
}

/// Whether there is an interface called `name`; asked through a socket of its namespace.
pub fn interface_exists(control: impl AsFd, name: &str) -> bool {
    let mut request = InterfaceRequest::new(name, 0);
    // SAFETY: SIOCGIFFLAGS reads and writes an ifreq, which this is.
    unsafe { ioctl(control, Updater::<SIOCGIFFLAGS, _>::new(&mut request)) }.is_ok()
}

/// Has the kernel finish checksums and segments before it hands frames over, whatever the last user of the tap asked for.
pub fn switch_offloads_off(tap: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes a number.
    unsafe { ioctl(tap, IntegerSetter::<TUNSETOFFLOAD>::new_usize(0)) }
}

/// Makes a tap outlive its descriptors, or not.
pub fn set_persistent(tap: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    // SAFETY: TUNSETPERSIST takes a number.
    unsafe { ioctl(tap, IntegerSetter::<TUNSETPERSIST>::new_usize(usize::from(on))) }
}

/// Lets a user open the tap without any capability.
pub fn set_owner(tap: BorrowedFd<'_>, user: u32) -> Result<(), Errno> {
    // SAFETY: TUNSETOWNER takes a number. `usize` has more bits than `u32` here.
    unsafe { ioctl(tap, IntegerSetter::<TUNSETOWNER>::new_usize(user as usize)) }
}

/// Lets a group open the tap without any capability.
pub fn set_group(tap: BorrowedFd<'_>, group: u32) -> Result<(), Errno> {
    // SAFETY: TUNSETGROUP takes a number.
    unsafe { ioctl(tap, IntegerSetter::<TUNSETGROUP>::new_usize(group as usize)) }
}
