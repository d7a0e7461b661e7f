//! Disks, taps, clocks and memory.

use crate::{
    backend::{Backend, each_backend},
    child::alone,
    common::{disk_file, message, run},
};
use nabla_monitor::{
    BlockDevice, BlockErrorKind, ByteSize, DeviceError, Error, ExitStatus, Guest, MacAddress, NetDevice,
    Runtime, Tap, TapErrorKind,
};
use nabla_testkit::{TestTap, need};
use std::{fs, process::Command};

each_backend! {
    guest_reads_its_disk,
    guest_writes_its_disk_in_blocks_of_every_size,
    read_only_disk_is_not_written_and_the_guest_is_told,
    named_devices_go_where_their_names_say,
    disk_that_is_written_is_locked_against_everybody_as_long_as_the_guest_runs,
    wrong_disks_are_refused_with_the_reason,
    missing_superfluous_and_ambiguous_devices_are_refused,
    guest_answers_on_its_tap,
    wrong_taps_are_refused_with_the_reason,
    clocks_go_right_and_waits_last_as_long_as_they_should,
    all_memory_can_be_used,
    garbage_on_a_tap_hurts_nobody,
}

fn guest_reads_its_disk(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let text = "forty-two bytes that stand on a disk\n";
    let file = |name| disk_file(&directory, name, text.as_bytes());
    let opened = fs::OpenOptions::new().read(true).open(file("opened")).unwrap();
    for disk in [
        BlockDevice::new(file("a")),
        BlockDevice::new(file("b")).read_only(),
        BlockDevice::new(file("c")).unlocked(),
        BlockDevice::from_fd(opened.into()),
    ] {
        let (status, output) = run(backend.build(&runtime, "cat").block(disk));
        assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), text));
    }
}

fn guest_writes_its_disk_in_blocks_of_every_size(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    for block_size in [512, 1024, 2048, 4096, 8192, 16384, 32768] {
        let path = directory.path().join(block_size.to_string());
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let disk = BlockDevice::new(&path).block_size(block_size);
        let (status, output) = run(backend.build(&runtime, "blk").block_device("storage", disk));
        assert_eq!(status, ExitStatus::Exited(0), "{block_size}: {output}");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes.iter().any(|&byte| byte != 0), "{block_size}: nothing was written");
    }
}

fn read_only_disk_is_not_written_and_the_guest_is_told(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let (status, output) = run(backend.build(&runtime, "blk").block(BlockDevice::new(&path).read_only()));
    assert!(matches!(status, ExitStatus::Exited(1..) | ExitStatus::Aborted), "{status}: {output}");
    assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
}

fn named_devices_go_where_their_names_say(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (disk_file(&directory, "a", b"from a"), disk_file(&directory, "b", b"old"));
    let (status, output) =
        run(backend.build(&runtime, "two-disks").block_device("b", &b).block_device("a", &a));
    assert_eq!(status, ExitStatus::Exited(0), "{output}");
    assert!(fs::read(&b).unwrap().starts_with(b"from a\0"));
}

fn disk_that_is_written_is_locked_against_everybody_as_long_as_the_guest_runs(backend: &Backend) {
    alone(|| {
        let runtime = Runtime::new();
        let directory = tempfile::tempdir().unwrap();
        let path = disk_file(&directory, "disk.img", b"x");
        let start = |disk: BlockDevice| backend.build(&runtime, "sleeper-disk").block(disk).start();
        let locked = |result: Result<Guest, Error>| {
            let Err(Error::Device(DeviceError::Block(error))) = &result else { panic!("{result:?}") };
            assert!(matches!(error.kind, BlockErrorKind::Locked { .. }), "{error:?}");
        };
        let writer = start(BlockDevice::new(&path)).unwrap();
        locked(start(BlockDevice::new(&path)));
        locked(start(BlockDevice::new(&path).read_only()));
        let unlocked = start(BlockDevice::new(&path).unlocked()).unwrap();
        drop((writer, unlocked));
        let readers = [(); 2].map(|()| start(BlockDevice::new(&path).read_only()).unwrap());
        locked(start(BlockDevice::new(&path)));
        drop(readers);
        for _ in 0..5 {
            let guest = start(BlockDevice::new(&path)).unwrap();
            locked(start(BlockDevice::new(&path)));
            guest.kill().unwrap();
            guest.wait().unwrap();
            // The handle is still there, and the disk is free.
            drop(start(BlockDevice::new(&path)).unwrap());
            drop(guest);
        }
    });
}

fn wrong_disks_are_refused_with_the_reason(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    let error = |disk: BlockDevice| match backend.build(&runtime, "cat").block(disk).start() {
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

fn missing_superfluous_and_ambiguous_devices_are_refused(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let disk = disk_file(&directory, "disk.img", b"x");
    let error = |builder: nabla_monitor::GuestBuilder| builder.start().unwrap_err();
    for (error, text) in [
        (
            error(backend.build(&runtime, "cat")),
            "block device 'storage' is declared by the guest and not attached",
        ),
        (error(backend.build(&runtime, "hello").block(&disk)), "the guest declares no block device"),
        (
            error(backend.build(&runtime, "cat").block_device("x", &disk)),
            "no block device called 'x'; it declares 'storage'",
        ),
        (
            error(backend.build(&runtime, "two-disks").block(&disk)),
            "must be said by name, since the guest declares 'a', 'b'",
        ),
        (
            error(backend.build(&runtime, "two-disks").block_device("a", &disk)),
            "block device 'b' is declared",
        ),
        (
            error(backend.build(&runtime, "cat").block(&disk).block_device("storage", &disk)),
            "'storage' is attached twice",
        ),
        (error(backend.build(&runtime, "cat").block(&disk).net("tap0")), "the guest declares no net device"),
    ] {
        assert!(error.to_string().contains(text), "{error}");
    }
}

fn guest_answers_on_its_tap(backend: &Backend) {
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
        let guest =
            backend.build(&runtime, "net-echo").net_device("service0", device.mac(mac)).start().unwrap();
        let output = ping();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{by_descriptor}: {text}");
        let neighbours = Command::new("ip").args(["neigh", "show", "dev", tap.name()]).output().unwrap();
        let neighbours = String::from_utf8_lossy(&neighbours.stdout).into_owned();
        assert!(neighbours.contains("02:00:00:00:07:07"), "{neighbours}");
        // It waits for the next frame, and can be held and ended all the same.
        guest.pause().unwrap();
        guest.resume().unwrap();
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    }
}

fn wrong_taps_are_refused_with_the_reason(backend: &Backend) {
    if !need::tap() {
        return;
    }
    let runtime = Runtime::new();
    let error = |tap: &str| match backend.build(&runtime, "net-echo").net(tap).start() {
        Err(Error::Device(DeviceError::Net(error))) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error("nabla-none0").kind, TapErrorKind::NotFound));
    let down = TestTap::new();
    assert!(matches!(error(down.name()).kind, TapErrorKind::Down));
    assert!(matches!(error("lo").kind, TapErrorKind::NotATap));
    let tap = TestTap::up("10.202.7.1/24");
    let _running = backend.build(&runtime, "net-echo").net(tap.name()).start().unwrap();
    assert!(matches!(error(tap.name()).kind, TapErrorKind::Busy));
}

fn clocks_go_right_and_waits_last_as_long_as_they_should(backend: &Backend) {
    let runtime = Runtime::new();
    let (status, output) = run(backend.build(&runtime, "clock"));
    assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), "monotonic\nwall\nsleep\nyield\n"));
}

fn all_memory_can_be_used(backend: &Backend) {
    let runtime = Runtime::new();
    for (size, touched) in [(4, 1), (64, 60), (256, 250)] {
        let (status, output) =
            run(backend.build(&runtime, "memory").memory(ByteSize::mib(size)).arg(touched.to_string()));
        assert_eq!(status, ExitStatus::Exited(0), "{size}: {output}");
        assert!(output.starts_with(&format!("{} pages", touched * 256)), "{output}");
    }
    let (status, output) = run(backend.build(&runtime, "memory").memory(ByteSize::mib(4)).arg("5"));
    assert_eq!(status, ExitStatus::Exited(1), "{output}");
    let (status, output) =
        run(backend.build(&runtime, "memory").memory(ByteSize::mib(64)).huge_pages(true).arg("40"));
    assert_eq!(status, ExitStatus::Exited(0), "{output}");
}

/// Whether the host's side is up or goes down meanwhile.
fn garbage_on_a_tap_hurts_nobody(backend: &Backend) {
    if !need::tap() {
        return;
    }
    let runtime = Runtime::new();
    for is_up in [true, false] {
        let tap = TestTap::up("10.0.0.1/24");
        let opened = tap.open();
        if !is_up {
            tap.ip(&["link", "set", tap.name(), "down"]);
        }
        let builder = backend.build(&runtime, "net-garbage").memory(ByteSize::mib(32));
        let (status, output) = run(builder.net(opened));
        assert_eq!(status, ExitStatus::Exited(0), "{output}");
        assert!(output.starts_with("refused "), "{output}");
    }
}
