//! The hypercalls of `hvt` v1 and v2: from a checked copy of the guest's structure to a result. No KVM in sight.
//!
//! Each structure is copied once and not looked at again; only the fields that are results are written back. What
//! a call reads from the guest must be readable by the guest, and what it writes must be writable by it, or the
//! guest ends.

use super::{
    control::Control,
    counters::{Direction, ticks},
    devices::{self, Devices, Interrupted},
    memory::{Access, BadAccess, GuestMemory},
};
use nabla_core::abi::hvt::{
    BlockIo, HALT_COOKIE_MAX, Halt, Hypercall, NetIo, Poll, Puts, R_EINVAL, R_EUNSPEC, R_OK, Walltime,
};
use rustix::{
    io::Errno,
    time::{ClockId, clock_gettime},
};
use std::{mem::offset_of, time::Duration};
use vm_memory::VolatileSlice;

/// What follows from a hypercall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest goes on.
    Continue,
    /// It has ended by itself.
    Halt {
        /// The status that it gave.
        status: i32,
    },
    /// It was killed.
    Killed,
    /// It ends because its console has no reader any more.
    NoReader,
    /// A debugger wants it to stop; the call is to be made again after that.
    Look,
}

impl From<Interrupted> for Outcome {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Killed => Self::Killed,
            Interrupted::Look => Self::Look,
            Interrupted::NoReader => Self::NoReader,
        }
    }
}

/// Does what the guest asks for with the structure at `address`.
pub fn handle(
    call: Hypercall,
    address: u64,
    memory: &GuestMemory,
    devices: &mut Devices,
    control: &Control,
) -> Result<Outcome, BadAccess> {
    devices.tally.hypercall(call);
    match call {
        Hypercall::Walltime => walltime(address, memory),
        Hypercall::Puts => puts(address, memory, devices, control),
        Hypercall::Poll => poll(address, memory, devices, control),
        Hypercall::BlockWrite | Hypercall::BlockRead => block(call, address, memory, devices, control),
        Hypercall::NetWrite => net_write(address, memory, devices),
        Hypercall::NetRead => net_read(address, memory, devices),
        Hypercall::Halt => halt(address, memory),
    }
}

fn walltime(address: u64, memory: &GuestMemory) -> Result<Outcome, BadAccess> {
    let now = clock_gettime(ClockId::Realtime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    let nsecs = seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    memory.write(address, &Walltime { nsecs })?;
    Ok(Outcome::Continue)
}

fn puts(
    address: u64,
    memory: &GuestMemory,
    devices: &mut Devices,
    control: &Control,
) -> Result<Outcome, BadAccess> {
    let Puts { data, len } = memory.read(address)?;
    let bytes = memory.slice(data, len, Access::Read)?;
    Ok(match devices.console_write(&bytes, control) {
        Ok(()) => {
            devices.tally.console_bytes.add(len);
            Outcome::Continue
        }
        Err(interrupted) => interrupted.into(),
    })
}

fn poll(
    address: u64,
    memory: &GuestMemory,
    devices: &mut Devices,
    control: &Control,
) -> Result<Outcome, BadAccess> {
    memory.check(address, size_of::<Poll>() as u64, Access::Write)?;
    let Poll { timeout_nsecs, .. } = memory.read(address)?;
    let since = ticks();
    let waited = devices.wait(Duration::from_nanos(timeout_nsecs), control);
    devices.tally.wait_ticks.add(ticks().wrapping_sub(since));
    let ready = match waited {
        Ok(ready) => ready,
        Err(interrupted) => return Ok(interrupted.into()),
    };
    let count = ready.count_ones().cast_signed();
    memory.write(address + offset_of!(Poll, ready_set) as u64, &ready)?;
    memory.write(address + offset_of!(Poll, ret) as u64, &count)?;
    Ok(Outcome::Continue)
}

fn block(
    call: Hypercall,
    address: u64,
    memory: &GuestMemory,
    devices: &Devices,
    control: &Control,
) -> Result<Outcome, BadAccess> {
    memory.check(address, size_of::<BlockIo>() as u64, Access::Write)?;
    let io: BlockIo = memory.read(address)?;
    let ret = match block_transfer(call, &io, memory, devices, control)? {
        Ok(ret) => ret,
        Err(interrupted) => return Ok(interrupted.into()),
    };
    let direction = if call == Hypercall::BlockWrite { Direction::Write } else { Direction::Read };
    devices.tally.device(io.handle, direction, io.len, ret);
    memory.write(address + offset_of!(BlockIo, ret) as u64, &ret)?;
    Ok(Outcome::Continue)
}

/// The tender of Solo5 takes any offset and length within the capacity, so this does, in parts: a kill, a pause or a
/// debugger does not wait for gigabytes. A transfer that is interrupted can be made again.
fn block_transfer(
    call: Hypercall,
    io: &BlockIo,
    memory: &GuestMemory,
    devices: &Devices,
    control: &Control,
) -> Result<Result<i32, Interrupted>, BadAccess> {
    let Some((disk, capacity)) = devices.block(io.handle) else { return Ok(Ok(R_EINVAL)) };
    if io.offset >= capacity || io.len > capacity - io.offset {
        return Ok(Ok(R_EINVAL));
    }
    let (access, transfer): (_, fn(_, &VolatileSlice<'_>, u64) -> _) = match call {
        Hypercall::BlockWrite => (Access::Read, devices::pwrite),
        _ => (Access::Write, devices::pread),
    };
    let bytes = memory.slice(io.data, io.len, access)?;
    let mut done = 0;
    while done < bytes.len() {
        if done > 0
            && let Err(interrupted) = devices::attend(control)
        {
            return Ok(Err(interrupted));
        }
        let length = devices::PART.min(bytes.len() - done);
        let Ok(part) = bytes.subslice(done, length) else { return Ok(Ok(R_EUNSPEC)) };
        match transfer(disk, &part, io.offset + done as u64) {
            Ok(0) => return Ok(Ok(R_EUNSPEC)),
            Ok(moved) => done += moved,
            Err(Errno::INTR) => {}
            Err(_) => return Ok(Ok(R_EUNSPEC)),
        }
    }
    Ok(Ok(R_OK))
}

fn net_write(address: u64, memory: &GuestMemory, devices: &Devices) -> Result<Outcome, BadAccess> {
    memory.check(address, size_of::<NetIo>() as u64, Access::Write)?;
    let io: NetIo = memory.read(address)?;
    let ret = match devices.net(io.handle) {
        None => R_EINVAL,
        Some(net) => devices::send(net, &memory.slice(io.data, io.len, Access::Read)?),
    };
    devices.tally.device(io.handle, Direction::Write, io.len, ret);
    memory.write(address + offset_of!(NetIo, ret) as u64, &ret)?;
    Ok(Outcome::Continue)
}

fn net_read(address: u64, memory: &GuestMemory, devices: &Devices) -> Result<Outcome, BadAccess> {
    memory.check(address, size_of::<NetIo>() as u64, Access::Write)?;
    let io: NetIo = memory.read(address)?;
    let (ret, read) = match devices.net(io.handle) {
        None => (R_EINVAL, 0),
        Some(net) => devices::receive(net, &memory.slice(io.data, io.len, Access::Write)?),
    };
    if ret == R_OK {
        memory.write(address + offset_of!(NetIo, len) as u64, &read)?;
    }
    devices.tally.device(io.handle, Direction::Read, read, ret);
    memory.write(address + offset_of!(NetIo, ret) as u64, &ret)?;
    Ok(Outcome::Continue)
}

fn halt(address: u64, memory: &GuestMemory) -> Result<Outcome, BadAccess> {
    let Halt { cookie, exit_status, .. } = memory.read(address)?;
    if cookie != 0 {
        // It has no use yet; a guest that gives a wrong one is wrong all the same.
        let last = cookie.saturating_add(HALT_COOKIE_MAX as u64);
        if cookie >= memory.size() || last > memory.size() {
            return Err(BadAccess { address: cookie, access: Access::Read, mapped: false });
        }
    }
    Ok(Outcome::Halt { status: exit_status })
}

#[cfg(test)]
mod tests;
