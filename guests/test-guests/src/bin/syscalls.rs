//! Makes one system call and prints what comes back.
//!
//! `syscalls MODE NUMBER SEED`: MODE is `64`, `x32` or `32`, NUMBER the call's number in that mode, and SEED
//! decides the six arguments. Prints `MODE NUMBER = RESULT`. A call that the monitor denies ends the guest
//! before that. With seed 0 all arguments are zero.
#![no_std]
#![no_main]

use core::arch::asm;

use nabla_guest::{args, println};
use test_guests::{Random, number, syscall};

nabla_guest::entry!(main);

/// The bit that makes a number one of the x32 ABI.
const X32: u64 = 0x4000_0000;

fn main() -> i32 {
    let mut args = args();
    let (Some(mode), Some(call), Some(seed)) = (args.next(), args.next(), args.next()) else {
        println!("usage: syscalls 64|x32|32 NUMBER SEED");
        return 2;
    };
    let (call, seed): (u64, u64) = (number(call), number(seed));
    let mut random = Random(seed);
    let arguments: [u64; 6] = core::array::from_fn(|_| if seed == 0 { 0 } else { argument(&mut random) });
    let result = match mode {
        // SAFETY: none is claimed, here and below. Where the monitor lets a call pass that it must not, the
        // guest may be destroyed.
        "64" => unsafe { syscall(call, arguments) },
        // SAFETY: see above.
        "x32" => unsafe { syscall(call | X32, arguments) },
        // SAFETY: see above.
        "32" => unsafe { interrupt(call, arguments) },
        _ => {
            println!("unknown mode {mode}");
            return 2;
        }
    };
    println!("{mode} {call} = {result}");
    0
}

/// Makes a system call with the 32-bit `int 0x80`, which 64-bit programs have as well.
///
/// # Safety
///
/// What the call does, if the monitor lets it, is all right with the program.
unsafe fn interrupt(number: u64, arguments: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the kernel clears r8 to r11; rbx and rbp, which cannot be operands, are restored. The caller
    // vouches for the rest.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "mov rbx, r12",
            "mov rbp, r13",
            "int 0x80",
            "pop rbx",
            "pop rbp",
            inlateout("rax") number => result,
            in("r12") arguments[0],
            in("rcx") arguments[1],
            in("rdx") arguments[2],
            in("rsi") arguments[3],
            in("rdi") arguments[4],
            in("r13") arguments[5],
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    result
}

/// A number of one of the kinds that arguments are: small ones, descriptors, addresses, anything.
fn argument(random: &mut Random) -> u64 {
    let bits = random.bits();
    match random.below(8) {
        0 => 0,
        1 => bits & 0xf,
        2 => bits & 0x3ff,
        3 => 0x10_0000 + (bits & 0xf_ffff),
        4 => u64::MAX - (bits & 0xff),
        5 => bits & 0xffff_ffff,
        6 => 1 << (bits & 63),
        _ => bits,
    }
}
