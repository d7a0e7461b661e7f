//! Disks, taps, clocks and memory of guests in virtual machines.

mod common;

use common::{build_hvt, disk_file, run};
use nabla_monitor::{
    BlockDevice, BlockErrorKind, ByteSize, DeviceError, Error, ExitStatus, MacAddress, NetDevice, Runtime,
};
use nabla_testkit::{TestTap, need};
use std::{fs, process::Command};

#[test]
fn guest_reads_its_disk() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let disk = disk_file(&directory, "disk.img", b"forty-two bytes that stand on a disk\n");
    let (status, output) = run(build_hvt(&runtime, "cat").block(BlockDevice::new(&disk).read_only()));
    assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), "forty-two bytes that stand on a disk\n"));
}

#[test]
fn what_the_guest_did_is_counted() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    let guest = build_hvt(&runtime, "disk-sum").block_device("storage", &path).start().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
    let counters = guest.counters().unwrap();
    let [disk] = &counters.devices[..] else { panic!("{counters:?}") };
    assert_eq!(
        (disk.name.as_str(), disk.bytes_read, disk.bytes_written, disk.errors),
        ("storage", 1 << 20, 0, 0)
    );
    assert_eq!((disk.reads, counters.hypercalls.block_read), (16, 16));
    let calls = &counters.hypercalls;
    assert_eq!(calls.halt, 1);
    assert_eq!(counters.exits.hypercalls, calls.puts + calls.block_read + calls.walltime + calls.poll + 1);
    assert_eq!(counters.exits.others, 0);
    assert!(
        counters.console_bytes > 20 && !counters.time_in_guest.is_zero() && !counters.time_in_host.is_zero()
    );

    // A guest that waits can be looked at while it does.
    let waiting = build_hvt(&runtime, "sleeper").arg("20").start().unwrap();
    waiting.wait().unwrap();
    let counters = waiting.counters().unwrap();
    assert!(counters.hypercalls.poll >= 1 && counters.time_waiting.as_millis() >= 15, "{counters:?}");
    // Processes make their calls themselves.
    let process = common::build(&runtime, "exit").start().unwrap();
    assert_eq!(process.counters(), None);
}

#[test]
fn guest_writes_its_disk_in_blocks_of_every_size() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    for block_size in [512, 1024, 2048, 4096, 8192, 16384, 32768] {
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let disk = BlockDevice::new(&path).block_size(block_size);
        let (status, output) = run(build_hvt(&runtime, "blk").block_device("storage", disk));
        assert_eq!(status, ExitStatus::Exited(0), "{block_size}: {output}");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes.iter().any(|&byte| byte != 0), "{block_size}: nothing was written");
    }
}

#[test]
fn read_only_disk_is_not_written_and_the_guest_is_told() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let (status, output) = run(build_hvt(&runtime, "blk").block(BlockDevice::new(&path).read_only()));
    assert!(matches!(status, ExitStatus::Exited(1..) | ExitStatus::Aborted), "{status}: {output}");
    assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
}

#[test]
fn disk_that_is_truncated_under_a_guest_is_an_error_to_it() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, vec![7; 64 << 20]).unwrap();
    let guest = build_hvt(&runtime, "disk-sum").block(BlockDevice::new(&path).read_only()).start().unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    let status = guest.wait().unwrap();
    assert!(matches!(status, ExitStatus::Exited(1)), "{status}");
}

#[test]
fn named_devices_go_where_their_names_say() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (disk_file(&directory, "a", b"from a"), disk_file(&directory, "b", b"old"));
    let (status, output) = run(build_hvt(&runtime, "two-disks").block_device("b", &b).block_device("a", &a));
    assert_eq!(status, ExitStatus::Exited(0), "{output}");
    assert!(fs::read(&b).unwrap().starts_with(b"from a\0"));
}

#[test]
fn disk_is_locked_until_the_guest_has_ended() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = disk_file(&directory, "disk.img", b"x");
    let start = || build_hvt(&runtime, "sleeper-disk").block(&path).start();
    for _ in 0..5 {
        let guest = start().unwrap();
        let second = start();
        assert!(
            matches!(&second, Err(Error::Device(DeviceError::Block(error))) if matches!(error.kind, BlockErrorKind::Locked { .. })),
            "{second:?}"
        );
        guest.kill().unwrap();
        guest.wait().unwrap();
        // The handle is still there, and the disk is free.
        drop(start().unwrap());
        drop(guest);
    }
}

#[test]
fn guest_answers_on_its_tap() {
    if !need::kvm() || !need::tap() || !need::program("ping") {
        return;
    }
    let tap = TestTap::up("10.0.0.1/24");
    let runtime = Runtime::new();
    let mac = MacAddress([2, 0, 0, 0, 7, 8]);
    let device = NetDevice::from(tap.name()).mac(mac);
    let guest = build_hvt(&runtime, "net-echo").net_device("service0", device).start().unwrap();
    let output = Command::new("ping").args(["-c", "3", "-i", "0.2", "-W", "5", "10.0.0.2"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let neighbours = Command::new("ip").args(["neigh", "show", "dev", tap.name()]).output().unwrap();
    let neighbours = String::from_utf8_lossy(&neighbours.stdout).into_owned();
    assert!(neighbours.contains("02:00:00:00:07:08"), "{neighbours}");
    // It waits for the next frame, and can be held and ended all the same.
    guest.pause().unwrap();
    guest.resume().unwrap();
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}

#[test]
fn clocks_go_right_and_waits_last_as_long_as_they_should() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let (status, output) = run(build_hvt(&runtime, "clock"));
    assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), "monotonic\nwall\nsleep\nyield\n"));
}

#[test]
fn all_memory_can_be_used() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for (size, touched) in [(4, 1), (64, 60), (256, 250)] {
        let (status, output) =
            run(build_hvt(&runtime, "memory").memory(ByteSize::mib(size)).arg(touched.to_string()));
        assert_eq!(status, ExitStatus::Exited(0), "{size}: {output}");
        assert!(output.starts_with(&format!("{} pages", touched * 256)), "{output}");
    }
    let (status, output) = run(build_hvt(&runtime, "memory").memory(ByteSize::mib(4)).arg("5"));
    assert_eq!(status, ExitStatus::Exited(1), "{output}");
    let (status, output) =
        run(build_hvt(&runtime, "memory").memory(ByteSize::mib(64)).huge_pages(true).arg("40"));
    assert_eq!(status, ExitStatus::Exited(0), "{output}");
}
