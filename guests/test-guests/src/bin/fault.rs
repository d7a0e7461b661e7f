//! Does what a guest must not do. The first argument says which; a name that is not known is status 2, and
//! a fault that does not happen is status 3. Prints the name first.
#![no_std]
#![no_main]

use core::{arch::asm, hint::black_box, ptr};

use nabla_guest::{args, memory, println};

nabla_guest::entry!(main);

/// A return instruction, for places from which nothing should run.
const RET: u8 = 0xc3;

static CONSTANT: u64 = 42;
static mut CODE_IN_DATA: [u8; 16] = [RET; 16];

fn main() -> i32 {
    let name = args().next().unwrap_or("");
    println!("{name}");
    match name {
        "null-read" => read(0),
        "null-write" => write(0),
        "text-write" => write(main as fn() -> i32 as usize),
        "rodata-write" => write((&raw const CONSTANT) as usize),
        "end-read" => read(memory().size),
        "launcher-read" => read(0x1_0000),
        // Above everything that a 48-bit address space gives a program.
        "kernel-read" => read(0xffff_8000_0000_0000),
        "vsyscall-read" => read(0xffff_ffff_ff60_0000),
        "data-jump" => jump((&raw const CODE_IN_DATA) as usize),
        "heap-jump" => jump(fill(memory().heap.start)),
        "stack-jump" => {
            let code = black_box([RET; 16]);
            jump(code.as_ptr() as usize);
        }
        "rodata-jump" => jump(fill_name()),
        // SAFETY: none of these returns, except into a monitor that lets it.
        "ud2" => unsafe { asm!("ud2", options(nomem, nostack)) },
        // SAFETY: see above.
        "int3" => unsafe { asm!("int3", options(nomem, nostack)) },
        // SAFETY: see above.
        "hlt" => unsafe { asm!("hlt", options(nomem, nostack)) },
        // SAFETY: see above.
        "cli" => unsafe { asm!("cli", options(nomem, nostack)) },
        // SAFETY: see above.
        "out" => unsafe { asm!("out dx, al", in("dx") 0x80_u16, in("al") 0_u8, options(nomem, nostack)) },
        "div-zero" => {
            // SAFETY: the division faults before it changes a register.
            unsafe {
                asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _, options(nomem, nostack));
            }
        }
        "misaligned-sse" => {
            let bytes = black_box([0_u8; 64]);
            let address = (bytes.as_ptr() as usize | 15) - 14;
            // SAFETY: reads bytes of the array, and faults because their address is odd.
            unsafe { asm!("movaps xmm0, [{}]", in(reg) address, out("xmm0") _, options(readonly, nostack)) };
        }
        "stack-overflow" => {
            println!("{}", recurse(u64::MAX));
        }
        _ => {
            println!("unknown fault");
            return 2;
        }
    }
    println!("no fault");
    3
}

fn read(address: usize) {
    // SAFETY: the read is to fault; where a monitor lets it, it does no harm.
    let value = unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() };
    println!("read {value:#04x}");
}

fn write(address: usize) {
    // SAFETY: the write is to fault; where a monitor lets it, the guest ends soon after.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(RET) };
}

fn jump(address: usize) {
    // SAFETY: the jump is to fault; where a monitor lets it, there is a return instruction.
    unsafe { asm!("call {}", in(reg) address, clobber_abi("C")) };
}

/// Writes a return instruction to the unused heap.
fn fill(address: usize) -> usize {
    write(address);
    address
}

/// A return instruction among the constants.
fn fill_name() -> usize {
    static CODE_IN_RODATA: [u8; 16] = [RET; 16];
    black_box(&CODE_IN_RODATA).as_ptr() as usize
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if depth == 0 { 0 } else { recurse(depth - 1) + frame[7] }
}
