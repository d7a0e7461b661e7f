//! Stops for debuggers.

use super::{
    super::{
        arch,
        control::Control,
        cpu::{Exception, flags, vector},
        inspect::{Context, DebugChannel, Order, Watched},
    },
    Vcpu, system,
};
use crate::{
    debug::{End, FloatRegisters, Registers, Stop, debug_control},
    exit::ExitStatus,
};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use kvm_bindings::{kvm_debugregs, kvm_regs};
use std::io;
use zerocopy::{FromBytes, IntoBytes};

/// Of DR6: breakpoints that were hit; a step was done.
const HIT: u64 = 0b1111;
const STEP_DONE: u64 = 1 << 14;

/// A step that a debugger wants.
#[derive(Debug, Clone, Copy)]
pub struct Stepping {
    /// The instruction.
    from: u64,
    /// Whether the guest has the trap flag set itself.
    pub guests_own: bool,
}

impl Vcpu {
    /// Whether it should stop before it is entered again.
    pub(super) fn should_stop(&self, channel: &DebugChannel) -> bool {
        self.steps_out_of_call || channel.wants_stop()
    }

    /// Stops, unless the processor is about to halt in the stub of exceptions: then this is false, and it can stop when
    /// it has come out.
    pub(super) fn stop_if_possible(&mut self, channel: &DebugChannel) -> io::Result<bool> {
        if !self.in_frame {
            // An access to a port is only done with when the processor is entered again. This enters it for nothing
            // else.
            self.machine.vcpu.set_kvm_immediate_exit(1);
            let _ = self.machine.vcpu.run();
            self.machine.vcpu.set_kvm_immediate_exit(0);
            if !self.take_registers()? {
                return Ok(false);
            }
        }
        let stop = match std::mem::take(&mut self.steps_out_of_call) {
            true => Stop::Trap { software: false, status: STEP_DONE },
            false => Stop::Interrupted,
        };
        self.stand(stop, channel)?;
        Ok(true)
    }

    /// Stops in the middle of a hypercall, which goes on after it.
    pub(super) fn stop_in_call(&mut self, channel: &DebugChannel) -> io::Result<()> {
        let registers = self.machine.vcpu.get_regs().map_err(system)?;
        let sregs = self.machine.vcpu.get_sregs().map_err(system)?;
        let context =
            Context { registers: joined(&registers, sregs.fs.base, sregs.gs.base), float: self.float()? };
        // What a debugger changes here would be overwritten by the end of the call, so it has no effect.
        if let Some(order) = channel.stand(Stop::Interrupted, context) {
            self.set_breakpoints(&order)?;
            self.steps_out_of_call = order.step;
        }
        Ok(())
    }

    /// Stops for a trap that is a debugger's. False when it is the guest's own affair.
    pub(super) fn stop_for_trap(&mut self, exception: Exception, channel: &DebugChannel) -> io::Result<bool> {
        let watched = channel.watched() == Watched::Traps;
        if exception.vector == vector::BREAKPOINT && watched {
            self.stepping = None;
            self.stand(Stop::Trap { software: true, status: 0 }, channel)?;
            return Ok(true);
        }
        if exception.vector != vector::DEBUG {
            return Ok(false);
        }
        let found = self.machine.vcpu.get_debug_regs().map_err(system)?;
        let stepped = self.stepping.take();
        if stepped.is_none() && found.dr6 & HIT == 0 {
            // The guest has set the trap flag itself.
            return Ok(false);
        }
        if let Some(step) = stepped {
            self.hide_step(step);
        }
        let mut cleared = kvm_debugregs { dr6: 0, ..found };
        if !watched {
            // The debugger has left meanwhile.
            cleared.dr7 = FIXED_CONTROL;
        }
        self.machine.vcpu.set_debug_regs(&cleared).map_err(system)?;
        if watched {
            self.stand(Stop::Trap { software: false, status: found.dr6 }, channel)?;
        } else {
            self.resume();
        }
        Ok(true)
    }

    /// A step is over that ended in the monitor: with an instruction that it did, or at the entry of a gate.
    pub(super) fn stop_after_step(&mut self, channel: &DebugChannel) -> io::Result<()> {
        if channel.watched() != Watched::Traps {
            self.resume();
            return Ok(());
        }
        self.stand(Stop::Trap { software: false, status: STEP_DONE }, channel)
    }

    pub(super) fn set_trap_flag(&mut self, on: bool) {
        self.cpu.regs.rflags = self.cpu.regs.rflags & !flags::TF | if on { flags::TF } else { 0 };
    }

    /// Takes back the trap flag that a step needed, also from where the instruction has put it.
    fn hide_step(&mut self, step: Stepping) {
        let bytes = self.memory().instruction_bytes(step.from);
        let instruction = Decoder::with_ip(64, &bytes, step.from, DecoderOptions::NONE).decode();
        match instruction.mnemonic() {
            // It has loaded the flags: what they are now is the guest's.
            Mnemonic::Popf | Mnemonic::Popfq if self.cpu.regs.rip != step.from => return,
            Mnemonic::Pushf | Mnemonic::Pushfq if self.cpu.regs.rip != step.from && !step.guests_own => {
                let top = self.cpu.regs.rsp;
                if let Ok(pushed) = self.memory().read::<u16>(top) {
                    let trap_flag = u16::try_from(flags::TF).unwrap_or_default();
                    let _ = self.memory().write(top, &(pushed & !trap_flag));
                }
            }
            _ => {}
        }
        self.set_trap_flag(step.guests_own);
    }

    /// Shows a guest that is about to end.
    pub(super) fn show_end(&mut self, status: ExitStatus, control: &Control) -> io::Result<()> {
        if control.debug.watched() == Watched::No {
            return Ok(());
        }
        if !self.in_frame {
            self.take_registers()?;
        }
        let context = self.context()?;
        control.debug.stand(Stop::Ending(end_of(status)), context);
        Ok(())
    }

    /// Makes `cpu` what the guest has. False when the virtual processor is not running guest code, and cannot be taken
    /// back to it.
    fn take_registers(&mut self) -> io::Result<bool> {
        let mut registers = self.machine.vcpu.get_regs().map_err(system)?;
        let sregs = self.machine.vcpu.get_sregs().map_err(system)?;
        if sregs.cs.selector & 3 != 3 {
            // A guest that does nothing but switch threads may always be here.
            let Some(pushed) = arch::in_wrmsr_stub(registers.rip) else { return Ok(false) };
            let frame = self.machine.stack_words(arch::STACK_TOP - 56);
            let Some([rax, _, rip, _, rflags, rsp, _]) = frame else { return Ok(false) };
            registers = kvm_regs { rip, rflags, rsp, ..registers };
            if pushed {
                registers.rax = rax;
            }
        }
        self.cpu.regs = registers;
        (self.cpu.fs_base, self.cpu.gs_base) = (sregs.fs.base, sregs.gs.base);
        self.machine.vcpu.sync_regs_mut().sregs = sregs;
        self.in_frame = true;
        Ok(true)
    }

    fn float(&self) -> io::Result<FloatRegisters> {
        // KVM_GET_FPU would leave out MXCSR.
        let area = self.machine.vcpu.get_xsave().map_err(system)?;
        let (float, _) = FloatRegisters::read_from_prefix(area.region.as_bytes())
            .map_err(|_| io::Error::other("KVM's area for registers is too small"))?;
        Ok(float)
    }

    fn set_float(&self, float: &FloatRegisters) -> io::Result<()> {
        /// Words of the area: where XSTATE_BV is, and its bits for x87 and SSE.
        const COMPONENTS: usize = 512 / 4;
        const LEGACY: u32 = 0b11;
        let mut area = self.machine.vcpu.get_xsave().map_err(system)?;
        area.region.as_mut_bytes()[..size_of::<FloatRegisters>()].copy_from_slice(float.as_bytes());
        area.region[COMPONENTS] |= LEGACY;
        // SAFETY: no component is enabled whose state would lie after the area's 4 KiB.
        unsafe { self.machine.vcpu.set_xsave(&area) }.map_err(system)
    }

    fn context(&self) -> io::Result<Context> {
        let cpu = &self.cpu;
        let mut registers = joined(&cpu.regs, cpu.fs_base, cpu.gs_base);
        (registers.cs, registers.ss) = (cpu.cs.into(), cpu.ss.into());
        registers.eflags = cpu.guest_flags();
        Ok(Context { registers, float: self.float()? })
    }

    /// Stands still with the registers in `cpu`, and goes on with what they are then.
    fn stand(&mut self, stop: Stop, channel: &DebugChannel) -> io::Result<()> {
        if let Some(step) = self.stepping.take() {
            // It has not been done, and is not wanted any more.
            self.set_trap_flag(step.guests_own);
        }
        let shown = self.context()?;
        let Some(order) = channel.stand(stop, shown) else {
            self.resume();
            return Ok(());
        };
        let Context { registers, float } = order.context;
        if registers != shown.registers {
            self.cpu.regs = split(&registers);
            (self.cpu.fs_base, self.cpu.gs_base) = (registers.fs_base, registers.gs_base);
        }
        if float != shown.float {
            self.set_float(&float)?;
        }
        self.set_breakpoints(&order)?;
        self.stepping = order.step.then_some(Stepping {
            from: self.cpu.regs.rip,
            guests_own: self.cpu.regs.rflags & flags::TF != 0,
        });
        if order.step {
            self.set_trap_flag(true);
        }
        self.resume();
        Ok(())
    }

    fn set_breakpoints(&self, order: &Order) -> io::Result<()> {
        let found = self.machine.vcpu.get_debug_regs().map_err(system)?;
        let mut wanted = kvm_debugregs { dr7: FIXED_CONTROL | debug_control(&order.breakpoints), ..found };
        for (address, breakpoint) in wanted.db.iter_mut().zip(&order.breakpoints) {
            *address = breakpoint.address;
        }
        if (wanted.dr7, wanted.db) != (found.dr7, found.db) {
            self.machine.vcpu.set_debug_regs(&wanted).map_err(system)?;
        }
        Ok(())
    }
}

/// The bit of DR7 that is always set.
const FIXED_CONTROL: u64 = 1 << 10;

pub(in super::super) fn end_of(status: ExitStatus) -> End {
    match status {
        ExitStatus::Exited(code) => End::Code(code),
        ExitStatus::Aborted => End::Code(u8::MAX),
        ExitStatus::Killed(signal) => End::Signal(signal),
        ExitStatus::Faulted(fault) => End::Signal(fault.signal),
        // 128 and the signal that a process would have got.
        other => End::Signal(i32::from(other.shell_code()) - 128),
    }
}

fn joined(regs: &kvm_regs, fs_base: u64, gs_base: u64) -> Registers {
    Registers {
        r15: regs.r15,
        r14: regs.r14,
        r13: regs.r13,
        r12: regs.r12,
        rbp: regs.rbp,
        rbx: regs.rbx,
        r11: regs.r11,
        r10: regs.r10,
        r9: regs.r9,
        r8: regs.r8,
        rax: regs.rax,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        orig_rax: u64::MAX,
        rip: regs.rip,
        cs: 8,
        eflags: regs.rflags,
        rsp: regs.rsp,
        ss: 0x10,
        fs_base,
        gs_base,
        ds: 0x10,
        es: 0x10,
        fs: 0,
        gs: 0,
    }
}

fn split(registers: &Registers) -> kvm_regs {
    let r = registers;
    kvm_regs {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.eflags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_the_way_there_and_back() {
        let regs = kvm_regs {
            rax: 1,
            rbx: 2,
            rcx: 3,
            rdx: 4,
            rsi: 5,
            rdi: 6,
            rsp: 7,
            rbp: 8,
            r8: 9,
            r9: 10,
            r10: 11,
            r11: 12,
            r12: 13,
            r13: 14,
            r14: 15,
            r15: 16,
            rip: 17,
            rflags: 18,
        };
        assert_eq!(split(&joined(&regs, 19, 20)), regs);
    }
}
