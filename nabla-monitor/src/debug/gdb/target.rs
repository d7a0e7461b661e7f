//! A guest as gdb sees it.

use super::{
    super::{HardwareBreakpoint, Registers, Resume, Stop, Watch, thread::Task},
    hardware::{Found, Hardware},
    session::{Outcome, end, signal},
};
use gdbstub::{
    common::Signal,
    outputln,
    stub::SingleThreadStopReason,
    target::{
        self, TargetError, TargetResult,
        ext::{
            base::{
                BaseOps,
                singlethread::{
                    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
                    SingleThreadSingleStepOps,
                },
            },
            breakpoints::{
                Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
                SwBreakpoint, SwBreakpointOps, WatchKind,
            },
            monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps},
        },
    },
};
use gdbstub_arch::x86::{
    X86_64_SSE,
    reg::{X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs},
};
use std::io;

const INT3: u8 = 0xcc;
/// Of RFLAGS: trap after the next instruction.
const TRAP_FLAG: u64 = 1 << 8;
/// Of DR6: a step was done.
const STEP_DONE: u64 = 1 << 14;
const HELP: &str = "\
help          this text
devices       the guest's devices
memory        the guest's memory and what it may do there
counters      what the guest has used and done
core          write a core of the guest, as it is now, to the directory for cores (--dumpcore DIR)";

/// See the module.
pub struct Target<'a> {
    pub task: &'a mut Task,
    /// Address and the byte that belongs there.
    software: Vec<(u64, u8)>,
    hardware: Hardware,
    /// The signal that the guest stopped with, as Linux counts.
    pending: Option<i32>,
    /// It has been resumed, and the debugger has not been told of a stop since. It may have stopped all the same.
    running: bool,
}

impl<'a> Target<'a> {
    pub fn new(task: &'a mut Task) -> Self {
        let hardware = Hardware::new(task.guest.has_hardware_breakpoints());
        Self { task, software: Vec::new(), hardware, pending: None, running: false }
    }

    /// What gdb is to be told; `None` as long as the guest runs.
    pub fn stop_reason(&mut self) -> io::Result<Option<SingleThreadStopReason<u64>>> {
        let reason = self.find_stop_reason()?;
        self.running = reason.is_none();
        Ok(reason)
    }

    fn find_stop_reason(&mut self) -> io::Result<Option<SingleThreadStopReason<u64>>> {
        let Some(stop) = self.task.look()? else { return Ok(None) };
        if let Some(found) = self.hardware.stopped(stop, &mut *self.task.guest)? {
            return Ok(found.reason());
        }
        Ok(match stop {
            Stop::Ended(how) => Some(end(how)),
            Stop::Interrupted => Some(SingleThreadStopReason::Signal(Signal::SIGINT)),
            Stop::Signal(number) => {
                self.pending = Some(number);
                Some(SingleThreadStopReason::Signal(signal(number)))
            }
            Stop::Ending(super::super::End::Signal(number)) if self.pending != Some(number) => {
                // The last look at it.
                self.pending = Some(number);
                Some(SingleThreadStopReason::Signal(signal(number)))
            }
            Stop::Ending(_) => {
                self.task.guest.resume(Resume::Continue { signal: None })?;
                None
            }
            Stop::Trap { software, status } => Some(self.trap(software, status)?),
        })
    }

    /// Makes the guest stop.
    pub fn interrupt(&mut self) -> io::Result<()> {
        self.hardware.interrupt();
        self.task.guest.interrupt()
    }

    fn trap(&mut self, software: bool, status: u64) -> io::Result<SingleThreadStopReason<u64>> {
        if software {
            let registers = self.task.guest.registers()?;
            let address = registers.rip.wrapping_sub(1);
            if self.software.iter().any(|&(at, _)| at == address) {
                self.task.guest.set_registers(&Registers { rip: address, ..registers })?;
                return Ok(SingleThreadStopReason::SwBreak(()));
            }
            return Ok(SingleThreadStopReason::Signal(Signal::SIGTRAP));
        }
        let hit = (0..4)
            .find(|index| status & 1 << index != 0)
            .and_then(|index| self.hardware.breakpoints().get(index));
        Ok(match hit {
            Some(breakpoint) => hit_reason(breakpoint),
            None if status & STEP_DONE != 0 => SingleThreadStopReason::DoneStep,
            None => SingleThreadStopReason::Signal(Signal::SIGTRAP),
        })
    }

    /// Leaves the guest as if no debugger had been there. It stands still, or has ended.
    pub fn clean_up(mut self) -> io::Result<Outcome> {
        match self.task.guest.stop_now()? {
            Stop::Ended(_) => return Ok(Outcome::Ended),
            // It may just have run into one of them.
            Stop::Trap { software: true, .. } => drop(self.trap(true, 0)?),
            _ => {}
        }
        for (address, byte) in std::mem::take(&mut self.software) {
            self.task.guest.write(address, &[byte])?;
        }
        self.task.guest.set_hardware_breakpoints(&[])?;
        Ok(Outcome::Left)
    }

    fn go(&mut self, how: Resume) -> io::Result<()> {
        if std::mem::replace(&mut self.running, true) {
            // It could stand behind a breakpoint that nobody has looked at.
            return Err(io::Error::other("the debugger lets a guest go on that it has not seen stop"));
        }
        let registers = self.task.guest.registers()?;
        if registers.eflags & TRAP_FLAG != 0 {
            self.task
                .guest
                .set_registers(&Registers { eflags: registers.eflags & !TRAP_FLAG, ..registers })?;
        }
        self.pending = None;
        self.hardware.resume(how, &mut *self.task.guest)
    }

    fn set_hardware(&mut self, breakpoints: Vec<HardwareBreakpoint>) -> TargetResult<bool, Self> {
        if breakpoints.len() > 4 || self.task.guest.set_hardware_breakpoints(&breakpoints).is_err() {
            return Ok(false);
        }
        self.hardware.set(breakpoints);
        Ok(true)
    }

    fn add_hardware(&mut self, address: u64, length: u64, watch: Watch) -> TargetResult<bool, Self> {
        let Ok(length @ (1 | 2 | 4 | 8)) = u8::try_from(length) else { return Ok(false) };
        if !address.is_multiple_of(u64::from(length)) {
            return Ok(false);
        }
        let mut breakpoints = self.hardware.breakpoints().to_vec();
        breakpoints.push(HardwareBreakpoint { address, length, watch });
        self.set_hardware(breakpoints)
    }

    fn remove_hardware(&mut self, address: u64, watch: Watch) -> TargetResult<bool, Self> {
        let mut breakpoints = self.hardware.breakpoints().to_vec();
        let Some(index) = breakpoints.iter().position(|b| b.address == address && b.watch == watch) else {
            return Ok(false);
        };
        breakpoints.remove(index);
        self.set_hardware(breakpoints)
    }

    fn monitor(&mut self, command: &str, out: &mut ConsoleOutput<'_>) -> io::Result<()> {
        let mut words = command.split_whitespace();
        match (words.next(), words.next()) {
            (Some("devices"), None) if self.task.options.devices.is_empty() => outputln!(out, "none"),
            (Some("devices"), None) => {
                self.task.options.devices.iter().for_each(|device| outputln!(out, "{device}"));
            }
            (Some("memory"), None) => {
                for range in self.task.guest.regions()? {
                    let flag = |is, letter| if is { letter } else { '-' };
                    let (allowed, pages) = (range.permissions, range.pages);
                    outputln!(
                        out,
                        "{:#010x}-{:#010x} {}{}{}",
                        pages.start,
                        pages.end,
                        flag(allowed.read, 'r'),
                        flag(allowed.write, 'w'),
                        flag(allowed.execute, 'x')
                    );
                }
            }
            (Some("counters"), None) => outputln!(out, "{}", self.task.guest.counters()?.trim_end()),
            // Where to, whoever started the guest says. A debugger may be anybody who can connect.
            (Some("core"), None) => outputln!(out, "{}", self.task.dump(None, 0)?.display()),
            (Some("core"), Some(_)) => outputln!(
                out,
                "it cannot be done: only who starts the guest says where cores are written to (--dumpcore DIR); \
                 gdb's own generate-core-file writes one on its side"
            ),
            _ => outputln!(out, "{HELP}"),
        }
        Ok(())
    }
}

impl target::Target for Target<'_> {
    type Arch = X86_64_SSE;
    type Error = io::Error;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    // Breakpoints are these functions' affair, which know what is hidden under them.
    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }
}

/// What gdb is told of a hardware breakpoint.
fn hit_reason(breakpoint: &HardwareBreakpoint) -> SingleThreadStopReason<u64> {
    let addr = breakpoint.address;
    match breakpoint.watch {
        Watch::Execute => SingleThreadStopReason::HwBreak(()),
        Watch::Write => SingleThreadStopReason::Watch { tid: (), kind: WatchKind::Write, addr },
        Watch::Access => SingleThreadStopReason::Watch { tid: (), kind: WatchKind::ReadWrite, addr },
    }
}

impl Found {
    fn reason(self) -> Option<SingleThreadStopReason<u64>> {
        match self {
            Self::GoesOn => None,
            Self::Interrupted => Some(SingleThreadStopReason::Signal(Signal::SIGINT)),
            Self::Step => Some(SingleThreadStopReason::DoneStep),
            Self::Hit(breakpoint) => Some(hit_reason(&breakpoint)),
        }
    }
}

/// gdb's order of the general registers.
fn general(registers: &mut Registers) -> [&mut u64; 16] {
    let r = registers;
    [
        &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp, &mut r.rsp,
        &mut r.r8, &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
    ]
}

#[expect(clippy::cast_possible_truncation, reason = "flags and selectors have 32 bits at most")]
impl SingleThreadBase for Target<'_> {
    fn read_registers(&mut self, regs: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let mut registers = self.task.guest.registers()?;
        let float = self.task.guest.float_registers()?;
        for (to, from) in regs.regs.iter_mut().zip(general(&mut registers)) {
            *to = *from;
        }
        regs.rip = registers.rip;
        regs.eflags = registers.eflags as u32;
        let Registers { cs, ss, ds, es, fs, gs, .. } = registers;
        regs.segments = X86SegmentRegs {
            cs: cs as u32,
            ss: ss as u32,
            ds: ds as u32,
            es: es as u32,
            fs: fs as u32,
            gs: gs as u32,
        };
        for (to, from) in regs.st.iter_mut().zip(&float.st) {
            to.copy_from_slice(&from[..10]);
        }
        for (to, from) in regs.xmm.iter_mut().zip(&float.xmm) {
            *to = u128::from_le_bytes(*from);
        }
        regs.fpu = X87FpuInternalRegs {
            fctrl: u32::from(float.fcw),
            fstat: u32::from(float.fsw),
            ftag: u32::from(full_tags(float.ftw)),
            fop: u32::from(float.fop),
            fioff: float.fip as u32,
            fooff: float.fdp as u32,
            ..X87FpuInternalRegs::default()
        };
        regs.mxcsr = float.mxcsr;
        Ok(())
    }

    fn write_registers(&mut self, regs: &X86_64CoreRegs) -> TargetResult<(), Self> {
        let mut registers = self.task.guest.registers()?;
        for (to, from) in general(&mut registers).into_iter().zip(&regs.regs) {
            *to = *from;
        }
        registers.rip = regs.rip;
        // Selectors stay: there are no others that a guest could have.
        registers.eflags = u64::from(regs.eflags);
        self.task.guest.set_registers(&registers)?;
        let mut float = self.task.guest.float_registers()?;
        for (to, from) in float.st.iter_mut().zip(&regs.st) {
            to[..10].copy_from_slice(from);
        }
        for (to, from) in float.xmm.iter_mut().zip(&regs.xmm) {
            *to = from.to_le_bytes();
        }
        float.fcw = regs.fpu.fctrl as u16;
        float.fsw = regs.fpu.fstat as u16;
        // Bits that the processor does not know would be refused.
        float.mxcsr = regs.mxcsr & 0xffff;
        self.task.guest.set_float_registers(&float)?;
        Ok(())
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let count = self.task.guest.read(start, data)?;
        if count == 0 && !data.is_empty() {
            return Err(TargetError::NonFatal);
        }
        // gdb wants to see the program, not what was put into it.
        for &(address, byte) in &self.software {
            if let Some(shown) = address.checked_sub(start).and_then(|at| data[..count].get_mut(at as usize))
            {
                *shown = byte;
            }
        }
        Ok(count)
    }

    fn write_addrs(&mut self, start: u64, data: &[u8]) -> TargetResult<(), Self> {
        self.task.guest.write(start, data).map_err(|_| TargetError::NonFatal)?;
        for (address, byte) in &mut self.software {
            if let Some(new) = address.checked_sub(start).and_then(|at| data.get(at as usize)) {
                *byte = *new;
                self.task.guest.write(*address, &[INT3])?;
            }
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

/// The two bits for each register that gdb shows, of which `fxsave` stores one.
fn full_tags(abridged: u8) -> u16 {
    (0..8)
        .filter(|register| abridged & 1 << register == 0)
        .fold(0, |tags, register| tags | 0b11 << (2 * register))
}

impl SingleThreadResume for Target<'_> {
    fn resume(&mut self, signal: Option<Signal>) -> Result<(), io::Error> {
        // gdb passes on the one that it was told of, or none.
        let signal = signal.and(self.pending);
        self.go(Resume::Continue { signal })
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Target<'_> {
    fn step(&mut self, _signal: Option<Signal>) -> Result<(), io::Error> {
        self.go(Resume::Step)
    }
}

impl Breakpoints for Target<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Target<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let mut byte = [0];
        if self.task.guest.read(address, &mut byte)? != 1 || self.task.guest.write(address, &[INT3]).is_err()
        {
            return Ok(false);
        }
        self.software.push((address, byte[0]));
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let Some(index) = self.software.iter().position(|&(at, _)| at == address) else { return Ok(false) };
        let (_, byte) = self.software.remove(index);
        self.task.guest.write(address, &[byte])?;
        Ok(true)
    }
}

impl HwBreakpoint for Target<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.add_hardware(address, 1, Watch::Execute)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.remove_hardware(address, Watch::Execute)
    }
}

fn watch(kind: WatchKind) -> Watch {
    match kind {
        WatchKind::Write => Watch::Write,
        WatchKind::Read | WatchKind::ReadWrite => Watch::Access,
    }
}

impl HwWatchpoint for Target<'_> {
    fn add_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        self.add_hardware(address, length, watch(kind))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        _length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        self.remove_hardware(address, watch(kind))
    }
}

impl MonitorCmd for Target<'_> {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), io::Error> {
        if let Err(error) = self.monitor(&String::from_utf8_lossy(command), &mut out) {
            outputln!(out, "it cannot be done: {error}");
        }
        Ok(())
    }
}
