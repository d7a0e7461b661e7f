//! The loop that runs a guest: out of the guest, see what it wants, back in.

mod debug;

pub(super) use debug::end_of;

use super::{
    arch,
    control::Control,
    counters::ticks,
    cpu::{Cpu, Exception, flags, page_fault, vector},
    devices::Devices,
    emulate::{self, Step},
    hypercall::{self, Outcome},
    memory::{BadAccess, GuestMemory},
    ring::Service,
    vm::{Machine, user_code, user_data},
};
use crate::{
    exit::{BadHypercall, ExitStatus, Fault, HypercallMistake, UnsupportedInstruction},
    sys::signals::{SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGPIPE, SIGSEGV, SIGTRAP},
    usage::ResourceUsage,
};
use kvm_ioctls::{SyncReg, VcpuExit};
use nabla_core::abi::{
    EXIT_ABORT, GUEST_MIN_BASE,
    hvt::{Hypercall, RING_KICK_PORT},
};
use rustix::io::Errno;
use std::io;

/// Why the guest was left.
enum Exit {
    /// OUT of 32 bits.
    Out {
        port: u16,
        value: u32,
    },
    /// Another access to a port.
    OtherPort(u16),
    /// The stub of exceptions.
    Halted,
    Interrupted,
    /// KVM did something else than to run it, and is to be asked again.
    Again,
    /// Nothing that a guest in ring 3 can cause, unless KVM fails.
    Failed(String),
    /// KVM cannot execute an instruction.
    CannotEmulate,
}

/// A guest that runs.
#[derive(Debug)]
pub struct Vcpu {
    /// The thread that serves the network ring. It ends before the devices are closed.
    network: Option<Service>,
    machine: Machine,
    devices: Devices,
    cpu: Cpu,
    /// Whether the guest's registers are those of `cpu` now, and not those of the virtual processor.
    in_frame: bool,
    /// A debugger wants it to stop after one instruction.
    stepping: Option<debug::Stepping>,
    /// A step began in a hypercall, and is over when that is.
    steps_out_of_call: bool,
    /// When the guest was left, in ticks.
    left: u64,
}

impl Vcpu {
    pub fn new(machine: Machine, devices: Devices) -> Self {
        Self {
            network: None,
            machine,
            devices,
            cpu: Cpu::new(kvm_bindings::kvm_regs::default()),
            in_frame: false,
            stepping: None,
            steps_out_of_call: false,
            left: 0,
        }
    }

    /// Frequency of the time stamp counter in Hz.
    pub fn tsc_frequency(&self) -> u64 {
        self.machine.tsc_frequency
    }

    /// The guest's network ring is served from now on, for as long as it runs.
    pub fn serve_network(&mut self, service: Service) {
        self.network = Some(service);
    }

    /// Does what the guest has submitted to its network ring, and ends that. Returns what it took.
    pub fn end_network(&mut self) -> ResourceUsage {
        self.network.take().map_or_else(ResourceUsage::default, |mut service| service.stop())
    }

    /// Gives back the machine; the devices are closed.
    pub fn into_machine(self) -> Machine {
        self.machine
    }

    fn memory(&self) -> &GuestMemory {
        &self.machine.memory
    }

    /// Bytes of guest memory that are in use.
    pub fn resident(&self) -> u64 {
        self.machine.resident().unwrap_or(0)
    }

    /// Runs the guest to its end. An error is one of KVM or of this program, not of the guest.
    pub fn run(&mut self, control: &Control) -> io::Result<ExitStatus> {
        self.left = ticks();
        let status = match self.run_to_end(control)? {
            ExitStatus::Killed(SIGKILL) => match control.mistake() {
                Some(mistake) => self.bad_hypercall(RING_KICK_PORT, mistake),
                None => ExitStatus::Killed(SIGKILL),
            },
            status => status,
        };
        self.show_end(status, control)?;
        Ok(status)
    }

    fn run_to_end(&mut self, control: &Control) -> io::Result<ExitStatus> {
        let mut called = false;
        loop {
            // A debugger may want another stop right after the last one, and a guest that was paused stays so.
            while std::mem::take(&mut called) || self.should_stop(&control.debug) {
                control.clear_kick();
                if self.should_stop(&control.debug) && !self.stop_if_possible(&control.debug)? {
                    // It is on the way to an exit, and does what is wanted after that.
                    called = true;
                    break;
                }
                if !control.attend() {
                    return Ok(ExitStatus::Killed(SIGKILL));
                }
            }
            let exit = self.enter()?;
            self.count(&exit);
            let ended = match exit {
                Exit::Out { port, value } => self.hypercall(port, value, control)?,
                Exit::OtherPort(port) => Some(self.bad_hypercall(port, mistake_at(port))),
                Exit::Halted => self.exception(control)?,
                Exit::Interrupted => {
                    called = true;
                    None
                }
                Exit::Again => None,
                Exit::CannotEmulate => {
                    self.cpu.regs = self.machine.vcpu.get_regs().map_err(system)?;
                    Some(self.unsupported())
                }
                Exit::Failed(what) => return Err(io::Error::other(what)),
            };
            if let Some(status) = ended {
                return Ok(status);
            }
        }
    }

    fn count(&self, exit: &Exit) {
        let tally = &self.devices.tally;
        match exit {
            // Hypercalls count themselves.
            Exit::Out { .. } | Exit::Again => {}
            Exit::Halted => tally.exceptions.add(1),
            Exit::Interrupted => tally.interruptions.add(1),
            Exit::OtherPort(_) | Exit::Failed(_) | Exit::CannotEmulate => tally.others.add(1),
        }
    }

    /// Lets the guest run until it wants something.
    fn enter(&mut self) -> io::Result<Exit> {
        self.in_frame = false;
        let tally = &self.devices.tally;
        let entered = ticks();
        tally.host_ticks.add(entered.wrapping_sub(self.left));
        let vcpu = &mut self.machine.vcpu;
        let ran = vcpu.run();
        self.left = ticks();
        tally.guest_ticks.add(self.left.wrapping_sub(entered));
        let exit = match ran {
            Ok(VcpuExit::IoOut(port, data)) => {
                let value = data.try_into().map(u32::from_le_bytes).ok();
                // SAFETY: the exit was one for an access to a port, so this is the field of the union in use.
                let io = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io };
                match value {
                    Some(value) if io.size == 4 && io.count == 1 => Exit::Out { port, value },
                    _ => Exit::OtherPort(port),
                }
            }
            Ok(VcpuExit::IoIn(port, _)) => Exit::OtherPort(port),
            Ok(VcpuExit::Hlt) => Exit::Halted,
            Ok(VcpuExit::InternalError) => {
                const EMULATION: u32 = 1;
                // SAFETY: the exit was an internal error, so this is the field of the union in use.
                let suberror = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
                if suberror == EMULATION {
                    Exit::CannotEmulate
                } else {
                    Exit::Failed(format!("KVM has an internal error ({suberror})"))
                }
            }
            Ok(VcpuExit::Intr) => Exit::Interrupted,
            Ok(other) => {
                let what = format!("{other:?}");
                let rip = vcpu.get_regs().map_err(system)?.rip;
                Exit::Failed(format!("KVM left the guest at {rip:#x} for an unexpected reason: {what}"))
            }
            Err(error) => match Errno::from_raw_os_error(error.errno()) {
                Errno::INTR => Exit::Interrupted,
                Errno::AGAIN => Exit::Again,
                errno => return Err(errno.into()),
            },
        };
        Ok(exit)
    }

    fn hypercall(&mut self, port: u16, value: u32, control: &Control) -> io::Result<Option<ExitStatus>> {
        let Some(call) = Hypercall::from_port(port) else {
            return Ok(Some(self.bad_hypercall(port, HypercallMistake::NoSuchPort)));
        };
        loop {
            let memory = &self.machine.memory;
            let outcome = hypercall::handle(call, u64::from(value), memory, &mut self.devices, control);
            return Ok(match outcome {
                Ok(Outcome::Continue) => None,
                Ok(Outcome::Look) => {
                    // Until no debugger wants to any more: the request is cleared when it has been attended to.
                    while control.debug.wants_stop() {
                        self.stop_in_call(&control.debug)?;
                        if !control.attend() {
                            return Ok(Some(ExitStatus::Killed(SIGKILL)));
                        }
                    }
                    continue;
                }
                Ok(Outcome::NoReader) => Some(ExitStatus::Killed(SIGPIPE)),
                Ok(Outcome::Killed) => Some(ExitStatus::Killed(SIGKILL)),
                Ok(Outcome::Halt { status }) => Some(match status.to_le_bytes()[0] {
                    low if i32::from(low) == EXIT_ABORT => ExitStatus::Aborted,
                    low => ExitStatus::Exited(low),
                }),
                Err(BadAccess { address, .. }) => {
                    Some(self.bad_hypercall(port, HypercallMistake::Memory { address }))
                }
            });
        }
    }

    fn bad_hypercall(&self, port: u16, mistake: HypercallMistake) -> ExitStatus {
        let instruction_pointer =
            self.port_instruction(self.machine.vcpu.get_regs().map_or(0, |regs| regs.rip));
        ExitStatus::BadHypercall(BadHypercall { port, mistake, instruction_pointer })
    }

    /// The address of the access to a port that ended at `rip`: at it on most hypervisors, before it on others.
    fn port_instruction(&self, rip: u64) -> u64 {
        let is_port = |address| {
            let bytes = self.memory().instruction_bytes(address);
            let instruction = iced_x86::Decoder::new(64, &bytes, iced_x86::DecoderOptions::NONE).decode();
            emulate::is_port_access(&instruction).then_some((address, instruction.len() as u64))
        };
        if is_port(rip).is_some() {
            return rip;
        }
        let ends_here = |&(address, length): &(u64, u64)| address + length == rip;
        let found = (1..=3).rev().filter_map(|back| is_port(rip.checked_sub(back)?)).find(ends_here);
        found.map_or(rip, |(address, _)| address)
    }

    fn unsupported(&self) -> ExitStatus {
        let instruction_pointer = self.cpu.regs.rip;
        let found = self.memory().instruction_bytes(instruction_pointer);
        let mut decoder = iced_x86::Decoder::new(64, &found, iced_x86::DecoderOptions::NONE);
        let length = match decoder.decode() {
            instruction if instruction.is_invalid() => found.len(),
            instruction => instruction.len(),
        };
        ExitStatus::Unsupported(UnsupportedInstruction::new(
            instruction_pointer,
            &found[..length.min(found.len())],
        ))
    }

    /// The guest is in the stub: what happened, and what does the guest get to see of it?
    fn exception(&mut self, control: &Control) -> io::Result<Option<ExitStatus>> {
        let exception = self.read_frame()?;
        self.in_frame = true;
        if exception.trap && self.stop_for_trap(exception, &control.debug)? {
            return Ok(None);
        }
        // Whatever becomes of it, it is one step, of which the guest sees nothing.
        let stepped = self.stepping.take();
        if let Some(step) = stepped {
            self.set_trap_flag(step.guests_own);
        }
        let memory = &self.machine.memory;
        let step = match exception.vector {
            vector::PAGE_FAULT => Step::Raise(exception),
            // Alignment is not checked in ring 0, and never by this ABI. It is where the guest really runs on a
            // host whose own kernel checks it.
            vector::ALIGNMENT if self.cpu.regs.rflags & flags::AC != 0 => Step::Done,
            vector::GENERAL_PROTECTION | vector::INVALID_OPCODE | vector::NOT_PRESENT | vector::STACK => {
                emulate::step(&mut self.cpu, memory, exception)
            }
            _ => Step::Raise(exception),
        };
        let ended = match step {
            Step::Done => None,
            Step::Port(port) => {
                let mistake = mistake_at(port);
                let instruction_pointer = self.cpu.regs.rip;
                Some(ExitStatus::BadHypercall(BadHypercall { port, mistake, instruction_pointer }))
            }
            Step::Unsupported => Some(self.unsupported()),
            Step::Raise(raised) if is_ours(raised, memory.size()) => Some(self.faulted(raised, false)),
            Step::Raise(raised) => self
                .cpu
                .deliver(memory, as_in_ring_0(raised))
                .err()
                .map(|undeliverable| self.faulted(undeliverable, true)),
        };
        if ended.is_none() {
            match stepped {
                Some(_) => self.stop_after_step(&control.debug)?,
                None => self.resume(),
            }
        }
        Ok(ended)
    }

    /// Takes over the registers that the processor pushed on the monitor's stack.
    ///
    /// Registers are asked for here, and not shared with the kernel at every exit: a hypercall needs none, and
    /// reading them costs a good part of an exit on hardware. On the way back they are shared.
    fn read_frame(&mut self) -> io::Result<Exception> {
        let lost = || io::Error::other("the virtual processor halted where no guest can halt it");
        let regs = self.machine.vcpu.get_regs().map_err(system)?;
        let sregs = self.machine.vcpu.get_sregs().map_err(system)?;
        let vector = arch::vector_at(regs.rip).ok_or_else(lost)?;
        let mut at = regs.rsp;
        let mut error_code = None;
        if arch::has_error_code(vector) {
            let [code] = self.machine.stack_words(at).ok_or_else(lost)?;
            error_code = u32::try_from(code & 0xffff_ffff).ok();
            at += 8;
        }
        let [rip, cs, rflags, rsp, _ss] = self.machine.stack_words(at).ok_or_else(lost)?;
        if cs & 3 != 3 || at + 40 != arch::STACK_TOP {
            return Err(lost());
        }
        let cpu = &mut self.cpu;
        cpu.regs = kvm_bindings::kvm_regs { rip, rflags, rsp, ..regs };
        (cpu.fs_base, cpu.gs_base) = (sregs.fs.base, sregs.gs.base);
        self.machine.vcpu.sync_regs_mut().sregs = sregs;
        if vector == vector::PAGE_FAULT {
            let address = sregs.cr2;
            if rip == arch::SYSCALL_TRAP && address == rip && self.was_syscall() {
                // It does not exist without EFER.SCE. It left the flags in r11.
                let cpu = &mut self.cpu;
                cpu.regs.rip = cpu.regs.rcx.wrapping_sub(2);
                cpu.regs.rflags = cpu.regs.r11;
                return Ok(Exception::fault(vector::INVALID_OPCODE, None));
            }
            return Ok(Exception { address: Some(address), ..Exception::fault(vector, error_code) });
        }
        // `int n` of these has no need of privileges (on some hypervisors, for 4), so it comes here by itself.
        let is_software = matches!(vector, vector::BREAKPOINT | vector::OVERFLOW);
        let software = is_software.then(|| rip.wrapping_sub(self.interrupt_length(rip)));
        let trap = is_software || vector == vector::DEBUG;
        Ok(Exception { vector, error_code, address: None, trap, software })
    }

    /// Whether a `syscall` ends where rcx points, as it does after one. A guest may as well jump to where these go.
    fn was_syscall(&self) -> bool {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let found = self.memory().instruction_bytes(self.cpu.regs.rcx.wrapping_sub(2));
        found.starts_with(&SYSCALL)
    }

    /// How long the `int n` or `int3` is that ends at `rip`.
    fn interrupt_length(&self, rip: u64) -> u64 {
        const INT: u8 = 0xcd;
        match self.memory().instruction_bytes(rip.wrapping_sub(2)).as_slice() {
            [INT, vector::BREAKPOINT | vector::OVERFLOW, ..] => 2,
            _ => 1,
        }
    }

    /// Back to ring 3, with the registers as the guest left them or as they were changed.
    fn resume(&mut self) {
        let cpu = &self.cpu;
        let sync = self.machine.vcpu.sync_regs_mut();
        sync.regs = kvm_bindings::kvm_regs { rflags: cpu.real_flags(), ..cpu.regs };
        sync.sregs.cs = user_code();
        sync.sregs.ss = user_data();
        sync.sregs.fs.base = cpu.fs_base;
        sync.sregs.gs.base = cpu.gs_base;
        self.machine.vcpu.set_sync_dirty_reg(SyncReg::Register);
        self.machine.vcpu.set_sync_dirty_reg(SyncReg::SystemRegister);
    }

    fn faulted(&self, exception: Exception, handler_failed: bool) -> ExitStatus {
        let signal = match exception.vector {
            vector::DIVIDE | vector::FLOATING_POINT | vector::SIMD => SIGFPE,
            vector::DEBUG | vector::BREAKPOINT => SIGTRAP,
            vector::INVALID_OPCODE => SIGILL,
            vector::ALIGNMENT => SIGBUS,
            _ => SIGSEGV,
        };
        ExitStatus::Faulted(Fault {
            signal,
            address: exception.address,
            instruction_pointer: Some(self.cpu.regs.rip),
            handler_failed: handler_failed && self.cpu.idt.limit > 0,
        })
    }
}

fn system(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

/// What is wrong with an access to a port that is no hypercall.
fn mistake_at(port: u16) -> HypercallMistake {
    match Hypercall::from_port(port) {
        Some(_) => HypercallMistake::WrongAccess,
        None => HypercallMistake::NoSuchPort,
    }
}

/// Whether this is a page fault on a protection that hvt guests do not expect: that of segments, heap and stack.
/// Solo5's tender ends such guests, too, where it has such protection.
fn is_ours(exception: Exception, memory: u64) -> bool {
    let code = exception.error_code.unwrap_or(0);
    let Some(address) = exception.address.filter(|_| exception.vector == vector::PAGE_FAULT) else {
        return false;
    };
    let fetch = code & page_fault::FETCH != 0;
    code & page_fault::PRESENT != 0 && address < memory && (address >= GUEST_MIN_BASE || fetch)
}

/// The same exception as it would be without the monitor: in ring 0, without EFER.NXE, and with nothing above the
/// guest's memory.
fn as_in_ring_0(exception: Exception) -> Exception {
    if exception.vector != vector::PAGE_FAULT {
        return exception;
    }
    let above = exception.address.is_some_and(|address| address >= arch::MONITOR_BASE);
    // Of the other bits (user, reserved, fetch, keys ...) none can be set there.
    let shown = page_fault::WRITE | if above { 0 } else { page_fault::PRESENT };
    Exception { error_code: exception.error_code.map(|code| code & shown), ..exception }
}
