//! Tests of instructions, on guest memory without KVM.

use super::*;
use crate::backend::kvm::{arch, cpu::page_fault, memory::MemoryOptions};
use kvm_bindings::kvm_regs;
use nabla_core::{Permissions, elf::PageRange};

const SIZE: u64 = 4 << 20;
const TEXT: u64 = 0x10_0000;
const GDT: u64 = 0x20_0000;
const IDT: u64 = 0x20_1000;
const TSS: u64 = 0x20_3000;
const DATA: u64 = 0x21_0000;
const STACK: u64 = 0x30_0000;

const CODE: u64 = 0x00af_9900_0000_ffff;
const FLAT: u64 = 0x00cf_9300_0000_ffff;

/// A guest that has loaded its tables: code at 8, data at 0x10, a TSS at 0x18, and oddities after it.
fn guest(code: &[u8]) -> (Cpu, GuestMemory) {
    let text = Permissions { read: true, write: false, execute: true };
    let image = vec![PageRange { pages: TEXT..TEXT + 0x1000, permissions: text }];
    let memory = GuestMemory::new(SIZE, arch::regions(image, SIZE, false), MemoryOptions::default()).unwrap();
    memory.place(TEXT, code).unwrap();
    let tss = 0x67 | (TSS & 0xff_ffff) << 16 | 0x89 << 40 | (TSS >> 24 & 0xff) << 56;
    let absent = FLAT & !(1 << 47);
    let with_base = FLAT | 0x12_3456 << 16 | 0x78 << 56;
    let table = [
        0,
        CODE,
        FLAT,
        tss,
        TSS >> 32,
        absent,
        with_base,
        CODE & !(1 << 53),
        CODE | 3 << 45,
        CODE & !(1 << 47),
    ];
    memory.place(GDT, table.map(u64::to_le_bytes).as_flattened()).unwrap();
    let regs = kvm_regs { rip: TEXT, rsp: STACK, rflags: 2, ..kvm_regs::default() };
    let mut cpu = Cpu::new(regs);
    cpu.gdt = Some(Table { base: GDT, limit: 79 });
    (cpu, memory)
}

const GP: Exception = Exception::general_protection(0);

#[test]
fn tables_are_loaded_and_told() {
    // lgdt [rax]; lidt [rax]
    for (code, idt) in [([0x0f, 0x01, 0x10], false), ([0x0f, 0x01, 0x18], true)] {
        let (mut cpu, memory) = guest(&code);
        cpu.regs.rax = DATA + 3;
        memory.place(DATA + 3, &[0x2f, 0x01, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0]).unwrap();
        assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
        let table = Table { base: 0x1234_5678, limit: 0x12f };
        assert_eq!(if idt { cpu.idt } else { cpu.gdt.unwrap() }, table);
        assert_eq!(cpu.regs.rip, TEXT + 3);
        // A base that is not canonical.
        let (mut cpu, memory) = guest(&code);
        cpu.regs.rax = DATA;
        memory.place(DATA, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]).unwrap();
        assert_eq!(step(&mut cpu, &memory, GP), Step::Raise(GP));
        assert_eq!((cpu.regs.rip, cpu.gdt), (TEXT, Some(Table { base: GDT, limit: 79 })));
        // An operand that is not there.
        cpu.regs.rax = SIZE - 4;
        let Step::Raise(raised) = step(&mut cpu, &memory, GP) else { panic!() };
        assert_eq!((raised.vector, raised.address, raised.error_code), (14, Some(SIZE), Some(0)));
    }
    // sgdt [rax]; sidt [rax]: what the guest loaded, not what the monitor has.
    let (mut cpu, memory) = guest(&[0x0f, 0x01, 0x00]);
    cpu.regs.rax = DATA;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    let mut expected = [0; 10];
    expected[0] = 79;
    expected[2..].copy_from_slice(&GDT.to_le_bytes());
    assert_eq!(memory.read::<[u8; 10]>(DATA).unwrap(), expected);
    // ... but not to where the guest could not write.
    cpu.regs.rip = TEXT;
    cpu.regs.rax = TEXT + 0x100;
    let Step::Raise(raised) = step(&mut cpu, &memory, GP) else { panic!() };
    assert_eq!(raised.error_code, Some(page_fault::PRESENT | page_fault::WRITE));
}

#[test]
fn segments_are_checked_against_the_guests_table() {
    // mov ss, eax; mov ds, eax
    let (ss, ds, fs) = ([0x8e, 0xd0], [0x8e, 0xd8], [0x8e, 0xe0]);
    let not_present = |selector| Step::Raise(Exception::fault(vector::NOT_PRESENT, Some(selector)));
    let wrong = |selector| Step::Raise(Exception::general_protection(selector));
    for (code, selector, expected) in [
        (ss, 0x10, Step::Done),
        (ds, 0x10, Step::Done),
        (ds, 0x13, wrong(0x10)),
        (ds, 0, Step::Done),
        (ds, 3, Step::Done),
        (ss, 0, Step::Done),
        (ss, 3, wrong(0)),
        (ss, 8, wrong(8)),
        (ss, 0x11, wrong(0x10)),
        // Code that cannot be read.
        (ds, 8, wrong(8)),
        // A system segment, and one that is not present.
        (ds, 0x18, wrong(0x18)),
        (ds, 0x28, not_present(0x28)),
        (ss, 0x28, Step::Raise(Exception::fault(vector::STACK, Some(0x28)))),
        // Behind the table, and in the LDT that does not exist.
        (ds, 0x50, wrong(0x50)),
        (ds, 0x14, wrong(0x14)),
        (fs, 0x30, Step::Done),
    ] {
        let (mut cpu, memory) = guest(&code);
        cpu.regs.rax = selector;
        assert_eq!(step(&mut cpu, &memory, GP), expected, "{code:x?} {selector:#x}");
        let done = expected == Step::Done;
        assert_eq!(cpu.regs.rip, if done { TEXT + 2 } else { TEXT }, "{selector:#x}");
        if code == fs {
            assert_eq!(cpu.fs_base, 0x7812_3456);
        }
        if code == ss && done {
            assert_eq!(u64::from(cpu.ss), selector);
        }
    }
}

#[test]
fn far_returns_check_what_they_return_to() {
    let retfq = [0x48, 0xcb];
    let wrong = |selector| Step::Raise(Exception::general_protection(selector));
    for (rip, selector, expected) in [
        (TEXT + 8, 8, Step::Done),
        (TEXT + 8, 0, wrong(0)),
        (TEXT + 8, 0x10, wrong(0x10)),
        (TEXT + 8, 0x18, wrong(0x18)),
        // Not 64-bit, of another ring, not present.
        (TEXT + 8, 0x38, wrong(0x38)),
        (TEXT + 8, 0x40, wrong(0x40)),
        (TEXT + 8, 0x48, Step::Raise(Exception::fault(vector::NOT_PRESENT, Some(0x48)))),
        (TEXT + 8, 0xb, Step::Unsupported),
        (1 << 47, 8, wrong(0)),
    ] {
        let (mut cpu, memory) = guest(&retfq);
        memory.write(STACK, &[rip, selector]).unwrap();
        assert_eq!(step(&mut cpu, &memory, GP), expected, "{rip:#x} {selector:#x}");
        let done = expected == Step::Done;
        assert_eq!((cpu.regs.rip, cpu.regs.rsp), if done { (rip, STACK + 16) } else { (TEXT, STACK) });
    }
    // retf 0x20, with slots of four bytes.
    let (mut cpu, memory) = guest(&[0xca, 0x20, 0]);
    memory.write(STACK, &[0x10_0008_u32, 8]).unwrap();
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!((cpu.regs.rip, cpu.regs.rsp), (0x10_0008, STACK + 8 + 0x20));
}

#[test]
fn interrupts_are_returned_from() {
    let (mut cpu, memory) = guest(&[0x48, 0xcf]);
    memory.write(STACK, &[TEXT + 0x40, 8, 0x1_0246_u64, DATA, 0x10]).unwrap();
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!((cpu.regs.rip, cpu.regs.rsp, cpu.interrupts), (TEXT + 0x40, DATA, true));
    assert_eq!(cpu.guest_flags(), 0x1_0246);
    let (mut cpu, memory) = guest(&[0x48, 0xcf]);
    memory.write(STACK, &[TEXT, 8, 2_u64, DATA, 8]).unwrap();
    assert_eq!(step(&mut cpu, &memory, GP), Step::Raise(Exception::general_protection(8)));
    // No flag that is a privilege gets to the processor.
    let (mut cpu, memory) = guest(&[0x48, 0xcf]);
    memory.write(STACK, &[TEXT, 8, u64::MAX, DATA, 0x10]).unwrap();
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!(cpu.real_flags() & (flags::IOPL | flags::VM | flags::VIRTUAL | flags::AC), 0);
}

#[test]
fn task_registers_take_an_available_tss_and_mark_it() {
    let ltr = [0x0f, 0x00, 0xd8];
    let (mut cpu, memory) = guest(&ltr);
    cpu.regs.rax = 0x18;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!(cpu.task, Some(Task { selector: 0x18, base: TSS, limit: 0x67 }));
    assert_eq!(memory.read::<u64>(GDT + 0x18).unwrap() >> 40 & 0xf, 11, "busy");
    // Once more: it is not available any more.
    cpu.regs.rip = TEXT;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Raise(Exception::general_protection(0x18)));
    for selector in [0, 8, 0x10, 0x48, 0x50, 0x1c] {
        let (mut cpu, memory) = guest(&ltr);
        cpu.regs.rax = selector;
        let code = u32::try_from(selector).unwrap();
        assert_eq!(step(&mut cpu, &memory, GP), Step::Raise(Exception::general_protection(code)));
    }
}

#[test]
fn registers_of_the_model_are_those_of_the_thread_pointer() {
    for (register, value, expected) in [
        (FS_BASE, 0x7fff_1234_5678, Step::Done),
        (GS_BASE, 0xffff_8000_0000_0000, Step::Done),
        (FS_BASE, 1 << 47, Step::Raise(GP)),
        (0xc000_0080, 0, Step::Unsupported),
        (0xc000_0082, 0, Step::Unsupported),
        (0x1b, 0, Step::Unsupported),
    ] {
        let (mut cpu, memory) = guest(&[0x0f, 0x30]);
        (cpu.regs.rcx, cpu.regs.rax, cpu.regs.rdx) = (register | 7 << 32, value & 0xffff_ffff, value >> 32);
        assert_eq!(step(&mut cpu, &memory, GP), expected, "{register:#x}");
        if expected == Step::Done {
            memory.place(TEXT, &[0x0f, 0x32]).unwrap();
            (cpu.regs.rip, cpu.regs.rax, cpu.regs.rdx) = (TEXT, u64::MAX, u64::MAX);
            assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
            assert_eq!(joined(&cpu), value);
            assert!(cpu.regs.rax <= 0xffff_ffff);
        }
    }
}

#[test]
fn interrupt_flag_and_control_registers() {
    let (mut cpu, memory) = guest(&[0xfb]);
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert!(cpu.guest_flags() & flags::IF != 0);
    let (mut cpu, memory) = guest(&[0xfa]);
    cpu.interrupts = true;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert!(cpu.guest_flags() & flags::IF == 0);
    // mov r10, cr2; mov cr2, rbx
    let (mut cpu, memory) = guest(&[0x41, 0x0f, 0x20, 0xd2]);
    cpu.cr2 = 0x1234_5678_9abc;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!((cpu.regs.r10, cpu.regs.rip), (0x1234_5678_9abc, TEXT + 4));
    let (mut cpu, memory) = guest(&[0x0f, 0x22, 0xd3]);
    cpu.regs.rbx = 7;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!(cpu.cr2, 7);
}

#[test]
fn what_is_not_privileged_keeps_its_exception() {
    // mov rax, [rbx]; movaps xmm0, [rbx]; an invalid opcode.
    for code in [&[0x48, 0x8b, 0x03][..], &[0x0f, 0x28, 0x03], &[0x0f, 0xff]] {
        let (mut cpu, memory) = guest(code);
        cpu.regs.rbx = 1 << 63;
        for exception in [GP, Exception::fault(vector::INVALID_OPCODE, None)] {
            assert_eq!(step(&mut cpu, &memory, exception), Step::Raise(exception), "{code:x?}");
            assert_eq!(cpu.regs.rip, TEXT);
        }
    }
    // Nothing can be decoded where nothing can be executed.
    let (mut cpu, memory) = guest(&[0xf4]);
    cpu.regs.rip = DATA;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Raise(GP));
}

#[test]
fn ports_are_told() {
    for (code, port) in [
        (&[0xee][..], 0x505),
        (&[0xef], 0x505),
        (&[0xed], 0x505),
        (&[0xe6, 0x80], 0x80),
        (&[0xe5, 0x60], 0x60),
        (&[0x6e], 0x505),
        (&[0xf3, 0x6d], 0x505),
    ] {
        let (mut cpu, memory) = guest(code);
        cpu.regs.rdx = 0xffff_0505;
        assert_eq!(step(&mut cpu, &memory, GP), Step::Port(port), "{code:x?}");
    }
}

#[test]
fn several_in_a_row_are_done_at_once_and_the_first_odd_one_is_left() {
    // mov ss, eax; mov ds, eax; mov es, eax; nop
    let (mut cpu, memory) = guest(&[0x8e, 0xd0, 0x8e, 0xd8, 0x8e, 0xc0, 0x90]);
    cpu.regs.rax = 0x10;
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!(cpu.regs.rip, TEXT + 6);
    // mov ss, eax; mov ds, ecx with a bad selector
    let (mut cpu, memory) = guest(&[0x8e, 0xd0, 0x8e, 0xd9]);
    (cpu.regs.rax, cpu.regs.rcx) = (0x10, 0x60);
    assert_eq!(step(&mut cpu, &memory, GP), Step::Done);
    assert_eq!((cpu.regs.rip, cpu.ss), (TEXT + 2, 0x10));
}

#[test]
fn single_step_is_taken_behind_an_instruction_that_was_emulated() {
    let (mut cpu, memory) = guest(&[0xfa, 0xfa]);
    cpu.regs.rflags |= flags::TF;
    let Step::Raise(raised) = step(&mut cpu, &memory, GP) else { panic!() };
    assert_eq!((raised.vector, raised.trap, cpu.regs.rip), (1, true, TEXT + 1));
}

/// A gate of `kind` for `vector`.
fn gate(memory: &GuestMemory, vector: u64, selector: u64, ist: u64, kind: u64, target: u64) {
    let low = target & 0xffff | selector << 16 | ist << 32 | kind << 40 | (target >> 16 & 0xffff) << 48;
    memory.write(IDT + vector * 16, &[low, target >> 32]).unwrap();
}

#[test]
fn frames_are_what_hardware_pushes() {
    for (kind, ist, code, trap) in [
        (0x8e_u64, 0, None, false),
        (0x8f, 0, Some(7), false),
        (0x8e, 2, Some(0), false),
        (0x8e, 0, None, true),
    ] {
        let (mut cpu, memory) = guest(&[0x90]);
        cpu.idt = Table { base: IDT, limit: 0x1ff };
        cpu.task = Some(Task { selector: 0x18, base: TSS, limit: 0x67 });
        cpu.interrupts = true;
        cpu.regs.rflags = 0x46 | flags::TF;
        cpu.regs.rsp = STACK - 3;
        memory.write(TSS + 44, &(DATA + 0x1008)).unwrap();
        gate(&memory, 13, 8, ist, kind, TEXT + 0x123);
        let exception = Exception { trap, ..Exception::fault(13, code) };
        assert_eq!(cpu.deliver(&memory, exception), Ok(()));

        let stack = if ist == 0 { (STACK - 3) & !15 } else { DATA + 0x1000 };
        let mut frame = stack - 40;
        if let Some(code) = code {
            frame -= 8;
            assert_eq!(memory.read::<u64>(frame).unwrap(), u64::from(code));
        }
        assert_eq!(cpu.regs.rsp, frame);
        let [rip, cs, rflags, rsp, ss]: [u64; 5] = memory.read(stack - 40).unwrap();
        let resume = if trap { 0 } else { flags::RF };
        assert_eq!(
            [rip, cs, rflags, rsp, ss],
            [TEXT, 8, 0x46 | flags::TF | flags::IF | resume, STACK - 3, 0x10]
        );
        assert_eq!(cpu.regs.rip, TEXT + 0x123);
        assert_eq!(cpu.guest_flags() & (flags::TF | flags::RF), 0);
        assert_eq!(cpu.interrupts, kind == 0x8f, "interrupt gates clear IF, trap gates do not");
    }
}

#[test]
fn failing_gates_become_the_exceptions_of_the_manuals_table() {
    let deliver = |prepare: &dyn Fn(&mut Cpu, &GuestMemory), exception| {
        let (mut cpu, memory) = guest(&[0x90]);
        cpu.idt = Table { base: IDT, limit: 0x1ff };
        for vector in [8, 11, 13, 14] {
            gate(&memory, vector, 8, 0, 0x8e, TEXT + vector);
        }
        prepare(&mut cpu, &memory);
        let result = cpu.deliver(&memory, exception);
        (result, cpu.regs.rip - TEXT, memory.read::<u64>(cpu.regs.rsp).unwrap_or(0))
    };
    let ud = Exception::fault(6, None);
    // No gate: #GP for entry 6 of the IDT, by an event that no instruction asked for.
    assert_eq!(deliver(&|_, _| (), ud), (Ok(()), 13, 6 * 8 + 3));
    let not_present = |_: &mut Cpu, memory: &GuestMemory| gate(memory, 6, 8, 0, 0x0e, TEXT);
    assert_eq!(deliver(&not_present, ud), (Ok(()), 11, 6 * 8 + 3));
    let int = Exception { software: Some(TEXT), trap: true, ..Exception::fault(6, None) };
    assert_eq!(deliver(&not_present, int), (Ok(()), 11, 6 * 8 + 2));
    // #GP within #DE, or a page fault within a page fault, is a double fault.
    assert_eq!(deliver(&|_, _| (), Exception::fault(0, None)), (Ok(()), 8, 0));
    let no_gate_for_page_faults = |_: &mut Cpu, memory: &GuestMemory| gate(memory, 14, 0, 0, 0, 0);
    let fault = Exception { address: Some(0), ..Exception::fault(14, Some(0)) };
    assert_eq!(deliver(&no_gate_for_page_faults, fault), (Ok(()), 8, 0));
    // A stack that is not there: page fault after page fault, a double fault, the end.
    let no_stack = |cpu: &mut Cpu, _: &GuestMemory| cpu.regs.rsp = 0x800;
    assert_eq!(deliver(&no_stack, ud).0, Err(ud));
    // A stack in text: the monitor does not write there for the guest.
    let text = |cpu: &mut Cpu, _: &GuestMemory| cpu.regs.rsp = TEXT + 0x800;
    assert_eq!(deliver(&text, ud).0, Err(ud));
    let no_table = |cpu: &mut Cpu, _: &GuestMemory| cpu.idt = Table { base: 0, limit: 0 };
    assert_eq!(deliver(&no_table, ud), (Err(ud), 0, 0));
}
