//! Tells which memory is mapped, without faulting.
//!
//! `peek START END`: addresses in hexadecimal. Prints every range of readable pages between them as
//! `START-END`, then `done`. A system call that reads a structure tells whether an address is readable.
#![no_std]
#![no_main]

use nabla_core::abi::{
    PAGE_SIZE,
    spt::syscall::{TFD_TIMER_ABSTIME, TIMERFD_SETTIME},
};
use nabla_guest::{args, println};
use test_guests::{spt_boot_info, syscall};

nabla_guest::entry!(main);

const EFAULT: i64 = -14;

fn main() -> i32 {
    let mut addresses = args().map(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16));
    let (Some(Ok(start)), Some(Ok(end))) = (addresses.next(), addresses.next()) else {
        println!("usage: peek START END");
        return 2;
    };
    let mut range = None;
    let mut page = start & !(PAGE_SIZE - 1);
    while page < end {
        match (range, is_readable(page)) {
            (None, true) => range = Some(page),
            (Some(first), false) => {
                println!("{first:x}-{page:x}");
                range = None;
            }
            _ => {}
        }
        let Some(next) = page.checked_add(PAGE_SIZE) else { break };
        page = next;
    }
    if let Some(first) = range {
        println!("{first:x}-{page:x}");
    }
    println!("done");
    0
}

fn is_readable(address: u64) -> bool {
    let timer = u64::from(spt_boot_info().timerfd.cast_unsigned());
    // SAFETY: the kernel reads a time from the address, if there is anything, and may arm the timer, which is
    // not used otherwise.
    let result = unsafe { syscall(u64::from(TIMERFD_SETTIME), [timer, TFD_TIMER_ABSTIME, address, 0, 0, 0]) };
    result != EFAULT
}
