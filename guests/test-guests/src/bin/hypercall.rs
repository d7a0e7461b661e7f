//! Makes any hypercall: `hypercall PORT ADDRESS WORD...`, prints the structure's words afterwards.
//!
//! Numbers are hexadecimal. An address or word may also be `here` (the structure), `buffer` (a page that can be
//! written), `text` (code), `boot` (the boot info) or `end` (after the last byte of memory), each with `+N` or `-N`
//! after it. A port may end in `b` or `w` for a smaller access, or in `r` for an input.
#![no_std]
#![no_main]

use core::arch::asm;

use nabla_guest::{args, memory, print, println};

nabla_guest::entry!(main, block "storage");

#[repr(align(4096))]
#[allow(dead_code, reason = "it is used by address")]
struct Page([u64; 512]);

static mut BUFFER: Page = Page([0x6867_6665_6463_6261; 512]);
/// In the middle of a page, so that it can be named with offsets.
static mut WORDS: Page = Page([0; 512]);

fn main() -> i32 {
    let mut arguments = args();
    let port = arguments.next().unwrap_or("501");
    let address = value(arguments.next().unwrap_or("here"));
    let words = (&raw mut WORDS).cast::<[u64; 512]>();
    for (index, word) in arguments.enumerate().take(16) {
        // SAFETY: nothing else uses the static, and the index is below its length.
        unsafe { (*words)[index] = value(word) };
    }
    call(port, address);
    for index in 0..6 {
        // SAFETY: see above.
        print!("{:x} ", unsafe { (&raw const (*words)[index]).read_volatile() });
    }
    // SAFETY: the buffer is only read.
    println!("buffer {:x}", unsafe { (&raw const BUFFER).cast::<u64>().read_volatile() });
    0
}

fn value(text: &str) -> u64 {
    let (name, offset, down) = match text.find(['+', '-']) {
        Some(at) => (&text[..at], number(&text[at + 1..]), text.as_bytes()[at] == b'-'),
        None => (text, 0, false),
    };
    let base = match name {
        "here" => &raw const WORDS as u64,
        "buffer" => &raw const BUFFER as u64,
        "text" => main as fn() -> i32 as usize as u64,
        "boot" => 0x1_0000,
        "end" => memory().size as u64,
        name => number(name),
    };
    if down { base.wrapping_sub(offset) } else { base.wrapping_add(offset) }
}

fn number(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{text:?} is no number: {error:?}"))
}

#[expect(clippy::cast_possible_truncation, reason = "that is what is to be tried")]
fn call(port: &str, address: u64) {
    let (digits, kind) = port.split_at(port.len() - usize::from(port.ends_with(['b', 'w', 'r'])));
    // Longer port numbers would lose their `b`; none is needed.
    let (digits, kind) = if digits.len() == 3 { (digits, kind) } else { (port, "") };
    let port = number(digits) as u16;
    let address = address as u32;
    // SAFETY: what the monitor does with this is what the test is about.
    unsafe {
        match kind {
            "b" => asm!("out dx, al", in("dx") port, in("al") address as u8, options(nostack)),
            "w" => asm!("out dx, ax", in("dx") port, in("ax") address as u16, options(nostack)),
            "r" => asm!("in eax, dx", in("dx") port, out("eax") _, options(nostack)),
            _ => asm!("out dx, eax", in("dx") port, in("eax") address, options(nostack)),
        }
    }
}
