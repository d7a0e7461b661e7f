//! Debugging a guest's process.
//!
//! Only the supervisor can make requests of ptrace, so it is asked to. Memory is read and written through
//! `/proc/PID/mem`, which is opened while the launcher has yet to make the process undumpable: it stays open, and
//! reaches pages that the guest itself may not write.

use super::supervisor::{HOLD_STOPS, Slot, Supervisor, command::WATCH};
use crate::{
    debug::{
        Debuggee, End, FloatRegisters, HardwareBreakpoint, Pagemap, Registers, Resume, Stop, debug_control,
        wait_for,
    },
    sys::{
        event::Event,
        procfs::{mapping, usage_of},
        raw::Argument,
        signals::{SIGKILL, SIGTRAP},
    },
};
use linux_raw_sys::{
    general::SI_KERNEL,
    ptrace::{
        PTRACE_CONT, PTRACE_EVENT_EXIT, PTRACE_EVENT_STOP, PTRACE_GETEVENTMSG, PTRACE_GETFPREGS,
        PTRACE_GETREGS, PTRACE_GETSIGINFO, PTRACE_INTERRUPT, PTRACE_LISTEN, PTRACE_PEEKUSR, PTRACE_POKEUSR,
        PTRACE_SETFPREGS, PTRACE_SETREGS, PTRACE_SINGLESTEP,
    },
};
use nabla_core::elf::PageRange;
use rustix::io::Errno;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    ptr,
    sync::{Arc, atomic::Ordering::SeqCst},
};

/// Where the debug registers are in the kernel's `struct user`.
const DEBUG_REGISTERS: u64 = 848;
/// More instructions than the launcher ever executes.
const LAUNCHER_INSTRUCTIONS: u32 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Inspector {
    supervisor: Arc<Supervisor>,
    slot: Arc<Slot>,
    event: Event,
    /// Of the supervisor, which cannot tell of its own end.
    supervisor_pidfd: OwnedFd,
    memory: File,
    maps: File,
    pagemap: Pagemap,
    /// What is mapped from files, as of the last look at `maps`.
    from_files: Vec<Range<u64>>,
    /// Guest memory ends here; after it is the launcher's page.
    size: u64,
}

impl Inspector {
    /// For a guest whose slot has `hold` set and that was just started: returns when it is about to execute its
    /// launcher.
    pub fn new(supervisor: &Arc<Supervisor>, slot: &Arc<Slot>, pid: i32, size: u64) -> io::Result<Self> {
        let event = watch(supervisor, slot)?;
        // Not open to anybody before it has become the launcher.
        wait_for(&[event.as_fd(), supervisor.open_pidfd()?.as_fd()])?;
        Self::open(supervisor, slot, event, pid, size)
    }

    /// For a guest that runs.
    pub fn of_running(
        supervisor: &Arc<Supervisor>,
        slot: &Arc<Slot>,
        pid: i32,
        size: u64,
    ) -> io::Result<Self> {
        let event = watch(supervisor, slot)?;
        Self::open(supervisor, slot, event, pid, size)
    }

    fn open(
        supervisor: &Arc<Supervisor>,
        slot: &Arc<Slot>,
        event: Event,
        pid: i32,
        size: u64,
    ) -> io::Result<Self> {
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        let maps = File::open(format!("/proc/{pid}/maps"))?;
        let pagemap = Pagemap::of(&pid.to_string());
        let supervisor_pidfd = supervisor.open_pidfd()?;
        let (supervisor, slot) = (Arc::clone(supervisor), Arc::clone(slot));
        let from_files = Vec::new();
        Ok(Self { supervisor, slot, event, supervisor_pidfd, memory, maps, pagemap, from_files, size })
    }

    fn request(&self, request: u32, address: u64, data: impl Argument) -> io::Result<u64> {
        // SAFETY: every caller passes what suits its request.
        Ok(unsafe { self.supervisor.command(&self.slot, request, address, data.word(), None) }?)
    }

    /// Through the launcher, to the guest's first instruction. Returns also when it ends on the way.
    pub fn step_to(&mut self, entry: u64) -> io::Result<()> {
        for _ in 0..LAUNCHER_INSTRUCTIONS {
            match self.stop()? {
                Some(Stop::Ending(_) | Stop::Ended(_)) => return Ok(()),
                Some(_) if self.registers()?.rip == entry => return Ok(()),
                Some(_) => self.resume(Resume::Step)?,
                None => wait_for(&self.events())?,
            }
        }
        Err(io::Error::other("the launcher does not come to an end"))
    }
}

/// Has an event made readable when the guest stops or ends.
fn watch(supervisor: &Supervisor, slot: &Slot) -> io::Result<Event> {
    let event = Event::new()?;
    // SAFETY: the request has no data.
    unsafe { supervisor.command(slot, WATCH, 0, 0, Some(event.as_fd())) }?;
    Ok(event)
}

fn end_of(status: u32) -> End {
    match (status & 0x7f).cast_signed() {
        0 => End::Code(status.to_le_bytes()[1]),
        signal => End::Signal(signal),
    }
}

impl Debuggee for Inspector {
    fn registers(&mut self) -> io::Result<Registers> {
        let mut registers = Registers::default();
        self.request(PTRACE_GETREGS, 0, &raw mut registers)?;
        Ok(registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> io::Result<()> {
        // No system call that it was stopped in is to be restarted with what is in the registers now.
        let registers = Registers { orig_rax: u64::MAX, ..*registers };
        self.request(PTRACE_SETREGS, 0, &registers).map(drop)
    }

    fn float_registers(&mut self) -> io::Result<FloatRegisters> {
        let mut registers = FloatRegisters::default();
        self.request(PTRACE_GETFPREGS, 0, &raw mut registers)?;
        Ok(registers)
    }

    fn set_float_registers(&mut self, registers: &FloatRegisters) -> io::Result<()> {
        self.request(PTRACE_SETFPREGS, 0, registers).map(drop)
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
        if address >= self.size {
            return Ok(0);
        }
        let room = usize::try_from(self.size - address).unwrap_or(usize::MAX).min(bytes.len());
        match self.memory.read_at(&mut bytes[..room], address) {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
            result => result,
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> io::Result<()> {
        if address.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.memory.write_all_at(bytes, address)
    }

    fn regions(&mut self) -> io::Result<Vec<PageRange>> {
        let mut text = String::new();
        self.maps.seek(SeekFrom::Start(0))?;
        self.maps.read_to_string(&mut text)?;
        let mappings = text.lines().filter_map(mapping).filter(|(range, _)| range.pages.end <= self.size);
        let (regions, from_files): (Vec<_>, Vec<_>) = mappings.unzip();
        let files = regions.iter().zip(from_files).filter(|(_, from_file)| *from_file);
        self.from_files = files.map(|(range, _)| range.pages.clone()).collect();
        Ok(regions)
    }

    fn touched(&mut self, part: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        // What comes from a file is there before anything has touched it.
        if self.from_files.iter().any(|file| file.start < part.end && part.start < file.end) {
            return Ok(vec![part]);
        }
        self.pagemap.touched(0, part)
    }

    fn set_hardware_breakpoints(&mut self, breakpoints: &[HardwareBreakpoint]) -> io::Result<()> {
        let set = |index: u64, value| self.request(PTRACE_POKEUSR, DEBUG_REGISTERS + 8 * index, value);
        // An address is only taken for what the control register says of it then.
        set(7, 0)?;
        for (index, breakpoint) in (0..4).zip(breakpoints) {
            set(index, breakpoint.address)?;
        }
        set(7, debug_control(breakpoints)).map(drop)
    }

    fn has_hardware_breakpoints(&self) -> Option<bool> {
        Some(true)
    }

    fn resume(&mut self, how: Resume) -> io::Result<()> {
        let status = self.slot.held_status.load(SeqCst);
        let is_pause = status >> 16 == PTRACE_EVENT_STOP && (status >> 8 & 0xff) != SIGTRAP.cast_unsigned();
        let (request, data) = match how {
            // A paused guest stays so.
            _ if is_pause => (PTRACE_LISTEN, 0),
            Resume::Continue { signal } => (PTRACE_CONT, signal.unwrap_or(0)),
            Resume::Step => (PTRACE_SINGLESTEP, 0),
        };
        // A stop that was asked for and has not come yet is not wanted any more.
        self.slot.hold.fetch_and(!HOLD_STOPS, SeqCst);
        match self.request(request, 0, data) {
            // It was killed. Its end is the next event.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            result => result.map(drop),
        }
    }

    fn interrupt(&mut self) -> io::Result<()> {
        if self.slot.held.load(SeqCst) == 1 {
            return Ok(());
        }
        self.slot.hold.fetch_or(HOLD_STOPS, SeqCst);
        match self.request(PTRACE_INTERRUPT, 0, 0) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            result => result.map(drop),
        }
    }

    fn events(&self) -> [BorrowedFd<'_>; 2] {
        [self.event.as_fd(), self.supervisor_pidfd.as_fd()]
    }

    fn is_kept(&self) -> bool {
        self.slot.hold.load(SeqCst) != 0 && self.slot.ended.load(SeqCst) == 0 && self.supervisor.is_alive()
    }

    fn stop(&mut self) -> io::Result<Option<Stop>> {
        self.event.clear();
        let ending = self.slot.ending();
        if ending.is_some() || !self.supervisor.is_alive() {
            // Readable from now on, for all who look.
            self.event.set();
            let end = ending.and_then(|ending| ending.status).map_or(End::Signal(SIGKILL), end_of);
            return Ok(Some(Stop::Ended(end)));
        }
        if self.slot.held.load(SeqCst) == 0 {
            return Ok(None);
        }
        let status = self.slot.held_status.load(SeqCst);
        let signal = (status >> 8 & 0xff).cast_signed();
        Ok(Some(match status >> 16 {
            PTRACE_EVENT_EXIT => {
                let mut status = 0_u64;
                self.request(PTRACE_GETEVENTMSG, 0, ptr::from_mut(&mut status))?;
                Stop::Ending(end_of(u32::try_from(status & 0xffff).unwrap_or(0)))
            }
            0 if signal == SIGTRAP => self.trap()?,
            0 => Stop::Signal(signal),
            _ => Stop::Interrupted,
        }))
    }

    fn kill(&mut self) -> io::Result<()> {
        self.slot.hold.store(0, SeqCst);
        self.supervisor.kill(&self.slot);
        Ok(())
    }

    fn counters(&mut self) -> io::Result<String> {
        let usage = usage_of(self.slot.pid.load(SeqCst))?;
        Ok(format!(
            "user time      {:?}\nsystem time    {:?}\nresident       {} KiB\nlargest        {} KiB\npage faults    {}",
            usage.user_time,
            usage.system_time,
            usage.resident >> 10,
            usage.max_resident >> 10,
            usage.minor_faults + usage.major_faults
        ))
    }

    fn let_go(&mut self) -> io::Result<()> {
        self.slot.hold.store(0, SeqCst);
        self.supervisor.wake();
        Ok(())
    }
}

impl Inspector {
    /// What a SIGTRAP is for.
    fn trap(&self) -> io::Result<Stop> {
        // Of the kernel's `siginfo_t`: signal, errno, code.
        let mut info = [0_i32; 32];
        self.request(PTRACE_GETSIGINFO, 0, info.as_mut_ptr())?;
        let code = info[2];
        if code <= 0 {
            return Ok(Stop::Signal(SIGTRAP));
        }
        let mut status = 0_u64;
        // Bits that are set stay so until they are cleared.
        // The request as a system call, unlike the C library's, stores the word where `data` points.
        self.request(PTRACE_PEEKUSR, DEBUG_REGISTERS + 8 * 6, ptr::from_mut(&mut status))?;
        self.request(PTRACE_POKEUSR, DEBUG_REGISTERS + 8 * 6, 0)?;
        Ok(Stop::Trap { software: code == SI_KERNEL.cast_signed(), status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_told_apart() {
        assert_eq!(end_of(0xff00), End::Code(255));
        assert_eq!(end_of(31), End::Signal(31));
        assert_eq!(end_of(11 | 0x80), End::Signal(11));
    }
}
