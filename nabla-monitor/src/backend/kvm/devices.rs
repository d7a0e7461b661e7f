//! The host's side of a guest's devices, as hypercalls use them: every call is one system call on a descriptor that
//! was opened before the guest ran.

use super::{control::Control, counters::Tally};
use crate::{
    device::{Access, Attached},
    sys::raw::{check, nr, syscall},
};
use nabla_core::abi::hvt::{R_AGAIN, R_EUNSPEC, R_OK};
use rustix::{
    event::{PollFd, PollFlags, epoll, poll},
    fs::FileType,
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
    sync::Arc,
    time::{Duration, Instant},
};
use vm_memory::VolatileSlice;

/// What the wait set says of the descriptor that interrupts it; no index of a device.
const WAKE: u64 = u64::MAX;
/// The most that is written to a console at once, where a write could block: a pipe that is ready takes it.
const CONSOLE_CHUNK: usize = 4096;
/// The most that is moved between two looks at who wants something of the guest.
pub const PART: usize = 1 << 20;

/// `struct epoll_event`, which is packed: what happened, and the two halves of the data.
type Event = [u32; 3];

/// A device, as hypercalls use it.
#[derive(Debug)]
struct Device {
    /// Shared with the thread that serves the network ring.
    descriptor: Arc<OwnedFd>,
    access: Access,
}

/// Network interfaces by their index in the manifest.
#[derive(Debug)]
pub struct Nets(Vec<Option<Arc<OwnedFd>>>);

impl Nets {
    /// The one with this handle.
    pub fn get(&self, handle: u64) -> Option<BorrowedFd<'_>> {
        Some(self.0.get(usize::try_from(handle).ok()?)?.as_ref()?.as_fd())
    }
}

/// Why a wait came to no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The guest was killed.
    Killed,
    /// A debugger wants the guest to stop.
    Look,
    /// The console has no reader any more, and the guest is to end then.
    NoReader,
}

/// All devices of a guest.
#[derive(Debug)]
pub struct Devices {
    /// By their index in the manifest.
    devices: Vec<Option<Device>>,
    console: OwnedFd,
    /// Whether a write to the console can block.
    console_blocks: bool,
    /// Whether the guest ends with the console's reader, as programs in a pipeline do.
    pub ends_with_reader: bool,
    waitset: OwnedFd,
    /// How much is written of what the guest prints, when that was interrupted.
    printed: usize,
    precise_wait: bool,
    events: Vec<Event>,
    pub tally: Arc<Tally>,
}

impl Devices {
    pub fn new(
        attached: Vec<Attached>,
        console: OwnedFd,
        control: &Control,
        tally: Arc<Tally>,
    ) -> io::Result<Self> {
        let waitset = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&waitset, control.wake(), epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let mut devices = Vec::new();
        for device in attached {
            let (index, access) = (device.info.index, device.access());
            if access.is_frames() {
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&waitset, &device, data, epoll::EventFlags::IN)?;
            }
            devices.resize_with(devices.len().max(index + 1), || None);
            devices[index] = Some(Device { descriptor: Arc::new(device.descriptor), access });
        }
        let console_blocks = rustix::fs::fstat(&console)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile);
        let events = Vec::with_capacity(devices.len() + 1);
        Ok(Self {
            devices,
            console,
            console_blocks,
            ends_with_reader: false,
            waitset,
            printed: 0,
            precise_wait: true,
            events,
            tally,
        })
    }

    fn get(&self, handle: u64) -> Option<&Device> {
        self.devices.get(usize::try_from(handle).ok()?)?.as_ref()
    }

    /// The block device with this handle: its descriptor and its capacity in bytes.
    pub fn block(&self, handle: u64) -> Option<(BorrowedFd<'_>, u64)> {
        match self.get(handle)? {
            Device { descriptor, access: Access::Blocks { capacity, .. } } => {
                Some((descriptor.as_fd(), *capacity))
            }
            Device { access: Access::Frames, .. } => None,
        }
    }

    /// The network device with this handle.
    pub fn net(&self, handle: u64) -> Option<BorrowedFd<'_>> {
        self.get(handle).filter(|device| device.access.is_frames()).map(|net| net.descriptor.as_fd())
    }

    /// One more network device, which is not in the wait set.
    #[cfg(test)]
    pub fn add_net(&mut self, index: usize, descriptor: OwnedFd) {
        self.devices.resize_with(self.devices.len().max(index + 1), || None);
        self.devices[index] = Some(Device { descriptor: Arc::new(descriptor), access: Access::Frames });
    }

    /// The network devices, for another thread.
    pub fn nets(&self) -> Nets {
        let net = |device: &Option<Device>| {
            let net = device.as_ref().filter(|device| device.access.is_frames())?;
            Some(Arc::clone(&net.descriptor))
        };
        Nets(self.devices.iter().map(net).collect())
    }

    /// Every descriptor that is used, by what is done with it: for the system call filter.
    pub fn descriptors(&self) -> DeviceDescriptors {
        let numbers = |is_wanted: fn(Access) -> bool| {
            let wanted = self.devices.iter().flatten().filter(|device| is_wanted(device.access));
            wanted.map(|device| device.descriptor.as_raw_fd()).collect()
        };
        DeviceDescriptors {
            console: self.console.as_raw_fd(),
            waitset: self.waitset.as_raw_fd(),
            blocks: numbers(Access::is_blocks),
            nets: numbers(Access::is_frames),
        }
    }

    /// Writes all of it. What a console does not take is lost, unless the guest [ends](Self::ends_with_reader). When
    /// this was interrupted and is called again, it goes on where it was.
    pub fn console_write(&mut self, bytes: &VolatileSlice<'_>, control: &Control) -> Result<(), Interrupted> {
        let mut done = std::mem::take(&mut self.printed).min(bytes.len());
        while done < bytes.len() {
            let mut length = PART.min(bytes.len() - done);
            if self.console_blocks {
                length = length.min(CONSOLE_CHUNK);
                let mut set = [
                    PollFd::new(&self.console, PollFlags::OUT),
                    PollFd::from_borrowed_fd(control.wake(), PollFlags::IN),
                ];
                let _ = poll(&mut set, None);
                let (writable, woken) = (!set[0].revents().is_empty(), !set[1].revents().is_empty());
                if woken && let Err(interrupted) = attend(control) {
                    self.printed = done;
                    return Err(interrupted);
                }
                if !writable {
                    continue;
                }
            } else if done > 0
                && let Err(interrupted) = attend(control)
            {
                self.printed = done;
                return Err(interrupted);
            }
            let Ok(part) = bytes.subslice(done, length) else { return Ok(()) };
            match write(self.console.as_fd(), &part) {
                Ok(0) => return Ok(()),
                Ok(written) => done += written,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::PIPE) if self.ends_with_reader => return Err(Interrupted::NoReader),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits at most this long for a network interface to be readable. Returns the set of those that are, by index.
    pub fn wait(&mut self, timeout: Duration, control: &Control) -> Result<u64, Interrupted> {
        let deadline = (!timeout.is_zero()).then(|| Instant::now().checked_add(timeout));
        loop {
            let left = match deadline {
                None => Some(Duration::ZERO),
                // So far away that it is not a time.
                Some(None) => None,
                Some(Some(deadline)) => Some(deadline.saturating_duration_since(Instant::now())),
            };
            let waited = self.epoll(left);
            let mut ready = 0;
            let mut woken = false;
            for &[_, low, high] in &self.events {
                match u64::from(high) << 32 | u64::from(low) {
                    WAKE => woken = true,
                    index => {
                        let shift = u32::try_from(index).unwrap_or(u32::MAX);
                        ready |= 1_u64.checked_shl(shift).unwrap_or(0);
                    }
                }
            }
            if woken {
                attend(control)?;
            }
            if ready != 0 || left == Some(Duration::ZERO) || matches!(waited, Err(e) if e != Errno::INTR) {
                return Ok(ready);
            }
        }
    }

    /// One wait of the kernel's.
    fn epoll(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        self.events.clear();
        let spare = self.events.spare_capacity_mut();
        let (set, room, buffer) = (self.waitset.as_raw_fd(), spare.len() as u64, spare.as_mut_ptr());
        let result = if self.precise_wait {
            // This one counts nanoseconds; since Linux 5.11.
            let spec = timeout.and_then(|timeout| rustix::event::Timespec::try_from(timeout).ok());
            let spec = spec.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: there is room for that many events at `buffer`, and `spec` is null or a timespec.
            check(unsafe { syscall!(nr::EPOLL_PWAIT2, set, buffer, room, spec) })
        } else {
            // Rounded up: a guest may be told late that time is over, and never early.
            let millis =
                timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
            // SAFETY: there is room for that many events at `buffer`.
            check(unsafe { syscall!(nr::EPOLL_PWAIT, set, buffer, room, millis) })
        };
        match result {
            // Older kernels do not know it, and neither do the filters of older container engines.
            Err(Errno::NOSYS | Errno::PERM) if self.precise_wait => {
                self.precise_wait = false;
                self.epoll(timeout)
            }
            Err(errno) => Err(errno),
            Ok(count) => {
                // SAFETY: the kernel has filled that many events, which is at most what there was room for.
                unsafe { self.events.set_len(usize::try_from(count).unwrap_or(0)) };
                Ok(())
            }
        }
    }
}

/// Does what was asked of the guest in the middle of a call: a pause lasts until it is resumed.
pub fn attend(control: &Control) -> Result<(), Interrupted> {
    if !control.attend() {
        return Err(Interrupted::Killed);
    }
    if control.debug.wants_stop() { Err(Interrupted::Look) } else { Ok(()) }
}

/// See [`Devices::descriptors`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescriptors {
    pub console: RawFd,
    pub waitset: RawFd,
    pub blocks: Vec<RawFd>,
    pub nets: Vec<RawFd>,
}

/// Sends a frame. Returns what the guest is told: `R_*`.
pub fn send(net: BorrowedFd<'_>, frame: &VolatileSlice<'_>) -> i32 {
    match write(net, frame) {
        Ok(written) if written == frame.len() => R_OK,
        Err(Errno::AGAIN) => R_AGAIN,
        Ok(_) | Err(_) => R_EUNSPEC,
    }
}

/// Receives a frame. Returns what the guest is told, `R_*`, and the frame's length.
pub fn receive(net: BorrowedFd<'_>, buffer: &VolatileSlice<'_>) -> (i32, u64) {
    match read(net, buffer) {
        Ok(0) | Err(Errno::AGAIN) => (R_AGAIN, 0),
        Ok(length) => (R_OK, length as u64),
        Err(_) => (R_EUNSPEC, 0),
    }
}

fn transfer(
    number: u32,
    descriptor: BorrowedFd<'_>,
    bytes: &VolatileSlice<'_>,
    offset: u64,
) -> Result<usize, Errno> {
    let guard = bytes.ptr_guard_mut();
    // SAFETY: the slice lies in guest memory, which lives as long as its borrow; nothing in this program takes
    // references to it, so the kernel may read and write it like the guest's processor does.
    let result =
        unsafe { syscall!(number, descriptor.as_raw_fd(), guard.as_ptr(), bytes.len() as u64, offset) };
    check(result).map(|count| usize::try_from(count).unwrap_or(0))
}

/// Reads at an offset into guest memory. May read less.
pub fn pread(descriptor: impl AsFd, bytes: &VolatileSlice<'_>, offset: u64) -> Result<usize, Errno> {
    transfer(nr::PREAD64, descriptor.as_fd(), bytes, offset)
}

/// Writes at an offset from guest memory. May write less.
pub fn pwrite(descriptor: impl AsFd, bytes: &VolatileSlice<'_>, offset: u64) -> Result<usize, Errno> {
    transfer(nr::PWRITE64, descriptor.as_fd(), bytes, offset)
}

/// Reads into guest memory.
pub fn read(descriptor: BorrowedFd<'_>, bytes: &VolatileSlice<'_>) -> Result<usize, Errno> {
    transfer(nr::READ, descriptor, bytes, 0)
}

/// Writes from guest memory.
pub fn write(descriptor: BorrowedFd<'_>, bytes: &VolatileSlice<'_>) -> Result<usize, Errno> {
    transfer(nr::WRITE, descriptor, bytes, 0)
}
