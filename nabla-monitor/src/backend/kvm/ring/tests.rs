//! Tests of the ring without KVM and without its thread.

use super::*;
use crate::{
    backend::kvm::{arch, control::Control, devices::Devices, memory::MemoryOptions},
    device::{Attached, NetDevice},
};
use nabla_core::{
    DeviceKind, Manifest, Permissions,
    abi::hvt::{R_AGAIN, R_OK},
    elf::PageRange,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{fs::File, os::fd::OwnedFd};

const SIZE: u64 = 4 << 20;
const TEXT: u64 = 0x10_0000;
const BUFFER: u64 = 0x20_0000;
/// Index of a network interface whose other end is the test's.
const WIRE: u32 = 1;
/// Index of one that takes everything and never has anything.
const HOLE: u32 = 2;

struct Machine {
    memory: Arc<GuestMemory>,
    ring: Ring,
    devices: Devices,
    tally: Arc<Tally>,
    wire: OwnedFd,
}

fn machine() -> Machine {
    let text = Permissions { read: true, write: false, execute: true };
    let image = vec![PageRange { pages: TEXT..TEXT + 0x1000, permissions: text }];
    let mut regions = arch::regions(image, SIZE, false);
    regions.push(PageRange { pages: SIZE..SIZE + BYTES, permissions: Permissions::READ_WRITE });
    let options = MemoryOptions { ring_bytes: BYTES, ..MemoryOptions::default() };
    let memory = Arc::new(GuestMemory::new(SIZE, regions, options).unwrap());
    let (wire, tap) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
    let hole = File::options().read(true).write(true).open("/dev/null").unwrap();
    let kinds = [(DeviceKind::Net, "wire"), (DeviceKind::Net, "hole")];
    let tally = Arc::new(Tally::new(&Manifest::new(kinds).unwrap(), 1_000_000_000));
    let control = Control::new().unwrap();
    let console = hole.try_clone().unwrap().into();
    // No wait set takes a file like that.
    let mut devices = Devices::new(
        vec![Attached::open(1, NetDevice::from(nabla_tap::Tap::from_fd(tap).unwrap()))],
        console,
        &control,
        Arc::clone(&tally),
    )
    .unwrap();
    devices.add_net(2, hole.into());
    let ring = Ring::new(Arc::clone(&memory), devices.nets(), Arc::clone(&tally)).unwrap();
    Machine { memory, ring, devices, tally, wire }
}

impl Machine {
    /// What a guest does that is ended and started again.
    fn restart(&mut self) {
        self.ring =
            Ring::new(Arc::clone(&self.memory), self.devices.nets(), Arc::clone(&self.tally)).unwrap();
    }

    fn set_index(&self, offset: usize, value: u32) {
        self.memory.place(SIZE + offset as u64, &value.to_le_bytes()).unwrap();
    }

    fn index(&self, offset: usize) -> u32 {
        self.memory.read(SIZE + offset as u64).unwrap()
    }

    /// Puts a submission at a place, and nothing more.
    fn put(&self, index: u32, entry: &Entry) {
        let offset = offset_of!(Layout, entries) + place(index) * size_of::<Entry>();
        self.memory.place(SIZE + offset as u64, entry.as_bytes()).unwrap();
    }

    fn get(&self, index: u32) -> Commit {
        let offset = offset_of!(Layout, commits) + place(index) * size_of::<Commit>();
        self.memory.read(SIZE + offset as u64).unwrap()
    }

    /// Submits these, as the first ones.
    fn submit(&mut self, entries: &[Entry]) -> Result<u32, HypercallMistake> {
        for (index, entry) in (0..).zip(entries) {
            self.put(index, entry);
        }
        self.set_index(offset_of!(Layout, ent_tail), u32::try_from(entries.len()).unwrap());
        self.ring.work()
    }
}

fn entry(operation: u32, handle: u32, data: u64, len: u32, id: u32) -> Entry {
    Entry { operation, handle, data, len, id, reserved: 0 }
}

#[test]
fn frames_go_both_ways_in_order() {
    let mut machine = machine();
    machine.memory.place(BUFFER, b"first second").unwrap();
    rustix::io::write(&machine.wire, b"from outside").unwrap();
    let done = machine.submit(&[
        entry(OP_NET_WRITE, WIRE, BUFFER, 5, 70),
        entry(OP_NET_READ, WIRE, BUFFER + 0x1000, 2048, 71),
        entry(OP_NET_READ, WIRE, BUFFER + 0x2000, 2048, 72),
        entry(OP_NET_WRITE, WIRE, BUFFER + 6, 6, 73),
    ]);
    assert_eq!(done, Ok(4));
    let mut frame = [0; 32];
    for expected in [&b"first"[..], b"second"] {
        let length = rustix::io::read(&machine.wire, &mut frame).unwrap();
        assert_eq!(&frame[..length], expected);
    }
    // Commits are of reads alone.
    assert_eq!(machine.index(offset_of!(Layout, ent_head)), 4);
    assert_eq!(machine.index(offset_of!(Layout, com_tail)), 2);
    assert_eq!(machine.get(0), Commit { id: 71, ret: R_OK, len: 12, reserved: 0 });
    assert_eq!(machine.get(1), Commit { id: 72, ret: R_AGAIN, len: 0, reserved: 0 });
    assert_eq!(machine.memory.read::<[u8; 12]>(BUFFER + 0x1000), Ok(*b"from outside"));
    let counters = machine.tally.counters();
    let wire = &counters.devices[0];
    assert_eq!((wire.reads, wire.writes, wire.bytes_read, wire.bytes_written), (1, 2, 12, 11));
}

#[test]
fn indices_wrap_and_a_full_ring_is_done_at_once() {
    let mut machine = machine();
    let start = u32::MAX - 700;
    (machine.ring.done, machine.ring.commits) = (start, start);
    for index in 0..PLACES {
        machine.put(start.wrapping_add(index), &entry(OP_NET_READ, HOLE, BUFFER, 64, index));
    }
    machine.set_index(offset_of!(Layout, ent_tail), start.wrapping_add(PLACES));
    assert!(machine.ring.has_work());
    assert_eq!(machine.ring.work(), Ok(PLACES));
    assert!(!machine.ring.has_work());
    assert_eq!(machine.index(offset_of!(Layout, com_tail)), start.wrapping_add(PLACES));
    assert_eq!(machine.get(start.wrapping_add(900)).id, 900);
}

#[test]
fn more_submissions_than_places_end_the_guest() {
    for tail in [PLACES + 1, 1 << 16, u32::MAX / 2, u32::MAX] {
        let mut machine = machine();
        machine.set_index(offset_of!(Layout, ent_tail), tail);
        assert_eq!(machine.ring.work(), Err(HypercallMistake::Ring { submitted: tail }));
    }
}

#[test]
fn memory_that_a_guest_may_not_use_so_ends_it() {
    for (operation, data, len) in [
        (OP_NET_WRITE, 0, 4),
        (OP_NET_WRITE, SIZE + BYTES, 1),
        (OP_NET_WRITE, SIZE - 2, u32::MAX),
        (OP_NET_WRITE, u64::MAX, 2),
        (OP_NET_WRITE, 1 << 63, 2048),
        (OP_NET_READ, TEXT + 4, 2048),
        (OP_NET_READ, 0x1000, 8),
        (OP_NET_READ, 0x1_0000, 8),
        (OP_NET_READ, TEXT - 4, 8),
    ] {
        let mut machine = machine();
        let result = machine.submit(&[entry(operation, WIRE, data, len, 1)]);
        assert!(matches!(result, Err(HypercallMistake::Memory { .. })), "{operation} {data:#x}: {result:?}");
    }
}

#[test]
fn strange_devices_and_operations_are_no_mistakes() {
    let mut machine = machine();
    let done = machine.submit(&[
        entry(OP_NET_WRITE, 0, 0, 4, 1),
        entry(OP_NET_READ, 3, 0, 4, 2),
        entry(OP_NET_READ, u32::MAX, u64::MAX, u32::MAX, 3),
        entry(0, WIRE, 0, 4, 4),
        entry(77, WIRE, u64::MAX, u32::MAX, 5),
    ]);
    assert_eq!(done, Ok(5));
    assert_eq!(machine.index(offset_of!(Layout, com_tail)), 2);
    assert_eq!(machine.get(0), Commit { id: 2, ret: R_EINVAL, len: 0, reserved: 0 });
    assert_eq!(machine.get(1).id, 3);
}

#[test]
fn guest_that_writes_the_hosts_indices_changes_nothing() {
    let mut machine = machine();
    machine.submit(&[entry(OP_NET_READ, HOLE, BUFFER, 64, 1)]).unwrap();
    for offset in [offset_of!(Layout, ent_head), offset_of!(Layout, com_tail), offset_of!(Layout, com_head)] {
        machine.set_index(offset, 0x1234_5678);
    }
    assert_eq!(machine.submit(&[Entry::default(), entry(OP_NET_READ, HOLE, BUFFER, 64, 9)]), Ok(1));
    assert_eq!((machine.get(1).id, machine.index(offset_of!(Layout, com_tail))), (9, 2));
}

/// Numbers that are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn word(&mut self) -> u32 {
        let number = self.next();
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let word = (number >> 16) as u32;
        match number & 7 {
            0 => 0,
            1 => u32::MAX,
            2 => PLACES,
            3 => word & 0xfff,
            _ => word,
        }
    }

    fn entry(&mut self) -> Entry {
        let operation = if self.below(8) == 0 { self.word() } else { 1 + (self.word() & 1) };
        let handle = if self.below(8) == 0 { self.word() } else { 1 + (self.word() & 1) };
        let data = match self.below(64) {
            0 => self.next(),
            1 => self.word().into(),
            2 => SIZE + self.below(2 * BYTES),
            3 => TEXT - 64 + self.below(0x1080),
            _ => BUFFER + self.below(0x10_0000),
        };
        let len = if self.below(64) == 0 { self.word() } else { self.word() & 0x7ff };
        entry(operation, handle, data, len, self.word())
    }
}

/// Submissions, of which many are nonsense, with nonsense in every index and in the host's part of the ring: whatever
/// happens, the host goes on, and nothing changes that the guest may not write.
///
/// `NABLA_RING_STEPS` says how many (ten million take some seconds with `--release`), and `NABLA_RING_SEED` which.
#[test]
fn steps_of_nonsense_hurt_only_the_guest() {
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let most = setting("NABLA_RING_STEPS").unwrap_or(500_000);
    let mut machine = machine();
    let mut numbers = Numbers(setting("NABLA_RING_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15).max(1));
    let canary: Vec<u8> = (0..0x1000_u32).map(|index| index.to_le_bytes()[0] ^ 0x5a).collect();
    machine.memory.place(TEXT, &canary).unwrap();
    machine.memory.place(0x1_0000, &canary).unwrap();
    let (mut steps, mut ended) = (0, 0_u64);
    while steps < most {
        match numbers.below(1024) {
            0 => machine.set_index(offset_of!(Layout, ent_tail), numbers.word()),
            1..64 => {
                // Anything anywhere in the ring.
                let offset = numbers.below(size_of::<Layout>() as u64 - 8);
                machine.memory.place(SIZE + offset, &numbers.next().to_le_bytes()).unwrap();
            }
            64..128 => {
                let _ = rustix::io::write(&machine.wire, &canary[..60]);
            }
            _ => {
                let count = 1 + numbers.word() % 64;
                for index in 0..count {
                    let entry = numbers.entry();
                    machine.put(machine.ring.done.wrapping_add(index), &entry);
                }
                machine.set_index(offset_of!(Layout, ent_tail), machine.ring.done.wrapping_add(count));
            }
        }
        steps += 1;
        let tail = machine.index(offset_of!(Layout, ent_tail));
        match machine.ring.work() {
            Ok(count) => {
                assert!(count <= PLACES && machine.ring.done == tail);
                steps += u64::from(count);
            }
            Err(_) => {
                ended += 1;
                machine.restart();
                machine.set_index(offset_of!(Layout, ent_tail), 0);
            }
        }
        if steps % 64 == 0 {
            let mut frame = [0; 64];
            while rustix::io::read(&machine.wire, &mut frame).is_ok() {}
        }
    }
    assert!(ended > most / 10_000, "{ended}");
    assert_eq!(machine.memory.read::<[u8; 0x1000]>(TEXT).unwrap(), canary[..]);
    assert_eq!(machine.memory.read::<[u8; 0x1000]>(0x1_0000).unwrap(), canary[..]);
}
