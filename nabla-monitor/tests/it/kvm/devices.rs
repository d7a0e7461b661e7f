//! What the monitor counts of a guest's calls, and a disk that changes while it runs.

use crate::backend::{KVM, PROCESS};
use nabla_monitor::{BlockDevice, ExitStatus, Runtime};
use nabla_testkit::need;
use std::fs;

#[test]
fn what_the_guest_did_is_counted() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    let guest = KVM.build(&runtime, "disk-sum").block_device("storage", &path).start().unwrap();
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
    let waiting = KVM.build(&runtime, "sleeper").arg("20").start().unwrap();
    waiting.wait().unwrap();
    let counters = waiting.counters().unwrap();
    assert!(counters.hypercalls.poll >= 1 && counters.time_waiting.as_millis() >= 15, "{counters:?}");
    // Processes make their calls themselves.
    let process = PROCESS.build(&runtime, "exit").start().unwrap();
    assert_eq!(process.counters(), None);
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
    let guest = KVM.build(&runtime, "disk-sum").block(BlockDevice::new(&path).read_only()).start().unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    let status = guest.wait().unwrap();
    assert!(matches!(status, ExitStatus::Exited(1)), "{status}");
}
