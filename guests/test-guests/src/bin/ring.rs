//! Does to the network ring what is said: `ring WORD...`, with numbers in hexadecimal.
//!
//! * `entry OPERATION DEVICE ADDRESS LENGTH`: puts a submission at the next place. An address may also be `text`.
//! * `submit`: says so, as a guest should, and kicks. `tail INDEX`: says something else, and kicks.
//! * `host`: writes nonsense over all that the host tells there.
//! * `kick`: a hundred thousand kicks. `done`: waits until the host has done everything that was submitted.
//! * `commits`: prints the commits so far. `wait`: for half a minute, in which a guest that is ended does not go on.
#![no_std]
#![no_main]

use core::{
    arch::asm,
    mem::offset_of,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};
use nabla_core::abi::{
    hvt::RING_KICK_PORT,
    ring::{Commit, Entry, Ring, SIZE},
};
use nabla_guest::{args, memory, print, println, time::Instant, yield_until};

nabla_guest::entry!(main, net "service0");

fn main() -> i32 {
    let mut words = args();
    let mut submitted = 0;
    let mut shown = 0;
    while let Some(word) = words.next() {
        let mut next = || words.next().map_or(0, value);
        match word {
            "entry" => {
                let (operation, handle, data, len) = (next(), next(), next(), next());
                let (operation, handle, len) = (low(operation), low(handle), low(len));
                put(submitted, Entry { operation, handle, data, len, id: submitted, reserved: 0 });
                submitted = submitted.wrapping_add(1);
            }
            "submit" => {
                index(offset_of!(Ring, ent_tail)).store(submitted, SeqCst);
                kick();
            }
            "tail" => {
                index(offset_of!(Ring, ent_tail)).store(low(next()), SeqCst);
                kick();
            }
            "host" => {
                for offset in (offset_of!(Ring, ent_head)..offset_of!(Ring, entries)).step_by(4) {
                    index(offset).store(0xdead_beef, SeqCst);
                }
            }
            "kick" => (0..100_000).for_each(|_| kick()),
            "done" => {
                while index(offset_of!(Ring, ent_head)).load(SeqCst) != submitted {
                    core::hint::spin_loop();
                }
            }
            "commits" => {
                let end = index(offset_of!(Ring, com_tail)).load(SeqCst);
                while shown != end {
                    let Commit { id, ret, len, .. } = commit(shown);
                    print!("{id:x}:{ret:x}:{len:x} ");
                    shown = shown.wrapping_add(1);
                }
            }
            "wait" => {
                let end = Instant::now() + Duration::from_secs(30);
                while Instant::now() < end {
                    let _ = yield_until(end);
                }
            }
            word => panic!("{word:?} is nothing to do"),
        }
    }
    println!("end");
    0
}

/// After the guest's own memory, where nabla puts it.
fn ring() -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(memory().size)
}

fn index(offset: usize) -> &'static AtomicU32 {
    // SAFETY: the offsets are those of aligned words of the ring.
    unsafe { AtomicU32::from_ptr(ring().add(offset).cast()) }
}

fn put(at: u32, entry: Entry) {
    let offset = offset_of!(Ring, entries) + at as usize % SIZE * size_of::<Entry>();
    // SAFETY: the place is one of the ring's.
    unsafe { ring().add(offset).cast::<Entry>().write_volatile(entry) };
}

fn commit(at: u32) -> Commit {
    let offset = offset_of!(Ring, commits) + at as usize % SIZE * size_of::<Commit>();
    // SAFETY: the place is one of the ring's.
    unsafe { ring().add(offset).cast::<Commit>().read_volatile() }
}

fn kick() {
    // SAFETY: wakes the host's side.
    unsafe { asm!("out dx, eax", in("dx") RING_KICK_PORT, in("eax") 0, options(nostack, preserves_flags)) };
}

fn value(text: &str) -> u64 {
    match text {
        "text" => main as fn() -> i32 as usize as u64,
        text => {
            u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{text:?} is no number: {error:?}"))
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "numbers are given as what they are for")]
fn low(number: u64) -> u32 {
    number as u32
}
