//! The guest's processor as the guest sees it: in ring 0, with the tables that it loaded. The real one runs the
//! guest in ring 3 with the monitor's tables.

use super::{
    arch::{self, Table},
    memory::{Access, BadAccess, GuestMemory},
};
use kvm_bindings::kvm_regs;

/// Flags of `rflags`.
pub mod flags {
    pub const FIXED: u64 = 1 << 1;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIRTUAL: u64 = 3 << 19;
    /// All that exist: the six of arithmetic, TF, IF, DF, IOPL, NT, RF, VM, AC, VIF and VIP, and ID.
    pub const DEFINED: u64 = 0x3f_7fd7;
}

/// An exception that the guest is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    pub vector: u8,
    pub error_code: Option<u32>,
    /// The address, for a page fault.
    pub address: Option<u64>,
    /// Raised by an instruction that is done (a trap), not by one that is to be repeated (a fault).
    pub trap: bool,
    /// The address of the instruction, for an interrupt that the guest asked for.
    pub software: Option<u64>,
}

/// Vectors by name.
pub mod vector {
    pub const DIVIDE: u8 = 0;
    pub const DEBUG: u8 = 1;
    pub const BREAKPOINT: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const INVALID_OPCODE: u8 = 6;
    pub const DOUBLE_FAULT: u8 = 8;
    pub const NOT_PRESENT: u8 = 11;
    pub const STACK: u8 = 12;
    pub const GENERAL_PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
    pub const FLOATING_POINT: u8 = 16;
    pub const ALIGNMENT: u8 = 17;
    pub const SIMD: u8 = 19;
}

/// Bits of a page fault's error code.
pub mod page_fault {
    pub const PRESENT: u32 = 1;
    pub const WRITE: u32 = 1 << 1;
    pub const FETCH: u32 = 1 << 4;
}

impl Exception {
    pub const fn fault(vector: u8, error_code: Option<u32>) -> Self {
        Self { vector, error_code, address: None, trap: false, software: None }
    }

    pub const fn general_protection(error_code: u32) -> Self {
        Self::fault(vector::GENERAL_PROTECTION, Some(error_code))
    }
}

impl From<BadAccess> for Exception {
    fn from(BadAccess { address, access, mapped }: BadAccess) -> Self {
        // Canonical or not: guests that name such an address get to see a page fault's address either way.
        let present = if mapped { page_fault::PRESENT } else { 0 };
        let kind = match access {
            Access::Read => 0,
            Access::Write => page_fault::WRITE,
            Access::Execute => page_fault::FETCH,
        };
        if !is_canonical(address) {
            return Self::general_protection(0);
        }
        Self { address: Some(address), ..Self::fault(vector::PAGE_FAULT, Some(present | kind)) }
    }
}

/// Whether bits 47 to 63 are all the same.
pub const fn is_canonical(address: u64) -> bool {
    let upper = address.cast_signed() >> 47;
    upper == 0 || upper == -1
}

/// A segment descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    pub const fn kind(self) -> u8 {
        self.0.to_le_bytes()[5] & 0xf
    }
    /// Code or data, not a system segment.
    pub const fn is_segment(self) -> bool {
        self.0 >> 44 & 1 == 1
    }
    pub const fn is_code(self) -> bool {
        self.is_segment() && self.kind() & 8 != 0
    }
    pub const fn is_writable_data(self) -> bool {
        self.is_segment() && self.kind() & 0b1010 == 0b0010
    }
    pub const fn is_readable(self) -> bool {
        self.is_segment() && (!self.is_code() || self.kind() & 2 != 0)
    }
    pub const fn is_conforming_code(self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }
    pub const fn privilege(self) -> u8 {
        self.0.to_le_bytes()[5] >> 5 & 3
    }
    pub const fn is_present(self) -> bool {
        self.0 >> 47 & 1 == 1
    }
    /// L set and D clear.
    pub const fn is_64_bit(self) -> bool {
        self.0 >> 53 & 0b11 == 0b01
    }
    pub const fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000
    }
    /// In bytes.
    pub const fn limit(self) -> u64 {
        let limit = self.0 & 0xffff | self.0 >> 32 & 0xf_0000;
        if self.0 >> 55 & 1 == 1 { limit << 12 | 0xfff } else { limit }
    }
}

/// The registers of a guest in ring 0.
#[derive(Debug, Clone)]
pub struct Cpu {
    /// General registers, rip and rflags.
    pub regs: kvm_regs,
    pub fs_base: u64,
    pub gs_base: u64,
    pub cs: u16,
    pub ss: u16,
    /// The GDT that the guest loaded; before that there is one with code at 8 and data at 0x10.
    pub gdt: Option<Table>,
    pub idt: Table,
    pub task: Option<Task>,
    pub cr2: u64,
    /// The interrupt flag. No interrupt ever comes.
    pub interrupts: bool,
}

/// The task state segment that the guest loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    pub selector: u16,
    pub base: u64,
    pub limit: u64,
}

impl Cpu {
    pub const fn new(regs: kvm_regs) -> Self {
        Self {
            regs,
            fs_base: 0,
            gs_base: 0,
            cs: 0x08,
            ss: 0x10,
            gdt: None,
            idt: Table { base: 0, limit: 0 },
            task: None,
            cr2: 0,
            interrupts: false,
        }
    }

    /// `rflags` as the guest sees them.
    pub const fn guest_flags(&self) -> u64 {
        let hidden = flags::IF | flags::IOPL | flags::VM | flags::VIRTUAL;
        let shown = self.regs.rflags & flags::DEFINED & !hidden | flags::FIXED;
        if self.interrupts { shown | flags::IF } else { shown }
    }

    /// `rflags` that the real processor may have: nothing in them gives a privilege, or checks alignment.
    pub const fn real_flags(&self) -> u64 {
        self.guest_flags() & !flags::AC
    }

    /// The descriptor that a selector names, with its address if it is in guest memory.
    pub fn descriptor(&self, memory: &GuestMemory, selector: u16) -> Result<Descriptor, Exception> {
        let outside = Exception::general_protection(u32::from(selector & !3));
        let offset = u64::from(selector & !7);
        if selector & 4 != 0 {
            // There is no LDT.
            return Err(outside);
        }
        match self.gdt {
            None => match selector & !7 {
                0x08 => Ok(Descriptor(0x00af_9b00_0000_ffff)),
                0x10 => Ok(Descriptor(0x00cf_9300_0000_ffff)),
                _ => Err(outside),
            },
            Some(table) if offset + 7 > u64::from(table.limit) => Err(outside),
            Some(table) => Ok(Descriptor(memory.read(table.base.wrapping_add(offset))?)),
        }
    }

    /// Whether code may be run with this selector: 64-bit code of ring 0.
    pub fn check_code(&self, memory: &GuestMemory, selector: u16) -> Result<(), Exception> {
        let code = u32::from(selector & !3);
        if selector & !3 == 0 {
            return Err(Exception::general_protection(0));
        }
        let descriptor = self.descriptor(memory, selector)?;
        if !descriptor.is_code() || descriptor.privilege() != 0 || !descriptor.is_64_bit() {
            return Err(Exception::general_protection(code));
        }
        if !descriptor.is_present() {
            return Err(Exception::fault(vector::NOT_PRESENT, Some(code)));
        }
        Ok(())
    }

    /// Enters the gate that the guest declared for an exception. Where that fails, the guest sees the exception that
    /// this causes in turn, or a double fault. `Err` when nothing is left: hardware would reset.
    ///
    /// Source: SDM volume 3A, tables 6-4 and 6-5.
    pub fn deliver(&mut self, memory: &GuestMemory, exception: Exception) -> Result<(), Exception> {
        let start = self.clone();
        let mut current = exception;
        loop {
            let Err(next) = self.enter_gate(memory, current) else { return Ok(()) };
            self.regs.rip = current.software.unwrap_or(self.regs.rip);
            current = match (class(current.vector), class(next.vector)) {
                (Class::DoubleFault, _) => {
                    *self = start;
                    // Where the instruction is that caused it, not where it would have gone on.
                    self.regs.rip = exception.software.unwrap_or(self.regs.rip);
                    return Err(exception);
                }
                (Class::Contributory, Class::Contributory)
                | (Class::PageFault, Class::Contributory | Class::PageFault) => {
                    Exception::fault(vector::DOUBLE_FAULT, Some(0))
                }
                _ => next,
            };
        }
    }

    /// Source: SDM volume 3A, 6.14, and the operation of `INT n` in volume 2A.
    fn enter_gate(&mut self, memory: &GuestMemory, exception: Exception) -> Result<(), Exception> {
        // Bit 1: the index is one of the IDT; bit 0: no instruction asked for this.
        let external = u32::from(exception.software.is_none());
        let missing = Exception::general_protection(u32::from(exception.vector) * 8 + 2 + external);
        let offset = u64::from(exception.vector) * 16;
        if offset + 15 > u64::from(self.idt.limit) {
            return Err(missing);
        }
        let [low, high]: [u64; 2] = memory.read(self.idt.base.wrapping_add(offset))?;
        let kind = low >> 40 & 0x1f;
        if !matches!(kind, 0xe | 0xf) {
            return Err(missing);
        }
        if low >> 47 & 1 == 0 {
            return Err(Exception { vector: vector::NOT_PRESENT, ..missing });
        }
        let [_, _, a, b, ..] = low.to_le_bytes();
        let selector = u16::from_le_bytes([a, b]);
        self.check_code(memory, selector)?;
        let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        if !is_canonical(target) {
            return Err(Exception::general_protection(0));
        }
        let stack = match low >> 32 & 7 {
            0 => self.regs.rsp,
            ist => self.interrupt_stack(memory, ist)?,
        };

        let mut rflags = self.guest_flags();
        // Faults are to be resumed without hitting the same breakpoint; traps have left it behind.
        rflags = if exception.trap { rflags & !flags::RF } else { rflags | flags::RF };
        let frame = [self.regs.rip, u64::from(self.cs), rflags, self.regs.rsp, u64::from(self.ss)];
        let mut top = (stack & !15).wrapping_sub(size_of_val(&frame) as u64);
        memory.check(top, size_of_val(&frame) as u64, Access::Write)?;
        if let Some(code) = exception.error_code {
            let slot = top.wrapping_sub(8);
            memory.write(slot, &u64::from(code))?;
            memory.write(top, &frame)?;
            top = slot;
        } else {
            memory.write(top, &frame)?;
        }

        if let Some(address) = exception.address {
            self.cr2 = address;
        }
        self.regs.rsp = top;
        self.regs.rip = target;
        self.cs = selector & !3;
        if kind == 0xe {
            self.interrupts = false;
        }
        self.regs.rflags = rflags & !(flags::TF | flags::NT | flags::RF);
        Ok(())
    }

    fn interrupt_stack(&self, memory: &GuestMemory, ist: u64) -> Result<u64, Exception> {
        let bad = |task: Option<Task>| {
            Exception::fault(10, Some(u32::from(task.map_or(0, |task| task.selector & !3))))
        };
        let task = self.task.ok_or(bad(None))?;
        let offset = 36 + 8 * (ist - 1);
        if offset + 7 > task.limit {
            return Err(bad(Some(task)));
        }
        let stack: u64 = memory.read(task.base.wrapping_add(offset))?;
        if is_canonical(stack) { Ok(stack) } else { Err(Exception::fault(vector::STACK, Some(0))) }
    }
}

/// How exceptions combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

const fn class(vector: u8) -> Class {
    match vector {
        0 | 10..=13 => Class::Contributory,
        14 => Class::PageFault,
        8 => Class::DoubleFault,
        _ => Class::Benign,
    }
}

/// The control registers that a guest reads: what the ABI promises.
pub const fn control_register(number: u32) -> Option<u64> {
    match number {
        0 => Some(arch::CR0),
        4 => Some(arch::CR4),
        _ => None,
    }
}
