//! Disks and taps.

mod common;

use common::{build, disk_file, message, run};
use nabla_monitor::{
    BlockDevice, BlockError, BlockErrorKind, DeviceError, Error, ExitStatus, MacAddress, NetDevice, Runtime,
    Tap, TapErrorKind,
};
use nabla_testkit::{TestTap, need};
use std::{fs, process::Command};

#[test]
fn guest_reads_its_disk() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let disk = disk_file(&directory, "disk.img", b"forty-two bytes that stand on a disk\n");
    for disk in
        [BlockDevice::new(&disk), BlockDevice::new(&disk).read_only(), BlockDevice::new(&disk).unlocked()]
    {
        let (status, output) = run(build(&runtime, "cat").block(disk));
        assert_eq!(
            (status, output.as_str()),
            (ExitStatus::Exited(0), "forty-two bytes that stand on a disk\n")
        );
    }
    let open = fs::OpenOptions::new().read(true).open(&disk).unwrap();
    let (status, _) = run(build(&runtime, "cat").block(BlockDevice::from_fd(open.into())));
    assert!(status.success());
}

#[test]
fn guest_writes_its_disk_in_blocks_of_every_size() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    for block_size in [512, 1024, 2048, 4096, 8192, 16384, 32768] {
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let disk = BlockDevice::new(&path).block_size(block_size);
        let (status, output) = run(build(&runtime, "blk").block_device("storage", disk));
        assert_eq!(status, ExitStatus::Exited(0), "{block_size}: {output}");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes.iter().any(|&byte| byte != 0), "{block_size}: nothing was written");
    }
}

#[test]
fn read_only_disk_is_not_written_and_the_guest_is_told() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let (status, output) = run(build(&runtime, "blk").block(BlockDevice::new(&path).read_only()));
    assert!(matches!(status, ExitStatus::Exited(1..) | ExitStatus::Aborted), "{status}: {output}");
    assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
}

#[test]
fn named_devices_go_where_their_names_say() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (disk_file(&directory, "a", b"from a"), disk_file(&directory, "b", b"old"));
    let (status, output) = run(build(&runtime, "two-disks").block_device("b", &b).block_device("a", &a));
    assert_eq!(status, ExitStatus::Exited(0), "{output}");
    assert!(fs::read(&b).unwrap().starts_with(b"from a\0"));
}

#[test]
fn disk_that_is_written_is_locked_against_everybody_as_long_as_the_guest_runs() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = disk_file(&directory, "disk.img", b"x");
    let start = |disk: BlockDevice| build(&runtime, "sleeper-disk").block(disk).start();
    let locked = |result: Result<_, Error>| {
        assert!(
            matches!(&result, Err(Error::Device(DeviceError::Block(error))) if matches!(error.kind, BlockErrorKind::Locked { .. })),
            "{result:?}"
        );
    };
    let writer = start(BlockDevice::new(&path)).unwrap();
    locked(start(BlockDevice::new(&path)));
    locked(start(BlockDevice::new(&path).read_only()));
    let unlocked = start(BlockDevice::new(&path).unlocked()).unwrap();
    drop((writer, unlocked));
    // A program that another test starts has this program's descriptors, and with them the lock, until it executes.
    let start_soon = |read_only: bool| loop {
        let disk = BlockDevice::new(&path);
        match start(if read_only { disk.read_only() } else { disk }) {
            Err(Error::Device(DeviceError::Block(BlockError {
                kind: BlockErrorKind::Locked { .. },
                ..
            }))) => {
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    };
    let readers = [start_soon(true), start(BlockDevice::new(&path).read_only()).unwrap()];
    locked(start(BlockDevice::new(&path)));
    drop(readers);
    start_soon(false);
}

#[test]
fn wrong_disks_are_refused_with_the_reason() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    let error = |disk: BlockDevice| match build(&runtime, "cat").block(disk).start() {
        Err(Error::Device(DeviceError::Block(error))) => error,
        other => panic!("{other:?}"),
    };
    let text = |disk: BlockDevice| message(&error(disk));
    assert!(text(BlockDevice::new(&path)).contains("No such file"), "{}", text(BlockDevice::new(&path)));
    fs::write(&path, b"").unwrap();
    assert!(matches!(error(BlockDevice::new(&path)).kind, BlockErrorKind::TooSmall { capacity: 0, .. }));
    fs::write(&path, vec![0; 511]).unwrap();
    assert!(matches!(error(BlockDevice::new(&path)).kind, BlockErrorKind::TooSmall { capacity: 511, .. }));
    fs::write(&path, vec![0; 513]).unwrap();
    assert!(matches!(error(BlockDevice::new(&path)).kind, BlockErrorKind::Unaligned { capacity: 513, .. }));
    fs::write(&path, vec![0; 1024]).unwrap();
    assert!(matches!(
        error(BlockDevice::new(&path).block_size(4096)).kind,
        BlockErrorKind::TooSmall { capacity: 1024, block_size: 4096 }
    ));
    for block_size in [0, 1, 511, 513, 65536, u32::MAX] {
        let kind = error(BlockDevice::new(&path).block_size(block_size)).kind;
        assert!(matches!(kind, BlockErrorKind::BlockSize { .. }), "{block_size}: {kind}");
    }
    for path in [directory.path().to_owned(), "/dev/null".into(), fifo(&directory)] {
        let kind = error(BlockDevice::new(path).read_only()).kind;
        assert!(matches!(kind, BlockErrorKind::NotADisk { .. }), "{kind}");
    }
}

fn fifo(directory: &tempfile::TempDir) -> std::path::PathBuf {
    let path = directory.path().join("fifo");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    path
}

#[test]
fn missing_superfluous_and_ambiguous_devices_are_refused() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let disk = disk_file(&directory, "disk.img", b"x");
    let error = |builder: nabla_monitor::GuestBuilder| builder.start().unwrap_err();
    for (error, text) in [
        (error(build(&runtime, "cat")), "block device 'storage' is declared by the guest and not attached"),
        (
            error(build(&runtime, "hello").block(&disk)),
            "the guest declares no block device; it declares none",
        ),
        (
            error(build(&runtime, "cat").block_device("x", &disk)),
            "no block device called 'x'; it declares 'storage'",
        ),
        (
            error(build(&runtime, "two-disks").block(&disk)),
            "must be said by name, since the guest declares 'a', 'b'",
        ),
        (error(build(&runtime, "two-disks").block_device("a", &disk)), "block device 'b' is declared"),
        (
            error(build(&runtime, "cat").block(&disk).block_device("storage", &disk)),
            "'storage' is attached twice",
        ),
        (error(build(&runtime, "cat").block(&disk).net("tap0")), "the guest declares no net device"),
    ] {
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn guest_answers_on_its_tap() {
    if !need::tap() || !need::program("ping") {
        return;
    }
    let tap = TestTap::up("10.0.0.1/24");
    let runtime = Runtime::new();
    let ping =
        || Command::new("ping").args(["-c", "3", "-i", "0.2", "-W", "5", "10.0.0.2"]).output().unwrap();
    for by_descriptor in [false, true] {
        let device = if by_descriptor {
            NetDevice::from(Tap::from_fd(tap.open().into()).unwrap())
        } else {
            NetDevice::from(tap.name())
        };
        let mac = MacAddress([2, 0, 0, 0, 7, 7]);
        let guest = build(&runtime, "net-echo").net_device("service0", device.mac(mac)).start().unwrap();
        let output = ping();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{by_descriptor}: {text}");
        let neighbours = Command::new("ip").args(["neigh", "show", "dev", tap.name()]).output().unwrap();
        let neighbours = String::from_utf8_lossy(&neighbours.stdout).into_owned();
        assert!(neighbours.contains("02:00:00:00:07:07"), "{neighbours}");
        drop(guest);
    }
}

#[test]
fn wrong_taps_are_refused_with_the_reason() {
    if !need::tap() {
        return;
    }
    let runtime = Runtime::new();
    let error = |tap: &str| match build(&runtime, "net-echo").net(tap).start() {
        Err(Error::Device(DeviceError::Net(error))) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error("nabla-none0").kind, TapErrorKind::NotFound));
    let down = TestTap::new();
    assert!(matches!(error(down.name()).kind, TapErrorKind::Down));
    assert!(matches!(error("lo").kind, TapErrorKind::NotATap));
    let tap = TestTap::up("10.202.7.1/24");
    let _running = build(&runtime, "net-echo").net(tap.name()).start().unwrap();
    assert!(matches!(error(tap.name()).kind, TapErrorKind::Busy));
}
