//! Sets up descriptor tables as Solo5's bindings do, then does what its first argument says. The handler of
//! exceptions prints what the processor pushed, and exits with 0; after `int3` and single steps it returns.
#![no_std]
#![no_main]
#![allow(
    clippy::cast_possible_truncation,
    reason = "tables are full of parts of addresses, which are below 4 GiB"
)]

use core::{
    arch::{asm, global_asm},
    sync::atomic::{AtomicU64, Ordering},
};

use nabla_guest::{args, exit, println};

nabla_guest::entry!(main);

global_asm!(
    ".irp v,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32",
    "trap_\\v:",
    ".if \\v != 8 && \\v != 10 && \\v != 11 && \\v != 12 && \\v != 13 && \\v != 14 && \\v != 17",
    "push 0",
    ".endif",
    "push \\v",
    "jmp trap_common",
    ".endr",
    "trap_common:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "lea rdi, [rsp + 72]",
    "cld",
    "call {handler}",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    ".pushsection .rodata.traps,\"a\"",
    ".balign 8",
    ".globl trap_table",
    "trap_table:",
    ".irp v,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32",
    ".quad trap_\\v",
    ".endr",
    ".popsection",
    handler = sym handler,
);

unsafe extern "C" {
    static trap_table: [u64; 33];
}

#[repr(C)]
struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

#[repr(C, align(16))]
struct Aligned<T>(T);

static mut GDT: Aligned<[u64; 5]> = Aligned([0, 0x00af_9900_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0]);
static mut IDT: Aligned<[[u64; 2]; 48]> = Aligned([[0; 2]; 48]);
static mut TSS: Aligned<[u32; 26]> = Aligned([0; 26]);
static mut STACK: Aligned<[u8; 8192]> = Aligned([0; 8192]);

/// Address of the instruction that is to fault, where the case knows it.
static EXPECTED: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(frame: &mut Frame) {
    const TF: u64 = 1 << 8;
    let cr2: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack)) };
    let here = &raw const STACK as u64;
    let on_stack = (here..here + 8192).contains(&(core::ptr::from_ref(frame) as u64));
    if frame.vector == 1 {
        if STEPS.fetch_add(1, Ordering::Relaxed) < 3 {
            return;
        }
        frame.rflags &= !TF;
        println!("single steps");
        return;
    }
    println!(
        "vector={} ec={:#x} cs={:#x} ss={:#x} rf={} if={} cr2={cr2:#x} ist={on_stack} offset={}",
        frame.vector,
        frame.error_code,
        frame.cs,
        frame.ss,
        frame.rflags >> 16 & 1,
        frame.rflags >> 9 & 1,
        frame.rip.wrapping_sub(EXPECTED.load(Ordering::Relaxed)).cast_signed(),
    );
    if !matches!(frame.vector, 3 | 4 | 32) {
        exit(0);
    }
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// # Safety
///
/// Called once, at the start.
unsafe fn setup() {
    let gdt = Pointer { limit: 39, base: &raw const GDT as u64 };
    let tss = &raw const TSS as u64;
    let stack = &raw const STACK as u64 + 8192;
    // SAFETY: nothing uses the statics yet; the instructions load what was just written, as bindings do.
    unsafe {
        // IST 2, as Solo5 has it: bytes 44 to 51.
        let [low, high] = [stack as u32, (stack >> 32) as u32];
        TSS.0[11] = low;
        TSS.0[12] = high;
        GDT.0[3] = 104 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
        GDT.0[4] = tss >> 32;
        for (vector, &entry) in trap_table.iter().enumerate() {
            IDT.0[vector] =
                [entry & 0xffff | 8 << 16 | 2 << 32 | 0x8e << 40 | (entry >> 16 & 0xffff) << 48, entry >> 32];
        }
        let idt = Pointer { limit: 48 * 16 - 1, base: &raw const IDT as u64 };
        asm!(
            "lgdt [{gdt}]",
            "push 8",
            "lea {tmp}, [rip + 2f]",
            "push {tmp}",
            "retfq",
            "2:",
            "mov {tmp:e}, 16",
            "mov ss, {tmp:e}",
            "mov ds, {tmp:e}",
            "mov es, {tmp:e}",
            "mov {tmp:e}, 24",
            "ltr {tmp:x}",
            "lidt [{idt}]",
            gdt = in(reg) &raw const gdt,
            idt = in(reg) &raw const idt,
            tmp = out(reg) _,
        );
    }
}

/// Runs instructions, the first of which (or the one after the label 2) is to fault.
macro_rules! fault {
    ($($text:literal),+ $(; $register:tt = $value:expr)*) => {{
        #[allow(unused_unsafe, reason = "the macro is used where the code is unsafe, too")]
        // SAFETY: the instructions are to fault, and the handler ends the guest, or they keep every register.
        unsafe {
            asm!(
                "lea rax, [rip + 2f]",
                "mov [rip + {expected}], rax",
                $($text,)+
                expected = sym EXPECTED,
                $(in($register) $value,)*
                clobber_abi("C"),
            );
        }
    }};
}

fn main() {
    let case = args().next().unwrap_or("");
    // SAFETY: this is the start.
    unsafe { setup() };
    match case {
        "ud2" => fault!("2: ud2"),
        "divide" => fault!("xor ecx, ecx", "2: div ecx"),
        "null" => fault!("2: mov rax, [8]"),
        "null-write" => fault!("2: mov [8], rax"),
        "low-write" => fault!("2: mov [0x1000], rax"),
        "boot-write" => fault!("2: mov [0x10000], rax"),
        "null-jump" => fault!("xor ecx, ecx", "2: jmp rcx"),
        "above" => fault!("mov rcx, 0x200000000", "2: mov rax, [rcx]"),
        "noncanonical" => fault!("mov rcx, 0x1000000000000", "2: mov rax, [rcx]"),
        "stack" => fault!("mov rsi, rsp", "mov rsp, 0x1000000000000", "2: pop rax"),
        "selector" => fault!("mov ecx, 24", "2: mov ds, ecx"),
        "outside" => fault!("mov ecx, 0x60", "2: mov es, ecx"),
        "misaligned" => fault!("2: movaps xmm0, [rsi]"; "rsi" = (&raw const GDT as u64) + 1),
        "int-absent" => fault!("2: int 0x28"),
        "int-outside" => fault!("2: int 0x80"),
        "int-present" => fault!("2: int 0x20"),
        "int3" => fault!("2: int3"),
        "int4" => fault!("2: int 4"),
        "sti" => fault!("sti", "2: ud2"),
        "cli" => fault!("sti", "cli", "2: ud2"),
        "syscall" => fault!("2: syscall"),
        "sysenter" => fault!("2: sysenter"),
        "step" => {
            fault!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "cli", "2: nop", "nop", "nop");
        }
        "ac" => fault!(
            "pushfq",
            "or qword ptr [rsp], 0x40000",
            "popfq",
            "2: mov rax, [rsi]"; "rsi" = (&raw const GDT as u64) + 1
        ),
        "wrmsr" => {
            for base in [0x1234_5000_u64, 0x7fff_ffff_f000, 0] {
                let (low, high) = (base & 0xffff_ffff, base >> 32);
                fault!(
                    "mov ecx, 0xc0000100",
                    "mov eax, r8d", "mov edx, r9d", "2: wrmsr"; "r8" = low; "r9" = high
                );
                let found: u64;
                // SAFETY: reads back what was written.
                unsafe {
                    asm!("mov ecx, 0xc0000100", "rdmsr", "shl rdx, 32", "or rax, rdx", out("rax") found, out("rdx") _, out("rcx") _);
                }
                assert_eq!(found, base);
            }
            fault!("mov ecx, 0xc0000100", "mov eax, 1", "mov edx, 0x10000", "2: wrmsr");
        }
        "double" => {
            // SAFETY: nothing else uses the table.
            unsafe { (&raw mut IDT.0[6]).write_volatile([0; 2]) };
            fault!("2: ud2");
        }
        "triple" => {
            // SAFETY: nothing else uses the table.
            unsafe { (&raw mut IDT.0).write_volatile([[0; 2]; 48]) };
            fault!("2: ud2");
        }
        "bad-stack" | "text-stack" => {
            let stack = if case == "bad-stack" { 0x4000_0000_u64 } else { main as fn() as usize as u64 };
            // SAFETY: nothing else uses the segment.
            unsafe { (&raw mut TSS.0[11]).write_volatile(stack as u32) };
            fault!("2: ud2");
        }
        "loop" => {
            let entry = 0x2000_0000_u64;
            // SAFETY: nothing else uses the table: every exception's handler is where nothing is.
            unsafe {
                for vector in 0..32 {
                    (&raw mut IDT.0[vector]).write_volatile([
                        entry & 0xffff | 8 << 16 | 2 << 32 | 0x8e << 40 | (entry >> 16) << 48,
                        0,
                    ]);
                }
            }
            println!("ready");
            fault!("2: ud2");
        }
        _ => println!("unknown case"),
    }
    println!("went on");
}
