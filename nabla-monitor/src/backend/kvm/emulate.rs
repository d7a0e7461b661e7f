//! The privileged instructions that existing bindings execute, done as the manual says on the guest's own
//! [`Cpu`]. Everything else that only ring 0 may execute ends the guest.
//!
//! Source: Intel SDM volume 2, the "Operation" and "64-Bit Mode Exceptions" sections of each instruction.

use super::{
    arch::Table,
    cpu::{Cpu, Exception, Task, control_register, flags, is_canonical, vector},
    memory::GuestMemory,
};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use zerocopy::{FromBytes, IntoBytes};

/// What follows from an instruction that the processor refused in ring 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is done.
    Done,
    /// It causes this exception, in ring 0 too.
    Raise(Exception),
    /// It is an access to a port.
    Port(u16),
    /// It is privileged, and not one that is emulated.
    Unsupported,
}

impl From<Exception> for Step {
    fn from(exception: Exception) -> Self {
        Self::Raise(exception)
    }
}

const FS_BASE: u64 = 0xc000_0100;
const GS_BASE: u64 = 0xc000_0101;

/// The low 16 bits.
fn word(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// Executes the instruction at rip, at which the processor raised `exception` (#GP or #UD).
pub fn step(cpu: &mut Cpu, memory: &GuestMemory, exception: Exception) -> Step {
    let bytes = memory.instruction_bytes(cpu.regs.rip);
    let instruction = Decoder::with_ip(64, &bytes, cpu.regs.rip, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return Step::Raise(exception);
    }
    let before = cpu.clone();
    let single_step = cpu.regs.rflags & flags::TF != 0;
    cpu.regs.rip = instruction.next_ip();
    let step = execute(cpu, memory, &instruction, exception).unwrap_or_else(Step::Raise);
    match step {
        Step::Done if single_step && cpu.regs.rflags & flags::TF != 0 => {
            Step::Raise(Exception { trap: true, ..Exception::fault(vector::DEBUG, None) })
        }
        Step::Done => {
            follow(cpu, memory);
            Step::Done
        }
        // Software interrupts are traps: they have happened.
        Step::Raise(raised) if raised.trap => step,
        _ => {
            *cpu = before;
            step
        }
    }
}

/// Bindings execute several such instructions in a row when they start. Those that would only come back here are
/// done at once, as long as nothing is special about them.
fn follow(cpu: &mut Cpu, memory: &GuestMemory) {
    use Mnemonic::{Cli, Lgdt, Lidt, Ltr, Sti, Wrmsr};
    const MOST: usize = 8;
    for _ in 0..MOST {
        let bytes = memory.instruction_bytes(cpu.regs.rip);
        let next = Decoder::with_ip(64, &bytes, cpu.regs.rip, DecoderOptions::NONE).decode();
        let segment =
            matches!(next.code(), Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16);
        if !segment && !matches!(next.mnemonic(), Cli | Lgdt | Lidt | Ltr | Sti | Wrmsr) {
            return;
        }
        let before = cpu.clone();
        cpu.regs.rip = next.next_ip();
        let exception = Exception::general_protection(0);
        if execute(cpu, memory, &next, exception) != Ok(Step::Done) {
            // The processor will say so itself.
            *cpu = before;
            return;
        }
    }
}

fn execute(
    cpu: &mut Cpu,
    memory: &GuestMemory,
    instruction: &Instruction,
    exception: Exception,
) -> Result<Step, Exception> {
    match instruction.mnemonic() {
        Mnemonic::Lgdt => cpu.gdt = Some(load_table(cpu, memory, instruction)?),
        Mnemonic::Lidt => cpu.idt = load_table(cpu, memory, instruction)?,
        Mnemonic::Ltr => load_task(cpu, memory, operand16(cpu, memory, instruction, 0)?)?,
        Mnemonic::Mov => return mov(cpu, memory, instruction, exception),
        Mnemonic::Retf => return far_return(cpu, memory, instruction),
        Mnemonic::Iretq => return interrupt_return(cpu, memory),
        Mnemonic::Wrmsr => return Ok(write_msr(cpu)),
        Mnemonic::Rdmsr => return Ok(read_msr(cpu)),
        Mnemonic::Cli => cpu.interrupts = false,
        Mnemonic::Sti => cpu.interrupts = true,
        Mnemonic::Sgdt => {
            let table = cpu.gdt.unwrap_or(Table { base: 0, limit: 0x17 });
            store_table(cpu, memory, instruction, table)?;
        }
        Mnemonic::Sidt => store_table(cpu, memory, instruction, cpu.idt)?,
        Mnemonic::Str => {
            let selector = cpu.task.map_or(0, |task| task.selector);
            store_word(cpu, memory, instruction, u64::from(selector))?;
        }
        Mnemonic::Sldt => store_word(cpu, memory, instruction, 0)?,
        Mnemonic::Smsw => store_word(cpu, memory, instruction, control_register(0).unwrap_or(0))?,
        // The gate that `int n` would enter in ring 0.
        Mnemonic::Int => {
            return Ok(Step::Raise(Exception {
                trap: true,
                software: Some(instruction.ip()),
                ..Exception::fault(instruction.immediate8(), None)
            }));
        }
        _ if is_port_access(instruction) => return Ok(Step::Port(port(cpu, instruction))),
        mnemonic if is_privileged(mnemonic) || is_far_branch(instruction) => return Ok(Step::Unsupported),
        // An ordinary instruction that faulted for an ordinary reason.
        _ => return Err(exception),
    }
    Ok(Step::Done)
}

/// Whether an instruction reads or writes a port.
pub fn is_port_access(instruction: &Instruction) -> bool {
    use Mnemonic::{In, Insb, Insd, Insw, Out, Outsb, Outsd, Outsw};
    matches!(instruction.mnemonic(), In | Out | Insb | Insw | Insd | Outsb | Outsw | Outsd)
}

/// What only ring 0 may execute and no binding does.
fn is_privileged(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Clgi, Clts, Hlt, Invd, Invept, Invlpg, Invlpga, Invpcid, Invvpid, Lldt, Lmsw, Monitor, Mwait, Rdpmc,
        Skinit, Stgi, Swapgs, Sysexit, Sysexitq, Sysret, Sysretq, Vmclear, Vmlaunch, Vmload, Vmptrld,
        Vmresume, Vmrun, Vmsave, Vmxoff, Vmxon, Wbinvd, Wbnoinvd, Xrstors, Xrstors64, Xsaves, Xsaves64,
        Xsetbv,
    };
    matches!(
        mnemonic,
        Clgi | Clts
            | Hlt
            | Invd
            | Invept
            | Invlpg
            | Invlpga
            | Invpcid
            | Invvpid
            | Lldt
            | Lmsw
            | Monitor
            | Mwait
            | Rdpmc
            | Skinit
            | Stgi
            | Swapgs
            | Sysexit
            | Sysexitq
            | Sysret
            | Sysretq
            | Vmclear
            | Vmload
            | Vmlaunch
            | Vmptrld
            | Vmresume
            | Vmrun
            | Vmsave
            | Vmxoff
            | Vmxon
            | Wbinvd
            | Wbnoinvd
            | Xrstors
            | Xrstors64
            | Xsaves
            | Xsaves64
            | Xsetbv
    )
}

/// Other ways to load a selector: far jumps and calls, returns from interrupts in other sizes, pops.
fn is_far_branch(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
            | Code::Iretw
            | Code::Iretd
            | Code::Popw_FS
            | Code::Popq_FS
            | Code::Popw_GS
            | Code::Popq_GS
    )
}

fn general(cpu: &Cpu, register: Register) -> Option<u64> {
    let regs = &cpu.regs;
    let all = [
        regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9,
        regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ];
    let from = |first: Register, mask: u64| {
        let index = (register as usize).checked_sub(first as usize)?;
        all.get(index).map(|value| value & mask)
    };
    // Each size is a run of sixteen in the order of their encoding; the byte registers come before them.
    from(Register::RAX, u64::MAX)
        .or_else(|| from(Register::EAX, 0xffff_ffff))
        .or_else(|| from(Register::AX, 0xffff))
}

fn set_general(cpu: &mut Cpu, register: Register, value: u64) {
    let regs = &mut cpu.regs;
    let all = [
        &mut regs.rax,
        &mut regs.rcx,
        &mut regs.rdx,
        &mut regs.rbx,
        &mut regs.rsp,
        &mut regs.rbp,
        &mut regs.rsi,
        &mut regs.rdi,
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r11,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
    ];
    for (index, slot) in all.into_iter().enumerate() {
        if register as usize == Register::RAX as usize + index {
            *slot = value;
        } else if register as usize == Register::EAX as usize + index {
            *slot = value & 0xffff_ffff;
        } else if register as usize == Register::AX as usize + index {
            *slot = *slot & !0xffff | value & 0xffff;
        }
    }
}

/// The address of an instruction's memory operand.
fn address(cpu: &Cpu, instruction: &Instruction, operand: u32) -> Result<u64, Exception> {
    let register = |register: Register, _, _| match register {
        Register::FS => Some(cpu.fs_base),
        Register::GS => Some(cpu.gs_base),
        Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
        register => general(cpu, register),
    };
    let address = instruction.virtual_address(operand, 0, register);
    let on_stack = instruction.memory_segment() == Register::SS;
    address.filter(|&address| is_canonical(address)).ok_or(match on_stack {
        true => NOT_ON_THE_STACK,
        false => Exception::general_protection(0),
    })
}

/// What a stack at a non-canonical address causes.
const NOT_ON_THE_STACK: Exception = Exception::fault(vector::STACK, Some(0));

/// What is on the stack.
fn on_stack<T: FromBytes + IntoBytes>(memory: &GuestMemory, address: u64) -> Result<T, Exception> {
    if is_canonical(address) { Ok(memory.read(address)?) } else { Err(NOT_ON_THE_STACK) }
}

fn operand16(
    cpu: &Cpu,
    memory: &GuestMemory,
    instruction: &Instruction,
    operand: u32,
) -> Result<u16, Exception> {
    if instruction.op_kind(operand) == OpKind::Register {
        let value = general(cpu, instruction.op_register(operand)).unwrap_or(0);
        return Ok(word(value));
    }
    Ok(memory.read(address(cpu, instruction, operand)?)?)
}

fn load_table(cpu: &Cpu, memory: &GuestMemory, instruction: &Instruction) -> Result<Table, Exception> {
    let bytes: [u8; 10] = memory.read(address(cpu, instruction, 0)?)?;
    let [a, b, base @ ..] = bytes;
    let table = Table { base: u64::from_le_bytes(base), limit: u16::from_le_bytes([a, b]) };
    if is_canonical(table.base) { Ok(table) } else { Err(Exception::general_protection(0)) }
}

fn store_table(
    cpu: &Cpu,
    memory: &GuestMemory,
    instruction: &Instruction,
    table: Table,
) -> Result<(), Exception> {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    Ok(memory.write(address(cpu, instruction, 0)?, &bytes)?)
}

/// The operand of `str`, `sldt` and `smsw`: a register, or 16 bits of memory.
fn store_word(
    cpu: &mut Cpu,
    memory: &GuestMemory,
    instruction: &Instruction,
    value: u64,
) -> Result<(), Exception> {
    if instruction.op_kind(0) == OpKind::Register {
        set_general(cpu, instruction.op_register(0), value);
        return Ok(());
    }
    Ok(memory.write(address(cpu, instruction, 0)?, &word(value))?)
}

fn load_task(cpu: &mut Cpu, memory: &GuestMemory, selector: u16) -> Result<(), Exception> {
    const AVAILABLE: u8 = 9;
    const BUSY: u64 = 2 << 40;
    let code = u32::from(selector & !3);
    if code == 0 {
        return Err(Exception::general_protection(0));
    }
    let wrong = Exception::general_protection(code);
    let low = cpu.descriptor(memory, selector)?;
    let table = cpu.gdt.ok_or(wrong)?;
    let place = u64::from(selector & !7);
    if place + 15 > u64::from(table.limit) || low.is_segment() || low.kind() != AVAILABLE {
        return Err(wrong);
    }
    if !low.is_present() {
        return Err(Exception::fault(vector::NOT_PRESENT, Some(code)));
    }
    let place = table.base.wrapping_add(place);
    let high: u64 = memory.read(place.wrapping_add(8))?;
    memory.write(place, &(low.0 | BUSY))?;
    cpu.task = Some(Task { selector, base: low.base() | high << 32, limit: low.limit() });
    Ok(())
}

fn mov(
    cpu: &mut Cpu,
    memory: &GuestMemory,
    instruction: &Instruction,
    exception: Exception,
) -> Result<Step, Exception> {
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    match instruction.code() {
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16 => {
            let selector = operand16(cpu, memory, instruction, 1)?;
            load_segment(cpu, memory, to, selector)?;
        }
        Code::Mov_r64_cr => match from {
            Register::CR2 => set_general(cpu, to, cpu.cr2),
            Register::CR0 => set_general(cpu, to, control_register(0).unwrap_or(0)),
            Register::CR4 => set_general(cpu, to, control_register(4).unwrap_or(0)),
            _ => return Ok(Step::Unsupported),
        },
        Code::Mov_cr_r64 if to == Register::CR2 => cpu.cr2 = general(cpu, from).unwrap_or(0),
        Code::Mov_cr_r64 | Code::Mov_r64_dr | Code::Mov_dr_r64 => return Ok(Step::Unsupported),
        _ => return Err(exception),
    }
    Ok(Step::Done)
}

/// Only FS and GS have a base that counts; the others' descriptors are checked and nothing more.
fn load_segment(
    cpu: &mut Cpu,
    memory: &GuestMemory,
    register: Register,
    selector: u16,
) -> Result<(), Exception> {
    let code = u32::from(selector & !3);
    let wrong = Exception::general_protection(code);
    let [requested, _] = (selector & 3).to_le_bytes();
    let stack = register == Register::SS;
    if code == 0 {
        // In 64-bit mode SS may be null too, outside ring 3.
        match register {
            Register::SS if requested != 0 => return Err(Exception::general_protection(0)),
            Register::SS => cpu.ss = selector,
            Register::FS => cpu.fs_base = 0,
            Register::GS => cpu.gs_base = 0,
            _ => {}
        }
        return Ok(());
    }
    let descriptor = cpu.descriptor(memory, selector)?;
    let allowed = if stack {
        descriptor.is_writable_data() && requested == 0 && descriptor.privilege() == 0
    } else {
        descriptor.is_readable() && (descriptor.is_conforming_code() || requested <= descriptor.privilege())
    };
    if !allowed {
        return Err(wrong);
    }
    if !descriptor.is_present() {
        let vector = if stack { vector::STACK } else { vector::NOT_PRESENT };
        return Err(Exception::fault(vector, Some(code)));
    }
    match register {
        Register::SS => cpu.ss = selector,
        Register::FS => cpu.fs_base = descriptor.base(),
        Register::GS => cpu.gs_base = descriptor.base(),
        _ => {}
    }
    Ok(())
}

fn far_return(cpu: &mut Cpu, memory: &GuestMemory, instruction: &Instruction) -> Result<Step, Exception> {
    let size = match instruction.code() {
        Code::Retfq | Code::Retfq_imm16 => 8,
        Code::Retfd | Code::Retfd_imm16 => 4,
        _ => return Ok(Step::Unsupported),
    };
    let pop = |slot: u64| -> Result<u64, Exception> {
        let address = cpu.regs.rsp.wrapping_add(slot * size);
        Ok(if size == 8 { on_stack(memory, address)? } else { u64::from(on_stack::<u32>(memory, address)?) })
    };
    let (rip, selector) = (pop(0)?, word(pop(1)?));
    let released = if instruction.op_count() == 1 { u64::from(instruction.immediate16()) } else { 0 };
    if selector & 3 != 0 && selector & !3 != 0 {
        // To a ring with less rights, where a guest never goes.
        return Ok(Step::Unsupported);
    }
    cpu.check_code(memory, selector)?;
    if !is_canonical(rip) {
        return Err(Exception::general_protection(0));
    }
    cpu.cs = selector;
    cpu.regs.rip = rip;
    cpu.regs.rsp = cpu.regs.rsp.wrapping_add(2 * size + released);
    Ok(Step::Done)
}

fn interrupt_return(cpu: &mut Cpu, memory: &GuestMemory) -> Result<Step, Exception> {
    let [rip, cs, rflags, rsp, ss]: [u64; 5] = on_stack(memory, cpu.regs.rsp)?;
    if cpu.guest_flags() & flags::NT != 0 {
        return Err(Exception::general_protection(0));
    }
    let (cs, ss) = (word(cs), word(ss));
    if cs & 3 != 0 && cs & !3 != 0 {
        return Ok(Step::Unsupported);
    }
    cpu.check_code(memory, cs)?;
    if !is_canonical(rip) {
        return Err(Exception::general_protection(0));
    }
    load_segment(cpu, memory, Register::SS, ss)?;
    cpu.cs = cs;
    cpu.regs.rip = rip;
    cpu.regs.rsp = rsp;
    cpu.interrupts = rflags & flags::IF != 0;
    cpu.regs.rflags = rflags;
    Ok(Step::Done)
}

const fn joined(cpu: &Cpu) -> u64 {
    cpu.regs.rdx << 32 | cpu.regs.rax & 0xffff_ffff
}

fn write_msr(cpu: &mut Cpu) -> Step {
    let value = joined(cpu);
    let base = match cpu.regs.rcx & 0xffff_ffff {
        FS_BASE => &mut cpu.fs_base,
        GS_BASE => &mut cpu.gs_base,
        _ => return Step::Unsupported,
    };
    if !is_canonical(value) {
        return Step::Raise(Exception::general_protection(0));
    }
    *base = value;
    Step::Done
}

fn read_msr(cpu: &mut Cpu) -> Step {
    let value = match cpu.regs.rcx & 0xffff_ffff {
        FS_BASE => cpu.fs_base,
        GS_BASE => cpu.gs_base,
        _ => return Step::Unsupported,
    };
    cpu.regs.rax = value & 0xffff_ffff;
    cpu.regs.rdx = value >> 32;
    Step::Done
}

fn port(cpu: &Cpu, instruction: &Instruction) -> u16 {
    let immediate = (0..instruction.op_count())
        .find(|&operand| instruction.op_kind(operand) == OpKind::Immediate8)
        .map(|_| u16::from(instruction.immediate8()));
    immediate.unwrap_or(word(cpu.regs.rdx))
}

#[cfg(test)]
mod tests;
