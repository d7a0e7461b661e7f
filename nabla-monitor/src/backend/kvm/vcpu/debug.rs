//! Stops for those who look into the guest.

use super::{
    super::{
        control::Control,
        cpu::{Exception, flags, vector},
        inspect::{Context, Order, Port, Watched},
    },
    Vcpu, system,
};
use crate::{
    debug::{End, FloatRegisters, Registers, Stop, debug_control},
    exit::ExitStatus,
};
use kvm_bindings::{kvm_debugregs, kvm_regs};
use std::io;
use zerocopy::{FromBytes, IntoBytes};

impl Vcpu {
    /// Stops, unless the processor is in the stub of exceptions: then it does when it comes out.
    pub(super) fn stop_if_possible(&mut self, port: &Port) -> io::Result<()> {
        if !self.in_frame {
            // An access to a port is only done with when the processor is entered again. This enters it for nothing
            // else.
            self.machine.vcpu.set_kvm_immediate_exit(1);
            let _ = self.machine.vcpu.run();
            self.machine.vcpu.set_kvm_immediate_exit(0);
            if !self.take_registers()? {
                return Ok(());
            }
        }
        self.stand(Stop::Interrupted, port)
    }

    /// Stops in the middle of a hypercall, which goes on after it.
    pub(super) fn stop_in_call(&mut self, port: &Port) -> io::Result<()> {
        let registers = self.machine.vcpu.get_regs().map_err(system)?;
        let sregs = self.machine.vcpu.get_sregs().map_err(system)?;
        let context =
            Context { registers: joined(&registers, sregs.fs.base, sregs.gs.base), float: self.float()? };
        // What a debugger changes here would be overwritten by the end of the call, so it has no effect.
        if let Some(order) = port.stand(Stop::Interrupted, context) {
            self.set_breakpoints(&order)?;
            self.stepping = order.step;
        }
        Ok(())
    }

    /// Stops for a trap that is a debugger's.
    pub(super) fn stop_for_trap(&mut self, exception: Exception, port: &Port) -> io::Result<bool> {
        if port.watched() != Watched::Traps {
            return Ok(false);
        }
        if exception.vector == vector::BREAKPOINT {
            self.stand(Stop::Trap { software: true, status: 0 }, port)?;
            return Ok(true);
        }
        const HIT: u64 = 0b1111;
        let found = self.machine.vcpu.get_debug_regs().map_err(system)?;
        if !self.stepping && found.dr6 & HIT == 0 {
            // The guest has set the trap flag itself.
            return Ok(false);
        }
        if self.stepping {
            self.cpu.regs.rflags &= !flags::TF;
        }
        self.machine.vcpu.set_debug_regs(&kvm_debugregs { dr6: 0, ..found }).map_err(system)?;
        self.stand(Stop::Trap { software: false, status: found.dr6 }, port)?;
        Ok(true)
    }

    /// Shows a guest that is about to end.
    pub(super) fn show_end(&mut self, status: ExitStatus, control: &Control) -> io::Result<()> {
        if control.port.watched() == Watched::No {
            return Ok(());
        }
        if !self.in_frame {
            self.take_registers()?;
        }
        let context = self.context()?;
        control.port.stand(Stop::Ending(end_of(status)), context);
        Ok(())
    }

    /// Makes `cpu` what the virtual processor has. False when that is not running guest code.
    fn take_registers(&mut self) -> io::Result<bool> {
        let registers = self.machine.vcpu.get_regs().map_err(system)?;
        let sregs = self.machine.vcpu.get_sregs().map_err(system)?;
        if sregs.cs.selector & 3 != 3 {
            return Ok(false);
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
        // SAFETY: no component is enabled whose state would lie behind the area's 4 KiB.
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
    fn stand(&mut self, stop: Stop, port: &Port) -> io::Result<()> {
        let shown = self.context()?;
        let Some(order) = port.stand(stop, shown) else {
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
        self.stepping = order.step;
        if order.step {
            self.cpu.regs.rflags |= flags::TF;
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
