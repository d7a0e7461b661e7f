//! Looking into guests: what debuggers and core dumps need of a backend.

pub mod core;
#[cfg(feature = "gdb")]
pub mod gdb;
mod options;
mod pagemap;
mod registers;
pub mod thread;

pub use options::DebugOptions;
pub use pagemap::Pagemap;
pub use registers::{FloatRegisters, Registers};
pub use thread::DebugThread;

use nabla_core::elf::PageRange;
use rustix::event::{PollFd, PollFlags, poll};
use std::{fmt::Debug, io, ops::Range, os::fd::BorrowedFd};

/// A guest that can be stopped and looked into. All methods from [`registers`](Self::registers) to
/// [`resume`](Self::resume) are for a guest that stands still.
pub trait Debuggee: Debug + Send {
    fn registers(&mut self) -> io::Result<Registers>;
    fn set_registers(&mut self, registers: &Registers) -> io::Result<()>;
    fn float_registers(&mut self) -> io::Result<FloatRegisters>;
    fn set_float_registers(&mut self, registers: &FloatRegisters) -> io::Result<()>;
    /// Reads guest memory, as far as there is any.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> io::Result<usize>;
    /// Writes guest memory, whatever the guest itself may do there.
    fn write(&mut self, address: u64, bytes: &[u8]) -> io::Result<()>;
    /// Guest memory: ascending, disjoint.
    fn regions(&mut self) -> io::Result<Vec<PageRange>>;
    /// The parts of a part of one region that may hold anything but zeros: ascending, disjoint, of whole pages.
    fn touched(&mut self, part: Range<u64>) -> io::Result<Vec<Range<u64>>>;
    /// Replaces all hardware breakpoints; at most four.
    fn set_hardware_breakpoints(&mut self, breakpoints: &[HardwareBreakpoint]) -> io::Result<()>;
    /// Whether the processor heeds them. `None`: that is to be found out.
    fn has_hardware_breakpoints(&self) -> Option<bool>;
    /// Lets it go on.
    fn resume(&mut self, how: Resume) -> io::Result<()>;
    /// Makes it stop. The stop comes as an event.
    fn interrupt(&mut self) -> io::Result<()>;
    /// One of them is readable when [`Self::stop`] has something to say. That includes that who would say it has died.
    fn events(&self) -> [BorrowedFd<'_>; 2];
    /// Whether somebody still wants it to stand still: false once it was killed.
    fn is_kept(&self) -> bool;
    /// Why it stands still since it was last resumed; `None` when it runs.
    fn stop(&mut self) -> io::Result<Option<Stop>>;
    fn kill(&mut self) -> io::Result<()>;

    /// Stops it, or finds that it has stopped by itself.
    fn stop_now(&mut self) -> io::Result<Stop> {
        self.interrupt()?;
        loop {
            if let Some(stop) = self.stop()? {
                return Ok(stop);
            }
            wait_for(&self.events())?;
        }
    }

    /// What it has used and done so far, for people.
    fn counters(&mut self) -> io::Result<String>;
    /// Lets it go on for good. It is not looked into any more.
    fn let_go(&mut self) -> io::Result<()>;
}

/// Waits until one of them is readable.
pub fn wait_for(descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut set: Vec<PollFd<'_>> =
        descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    rustix::io::retry_on_intr(|| poll(&mut set, None))?;
    Ok(())
}

/// How to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// With this signal, if it is one that the guest would end by.
    Continue { signal: Option<i32> },
    /// For one instruction.
    Step,
}

/// Why a guest stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Because it was interrupted.
    Interrupted,
    /// A breakpoint or a step. `status` is the processor's DR6; `software` tells that it was an INT3, after which it
    /// stands.
    Trap { software: bool, status: u64 },
    /// A signal that will end it, or that was sent to it.
    Signal(i32),
    /// It is about to end, and can be looked into for the last time.
    Ending(End),
    /// It has ended.
    Ended(End),
}

impl Stop {
    /// How it goes on as if it had not been looked into.
    pub fn undisturbed(self) -> Resume {
        match self {
            Self::Signal(signal) => Resume::Continue { signal: Some(signal) },
            _ => Resume::Continue { signal: None },
        }
    }
}

/// How a guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Code(u8),
    Signal(i32),
}

impl End {
    /// Whether something went wrong, so that one wants to know how it came to that.
    pub fn is_crash(self) -> bool {
        use crate::sys::signals::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
        match self {
            Self::Code(code) => i32::from(code) == nabla_core::abi::EXIT_ABORT,
            Self::Signal(signal) => {
                matches!(signal, SIGSEGV | SIGBUS | SIGILL | SIGFPE | SIGTRAP | SIGSYS)
            }
        }
    }
}

/// What a hardware breakpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    Execute,
    Write,
    /// Reads and writes: the processor has none for reads only.
    Access,
}

/// A breakpoint of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardwareBreakpoint {
    pub address: u64,
    /// 1, 2, 4 or 8 bytes; 1 for execution.
    pub length: u8,
    pub watch: Watch,
}

/// The value of DR7 for these breakpoints, the first of which is in DR0 and so on. See Intel's manual, volume 3,
/// section 18.2.4.
pub fn debug_control(breakpoints: &[HardwareBreakpoint]) -> u64 {
    breakpoints.iter().take(4).enumerate().fold(0, |control, (index, breakpoint)| {
        let kind = match breakpoint.watch {
            Watch::Execute => 0b00,
            Watch::Write => 0b01,
            Watch::Access => 0b11,
        };
        let length = match breakpoint.length {
            2 => 0b01,
            4 => 0b11,
            8 => 0b10,
            _ => 0b00,
        };
        control | 1 << (2 * index) | (kind | length << 2) << (16 + 4 * index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_control_is_that_of_the_manual() {
        let at = |length, watch| HardwareBreakpoint { address: 0x10_0000, length, watch };
        assert_eq!(debug_control(&[]), 0);
        assert_eq!(debug_control(&[at(1, Watch::Execute)]), 0b1);
        assert_eq!(debug_control(&[at(4, Watch::Write)]), 0xd_0001);
        assert_eq!(debug_control(&[at(1, Watch::Execute), at(8, Watch::Access)]), 0xb0_0005);
    }

    #[test]
    fn ends_that_are_crashes() {
        for (end, crash) in [
            (End::Code(0), false),
            (End::Code(1), false),
            (End::Code(255), true),
            (End::Signal(9), false),
            (End::Signal(15), false),
            (End::Signal(11), true),
            (End::Signal(31), true),
        ] {
            assert_eq!(end.is_crash(), crash, "{end:?}");
        }
    }
}
