//! Guests in virtual machines are threads of this program.

use crate::{backend::KVM, common::message};
use nabla_monitor::{ByteSize, Error, ExitStatus, Isolation, Runtime};
use nabla_testkit::need;
use std::{fs, thread};

#[test]
fn guest_can_be_killed_at_any_moment() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for exits in 0..40_u64 {
        let guest = KVM.build(&runtime, "calls").arg("1000000").start().unwrap();
        while guest.counters().is_some_and(|counters| counters.exits.hypercalls < exits) {
            thread::yield_now();
        }
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    }
}

#[test]
fn guest_outlives_its_runtime_and_not_the_program() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = thread::spawn(move || KVM.start_ready(&runtime, "sleeper")).join().unwrap();
    assert_eq!(guest.try_wait().unwrap(), None);
    assert_eq!(guest.pid(), std::process::id());
    let error = message(&guest.detach().unwrap_err());
    assert!(error.contains("cannot outlive the program"), "{error}");
}

#[test]
fn wrong_memory_and_settings_are_refused() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let error = |builder: nabla_monitor::GuestBuilder| builder.start().unwrap_err();
    for (size, text) in [
        (ByteSize::mib(17), "not a multiple of"),
        (ByteSize::mib(4098), "is more than"),
        (ByteSize::bytes(0), "too little"),
    ] {
        let error = message(&error(KVM.build(&runtime, "exit").memory(size)));
        assert!(error.contains(text), "{error}");
    }
    let mut isolation = Isolation::default();
    isolation.namespaces = true;
    let refused = error(KVM.build(&runtime, "exit").isolation(isolation));
    assert!(matches!(refused, Error::NotForVirtualMachines), "{refused}");
    // It cannot take the place of this process, so it is started.
    let started = KVM.build(&runtime, "exit").arg("3").exec().unwrap();
    assert_eq!(started.wait().unwrap(), ExitStatus::Exited(3));
}

#[test]
fn threads_of_guests_are_confined_and_the_others_are_not() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = KVM.build(&runtime, "spin").name("kvm-confined").start().unwrap();
    let mut found = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        // Threads of other tests may end meanwhile.
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        if field("Name:") == "kvm-confined" {
            found += 1;
            assert_eq!((field("Seccomp:").as_str(), field("NoNewPrivs:").as_str()), ("2", "1"));
            // Everything is blocked but SIGKILL, SIGSTOP and the C library's 33. While guest code runs, 63 is open,
            // and while it does not, the C library's 32.
            let open = !u64::from_str_radix(&field("SigBlk:"), 16).unwrap();
            assert_eq!(open & !(1 << 62 | 1 << 31), 1 << 8 | 1 << 18 | 1 << 32);
        }
    }
    assert_eq!(found, 1);
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(own.contains("Seccomp:\t0") && own.contains("NoNewPrivs:\t0"), "{own}");
    drop(guest);
}
