//! The ioctls of taps. Source: the kernel's `linux/if.h`, `linux/if_tun.h`, `linux/sockios.h`, `linux/ethtool.h`.

use linux_raw_sys::{if_tun, ioctl as number, net};
use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, Result},
    ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use number::{TUNSETGROUP, TUNSETOFFLOAD, TUNSETOWNER, TUNSETPERSIST};

/// What linux-raw-sys does not have: `linux/sockios.h` and `linux/ethtool.h`.
const SIOCETHTOOL: Opcode = 0x8946;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GTSO: u32 = 0x1e;
/// Major and minor number of `/dev/net/tun`. Source: the kernel's `devices.txt`.
const TUN_DEVICE: (u32, u32) = (10, 200);
const NAME_SIZE: usize = net::IFNAMSIZ as usize;

/// `struct ifreq`: a name, and a union as large as its largest member, `struct ifmap`. linux-raw-sys has a `struct
/// sockaddr` in it that is larger than the kernel's, so its own cannot be used.
#[repr(C)]
struct Request<T> {
    name: [u8; NAME_SIZE],
    data: T,
}

/// The union as numbers.
type Words = [u32; 6];
/// The union as a pointer to `struct ethtool_value`: a command and a value.
type EthtoolPointer = (*mut [u32; 2], [u64; 2]);

const _: () = assert!(size_of::<Request<Words>>() == NAME_SIZE + size_of::<net::ifmap>());
const _: () = assert!(size_of::<Request<EthtoolPointer>>() == NAME_SIZE + size_of::<net::ifmap>());

impl<T> Request<T> {
    /// `name` has at most 15 bytes.
    fn new(name: &str, data: T) -> Self {
        let mut request = Self { name: [0; NAME_SIZE], data };
        let length = name.len().min(NAME_SIZE - 1);
        request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        request
    }
}

impl Request<Words> {
    fn with(name: &str, word: u32) -> Self {
        Self::new(name, [word, 0, 0, 0, 0, 0])
    }

    fn ask<const OPCODE: Opcode>(mut self, descriptor: impl AsFd) -> Result<Self> {
        // SAFETY: every request of this module that has no pointer reads and writes a `struct ifreq`, which `self` is in
        // layout and size (asserted above).
        unsafe { ioctl(descriptor, Updater::<OPCODE, _>::new(&mut self)) }?;
        Ok(self)
    }

    /// The first 16 bits of the union: flags.
    fn flags(&self) -> u32 {
        self.data[0] & 0xffff
    }

    fn name(&self) -> String {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE);
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

/// Opens `/dev/net/tun`. What is attached to it is in the network namespace in which the calling thread is now.
pub fn open_tun() -> Result<OwnedFd> {
    rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Whether a descriptor is an open `/dev/net/tun`, and not that of a macvtap or ipvtap.
pub fn is_tun(descriptor: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(descriptor)
        .is_ok_and(|stat| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == TUN_DEVICE)
}

/// Makes an open `/dev/net/tun` the tap `name`, which may be a pattern such as `tap%d`. Returns its name. For a macvtap, it
/// sets the flags only.
pub fn attach(tun: BorrowedFd<'_>, name: &str, flags: u32) -> Result<String> {
    Ok(Request::with(name, flags).ask::<{ number::TUNSETIFF }>(tun)?.name())
}

/// Name and flags of the tap that a descriptor is of.
pub fn attached(tun: BorrowedFd<'_>) -> Result<(String, u32)> {
    let request = Request::with("", 0).ask::<{ number::TUNGETIFF }>(tun)?;
    Ok((request.name(), request.flags()))
}

/// Whether frames of a tap have packet information before them.
pub fn has_packet_information(tap: BorrowedFd<'_>) -> Result<bool> {
    let tells = || Ok(attached(tap)?.1 & if_tun::IFF_NO_PI == 0);
    if tells()? || !is_tun(tap) {
        return tells();
    }
    // The bit of IFF_NO_PI is also that of IFF_NOFILTER, which TUNGETIFF adds unless there is a socket filter. So it tells
    // with a filter only, such as one that lets everything pass.
    let mut present = if_tun::sock_fprog { len: 0, filter: std::ptr::null_mut() };
    // SAFETY: TUNGETFILTER writes a `struct sock_fprog`, which `present` is. Its pointer is not used.
    unsafe { ioctl(tap, Updater::<{ number::TUNGETFILTER }, _>::new(&mut present)) }?;
    if present.len != 0 {
        // A filter that another program set stays.
        return Ok(false);
    }
    let code = u16::try_from(if_tun::BPF_RET | if_tun::BPF_K).unwrap_or_default();
    let mut pass = if_tun::sock_filter { code, jt: 0, jf: 0, k: u32::MAX };
    let program = if_tun::sock_fprog { len: 1, filter: &raw mut pass };
    // SAFETY: TUNATTACHFILTER reads a `struct sock_fprog`, which `program` is, and the one instruction that it points to,
    // which outlives the call.
    unsafe { ioctl(tap, Setter::<{ number::TUNATTACHFILTER }, _>::new(program)) }?;
    let answer = tells();
    set::<{ number::TUNDETACHFILTER }>(tap, 0)?;
    answer
}

/// Makes a setting that takes a number.
pub fn set<const OPCODE: Opcode>(tun: BorrowedFd<'_>, value: u32) -> Result<()> {
    // SAFETY: TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP and TUNSETOFFLOAD, for which this is called, take a number, and
    // TUNDETACHFILTER nothing; other descriptors than those of taps do not know them.
    unsafe { ioctl(tun, IntegerSetter::<OPCODE>::new_usize(value as usize)) }
}

/// The MAC address of the tap that a descriptor is of, or of the interface `name` when asked through a socket.
pub fn mac(descriptor: BorrowedFd<'_>, name: &str) -> Result<[u8; 6]> {
    let [first, second, ..] = Request::with(name, 0).ask::<{ number::SIOCGIFHWADDR }>(descriptor)?.data;
    // A family of 16 bits precedes it.
    let ([_, _, a, b], [c, d, e, f]) = (first.to_ne_bytes(), second.to_ne_bytes());
    Ok([a, b, c, d, e, f])
}

/// A socket, through which interfaces of the calling thread's namespace can be asked for.
#[derive(Debug)]
pub struct Interfaces(OwnedFd);

impl Interfaces {
    pub fn open() -> Result<Self> {
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map(Self)
    }

    /// Whether the interface is up.
    pub fn is_up(&self, name: &str) -> Result<bool> {
        let flags = Request::with(name, 0).ask::<{ number::SIOCGIFFLAGS }>(&self.0)?.flags();
        Ok(flags & net::net_device_flags::IFF_UP as u32 != 0)
    }

    pub fn mac(&self, name: &str) -> Result<[u8; 6]> {
        mac(self.0.as_fd(), name)
    }

    pub fn mtu(&self, name: &str) -> Result<u32> {
        Ok(Request::with(name, 0).ask::<{ number::SIOCGIFMTU }>(&self.0)?.data[0])
    }

    pub fn set_mtu(&self, name: &str, bytes: u32) -> Result<()> {
        Request::with(name, bytes).ask::<{ number::SIOCSIFMTU }>(&self.0).map(|_| ())
    }

    /// Whether the interface takes over segmentation or checksums from the kernel. Kernels that do not tell do not either.
    pub fn has_offloads(&self, name: &str) -> Result<bool> {
        for command in [ETHTOOL_GTXCSUM, ETHTOOL_GTSO] {
            let mut value = [command, 0];
            let mut request = Request::new(name, (&raw mut value, [0; 2]));
            // SAFETY: SIOCETHTOOL reads and writes a `struct ifreq`, which `request` is in size and layout, and through its
            // pointer the `struct ethtool_value` that these two commands take: `value`, which outlives the call.
            match unsafe { ioctl(&self.0, Updater::<SIOCETHTOOL, _>::new(&mut request)) } {
                Ok(()) if value[1] != 0 => return Ok(true),
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }
}
