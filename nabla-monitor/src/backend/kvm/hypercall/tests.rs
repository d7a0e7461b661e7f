//! Tests of hypercalls without KVM.

use super::*;
use crate::{
    backend::kvm::{arch, counters::Tally, memory::MemoryOptions},
    device::{Attached, BlockDevice, NetDevice},
};
use nabla_core::{DeviceKind, Manifest, Permissions, abi::hvt::R_AGAIN, elf::PageRange};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};
use std::{fs::File, io::Read, os::fd::OwnedFd, os::unix::fs::FileExt};
use zerocopy::FromBytes;

const SIZE: u64 = 4 << 20;
/// Where the tests' structures are: heap.
const HERE: u64 = 0x20_0000;
const BUFFER: u64 = 0x30_0000;
const TEXT: u64 = 0x10_0000;

struct Machine {
    memory: GuestMemory,
    devices: Devices,
    control: Control,
    console: File,
    disk: File,
    wire: OwnedFd,
}

/// A disk of 4 blocks with index 1, a network interface with index 2.
fn machine() -> Machine {
    let text = Permissions { read: true, write: false, execute: true };
    let image = vec![PageRange { pages: TEXT..TEXT + 0x1000, permissions: text }];
    let memory = GuestMemory::new(SIZE, arch::regions(image, SIZE, false), MemoryOptions::default()).unwrap();
    let (reader, console) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let disk = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
    disk.write_all_at(&[0xd1; 2048], 0).unwrap();
    let (wire, tap) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
    let attached = vec![
        Attached::open(1, BlockDevice::from_fd(disk.try_clone().unwrap().into())),
        Attached::open(2, NetDevice::from(nabla_tap::Tap::from_fd(tap).unwrap())),
    ];
    let control = Control::new().unwrap();
    let kinds = [(DeviceKind::Block, "disk"), (DeviceKind::Net, "net")];
    let tally = std::sync::Arc::new(Tally::new(&Manifest::new(kinds).unwrap(), 1_000_000_000));
    let devices = Devices::new(attached, console, &control, tally).unwrap();
    Machine { memory, devices, control, console: reader.into(), disk, wire }
}

impl Machine {
    fn call(&mut self, call: Hypercall, address: u64) -> Result<Outcome, BadAccess> {
        handle(call, address, &self.memory, &mut self.devices, &self.control)
    }

    fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(&self, address: u64, value: &T) {
        self.memory.place(address, value.as_bytes()).unwrap();
    }

    fn get<T: FromBytes + zerocopy::IntoBytes>(&self, address: u64) -> T {
        self.memory.read(address).unwrap()
    }

    fn block(&mut self, call: Hypercall, io: &BlockIo) -> Result<i32, BadAccess> {
        self.put(HERE, &BlockIo { ret: -1, ..*io });
        self.call(call, HERE)?;
        Ok(self.get::<BlockIo>(HERE).ret)
    }

    fn net(&mut self, call: Hypercall, io: &NetIo) -> Result<NetIo, BadAccess> {
        self.put(HERE, &NetIo { ret: -1, ..*io });
        self.call(call, HERE)?;
        Ok(self.get(HERE))
    }
}

#[test]
fn walltime_is_now() {
    let mut machine = machine();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let before = now();
    assert_eq!(machine.call(Hypercall::Walltime, HERE), Ok(Outcome::Continue));
    let told = u128::from(machine.get::<Walltime>(HERE).nsecs);
    assert!((before..=now()).contains(&told));
}

#[test]
fn puts_writes_what_the_guest_can_read() {
    let mut machine = machine();
    machine.memory.place(BUFFER, b"hello").unwrap();
    machine.put(HERE, &Puts { data: BUFFER, len: 5 });
    assert_eq!(machine.call(Hypercall::Puts, HERE), Ok(Outcome::Continue));
    machine.put(HERE, &Puts { data: u64::MAX, len: 0 });
    assert_eq!(machine.call(Hypercall::Puts, HERE), Ok(Outcome::Continue));
    for (data, len, address) in
        [(0, 1, 0), (SIZE - 2, 3, SIZE), (u64::MAX, 2, u64::MAX), (BUFFER, u64::MAX, BUFFER)]
    {
        machine.put(HERE, &Puts { data, len });
        assert_eq!(machine.call(Hypercall::Puts, HERE).unwrap_err().address, address, "{data:#x} {len:#x}");
    }
    drop(machine.devices);
    let mut written = String::new();
    machine.console.read_to_string(&mut written).unwrap();
    assert_eq!(written, "hello");
}

#[test]
fn structures_must_lie_in_memory_that_may_be_written() {
    let mut machine = machine();
    for call in [Hypercall::Walltime, Hypercall::Poll, Hypercall::BlockRead, Hypercall::NetRead] {
        for address in [0, 0x1000, 0x1_0000, TEXT, SIZE - 4, SIZE, u64::from(u32::MAX)] {
            let bad = machine.call(call, address).unwrap_err();
            assert_eq!(bad.access, Access::Write, "{call:?} {address:#x}");
            assert_eq!(bad.mapped, (0x1_0000..SIZE).contains(&bad.address), "{call:?} {address:#x}");
        }
    }
    assert_eq!(machine.memory.read::<[u8; 64]>(TEXT).unwrap(), [0; 64]);
}

#[test]
fn blocks_are_read_and_written() {
    let mut machine = machine();
    let io = BlockIo { handle: 1, offset: 512, data: BUFFER, len: 512, ..BlockIo::default() };
    assert_eq!(machine.block(Hypercall::BlockRead, &io), Ok(R_OK));
    assert_eq!(machine.get::<[u8; 512]>(BUFFER), [0xd1; 512]);
    assert_eq!(machine.get::<u8>(BUFFER + 512), 0);
    machine.memory.place(BUFFER, &[7; 512]).unwrap();
    assert_eq!(machine.block(Hypercall::BlockWrite, &io), Ok(R_OK));
    let mut found = [0; 2048];
    machine.disk.read_exact_at(&mut found, 0).unwrap();
    assert_eq!((found[511], found[512], found[1023], found[1024]), (0xd1, 7, 7, 0xd1));
}

#[test]
fn requests_outside_of_the_disk_are_invalid_and_move_nothing() {
    let mut machine = machine();
    for (handle, offset, len) in [
        (0, 0, 512),
        (2, 0, 512),
        (3, 0, 512),
        (64, 0, 512),
        (u64::MAX, 0, 512),
        (1 << 32 | 1, 0, 512),
        (1, 2048, 512),
        (1, 2048, 0),
        (1, 1537, 512),
        (1, u64::MAX, 1),
        (1, 512, u64::MAX),
        (1, u64::MAX - 511, 512),
        (1, 1 << 63, 1 << 63),
    ] {
        for call in [Hypercall::BlockRead, Hypercall::BlockWrite] {
            let io = BlockIo { handle, offset, data: BUFFER, len, ..BlockIo::default() };
            assert_eq!(machine.block(call, &io), Ok(R_EINVAL), "{io:?}");
        }
    }
    assert_eq!(machine.get::<u8>(BUFFER), 0);
}

#[test]
fn text_is_not_written_by_way_of_a_disk_but_can_be_written_to_one() {
    let mut machine = machine();
    let io = BlockIo { handle: 1, offset: 0, data: TEXT, len: 512, ..BlockIo::default() };
    let bad = machine.block(Hypercall::BlockRead, &io).unwrap_err();
    assert_eq!(bad, BadAccess { address: TEXT, access: Access::Write, mapped: true });
    assert_eq!(machine.block(Hypercall::BlockWrite, &io), Ok(R_OK));
    // Across the end of the text: the part that may be written is not written either.
    let io = BlockIo { data: TEXT + 0x1000 - 256, ..io };
    assert_eq!(machine.block(Hypercall::BlockRead, &io).unwrap_err().address, TEXT + 0x1000 - 256);
    let io = BlockIo { data: TEXT - 256, ..io };
    assert_eq!(machine.block(Hypercall::BlockRead, &io).unwrap_err().address, TEXT - 256);
}

#[test]
fn disk_that_fails_is_an_unspecified_error() {
    let mut machine = machine();
    machine.disk.set_len(0).unwrap();
    let io = BlockIo { handle: 1, offset: 0, data: BUFFER, len: 512, ..BlockIo::default() };
    assert_eq!(machine.block(Hypercall::BlockRead, &io), Ok(R_EUNSPEC));
}

#[test]
fn frames_go_both_ways_and_poll_sees_them() {
    let mut machine = machine();
    let io = NetIo { handle: 2, data: BUFFER, len: 1514, ..NetIo::default() };
    assert_eq!(machine.net(Hypercall::NetRead, &io).unwrap().ret, R_AGAIN);
    let poll = |machine: &mut Machine, timeout_nsecs| {
        machine.put(HERE, &Poll { timeout_nsecs, ready_set: 99, ret: 99, padding: 0 });
        assert_eq!(machine.call(Hypercall::Poll, HERE), Ok(Outcome::Continue));
        let poll: Poll = machine.get(HERE);
        (poll.ready_set, poll.ret)
    };
    assert_eq!(poll(&mut machine, 0), (0, 0));
    assert_eq!(poll(&mut machine, 1_000_000), (0, 0));
    rustix::io::write(&machine.wire, b"frame").unwrap();
    assert_eq!(poll(&mut machine, u64::MAX), (1 << 2, 1));
    let read = machine.net(Hypercall::NetRead, &io).unwrap();
    assert_eq!((read.ret, read.len), (R_OK, 5));
    assert_eq!(&machine.get::<[u8; 5]>(BUFFER), b"frame");
    assert_eq!(machine.net(Hypercall::NetWrite, &NetIo { len: 3, ..io }).unwrap().ret, R_OK);
    let mut received = [0; 16];
    assert_eq!(rustix::io::read(&machine.wire, &mut received).unwrap(), 3);
    for handle in [0, 1, 3, 63, 64, u64::MAX] {
        for call in [Hypercall::NetRead, Hypercall::NetWrite] {
            assert_eq!(machine.net(call, &NetIo { handle, ..io }).unwrap().ret, R_EINVAL, "{handle}");
        }
    }
    let outside = NetIo { data: SIZE - 1, ..io };
    assert_eq!(machine.net(Hypercall::NetWrite, &outside).unwrap_err().address, SIZE);
}

#[test]
fn poll_lasts_as_long_as_it_should_and_ends_when_somebody_kills() {
    let mut machine = machine();
    let start = std::time::Instant::now();
    machine.put(HERE, &Poll { timeout_nsecs: 20_000_000, ..Poll::default() });
    assert_eq!(machine.call(Hypercall::Poll, HERE), Ok(Outcome::Continue));
    assert!(start.elapsed() >= Duration::from_millis(20));
    machine.control.kill();
    machine.put(HERE, &Poll { timeout_nsecs: u64::MAX, ..Poll::default() });
    assert_eq!(machine.call(Hypercall::Poll, HERE), Ok(Outcome::Killed));
    machine.put(HERE, &Puts { data: BUFFER, len: 1 });
}

#[test]
fn halt_gives_its_status_and_checks_its_cookie() {
    let mut machine = machine();
    for (cookie, ok) in
        [(0, true), (HERE, true), (SIZE - 512, true), (SIZE - 511, false), (SIZE, false), (u64::MAX, false)]
    {
        machine.put(HERE, &Halt { cookie, exit_status: 300, padding: 0 });
        let outcome = machine.call(Hypercall::Halt, HERE);
        assert_eq!(outcome.is_ok(), ok, "{cookie:#x}");
        if ok {
            assert_eq!(outcome, Ok(Outcome::Halt { status: 300 }));
        }
    }
}
