//! Starting, waiting, killing, pausing, letting go.

mod common;

use common::{build, exists, run, start_sleeper};
use nabla_monitor::{Console, DeviceProperties, ExitStatus, OpenImage, Runtime, Supervision};
use rustix::event::epoll;
use std::{fs, os::fd::AsFd, thread, time::Duration};

const BOTH: [Supervision; 2] = [Supervision::None, Supervision::Full];

#[test]
fn exit_status_is_the_guests() {
    let runtime = Runtime::new();
    for supervision in BOTH {
        for code in [0_u8, 1, 2, 42, 125, 126, 127, 128, 139, 254] {
            let guest = build(&runtime, "exit").arg(code.to_string()).supervision(supervision);
            assert_eq!(guest.start().unwrap().wait().unwrap(), ExitStatus::Exited(code), "{supervision:?}");
        }
    }
}

#[test]
fn abort_and_panic_are_aborted() {
    let runtime = Runtime::new();
    for name in ["abort", "panic"] {
        let (status, output) = run(build(&runtime, name));
        assert_eq!(status, ExitStatus::Aborted, "{name}: {output}");
    }
    let (_, output) = run(build(&runtime, "panic"));
    assert!(output.contains("panic.rs:"), "no location in: {output}");
}

#[test]
fn arguments_arrive_joined_by_spaces() {
    let runtime = Runtime::new();
    let (status, output) = run(build(&runtime, "hello").args(["one", "two words"]).arg("three"));
    assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), "Hello, World one two words three\n"));
}

#[test]
fn killed_guest_says_so_and_wait_can_be_repeated() {
    let runtime = Runtime::new();
    for supervision in BOTH {
        let guest = build(&runtime, "spin").supervision(supervision).start().unwrap();
        assert_eq!(guest.is_supervised(), supervision == Supervision::Full);
        assert_eq!(guest.try_wait().unwrap(), None);
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
        assert_eq!(guest.try_wait().unwrap(), Some(ExitStatus::Killed(9)));
        guest.kill().unwrap();
    }
}

#[test]
fn signal_from_elsewhere_is_killed_by_it() {
    let runtime = Runtime::new();
    for (supervision, signal) in BOTH.into_iter().flat_map(|s| [15, 1, 2, 11].map(|signal| (s, signal))) {
        let guest = build(&runtime, "spin").supervision(supervision).start().unwrap();
        let status = std::process::Command::new("kill")
            .args([format!("-{signal}"), guest.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        let status = guest.wait().unwrap();
        match (supervision, signal) {
            // Without a supervisor, a sent SIGSEGV looks like a fault.
            (Supervision::None, 11) => assert!(matches!(status, ExitStatus::Faulted(_)), "{status}"),
            _ => assert_eq!(status, ExitStatus::Killed(signal)),
        }
    }
}

#[test]
fn dropping_the_handle_kills_the_guest() {
    let runtime = Runtime::new();
    for supervision in BOTH {
        let guest = build(&runtime, "spin").supervision(supervision).start().unwrap();
        let pid = guest.pid();
        assert!(exists(pid));
        drop(guest);
        assert!(!exists(pid));
    }
}

#[test]
fn guest_outlives_the_thread_that_started_it() {
    let runtime = Runtime::new();
    let guest = thread::spawn({
        let runtime = runtime.clone();
        move || start_sleeper(&runtime)
    })
    .join()
    .unwrap();
    // The supervisor, started by the thread that has ended, still works for others.
    let other = build(&runtime, "fault").arg("ud2").start().unwrap();
    assert!(matches!(other.wait().unwrap(), ExitStatus::Faulted(_)));
    assert_eq!(guest.try_wait().unwrap(), None);
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}

#[test]
fn detached_guest_outlives_its_handle_and_its_runtime() {
    for supervision in BOTH {
        let runtime = Runtime::new();
        let guest = build(&runtime, "sleeper").supervision(supervision).start().unwrap();
        let pid = guest.detach().unwrap();
        drop(runtime);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("TracerPid:\t0"), "{status}");
        assert!(!status.contains("State:\tZ"), "{status}");
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[test]
fn wait_timeout_ends_with_the_time_or_the_guest() {
    let runtime = Runtime::new();
    let guest = build(&runtime, "sleeper").arg("30").start().unwrap();
    assert_eq!(guest.wait_timeout(Duration::from_millis(1)).unwrap(), None);
    assert_eq!(guest.wait_timeout(Duration::from_secs(60)).unwrap(), Some(ExitStatus::Exited(0)));
    assert_eq!(guest.wait_timeout(Duration::MAX).unwrap(), Some(ExitStatus::Exited(0)));
}

#[test]
fn several_threads_can_wait_while_another_kills() {
    let runtime = Runtime::new();
    let guest = start_sleeper(&runtime);
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| guest.wait().unwrap())).collect();
        guest.kill().unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), ExitStatus::Killed(9));
        }
    });
}

#[test]
fn exit_descriptor_works_in_an_event_loop() {
    let runtime = Runtime::new();
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let guests: Vec<_> =
        (0..20_u64).map(|i| build(&runtime, "exit").arg(i.to_string()).start().unwrap()).collect();
    for (i, guest) in (0_u64..).zip(&guests) {
        epoll::add(&set, guest.as_fd(), epoll::EventData::new_u64(i), epoll::EventFlags::IN).unwrap();
    }
    let mut ended = 0;
    while ended < guests.len() {
        let mut events = Vec::with_capacity(8);
        // A test that changes this program's identity has the C library interrupt every thread.
        rustix::io::retry_on_intr(|| epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None))
            .unwrap();
        for event in &events {
            let i = event.data.u64();
            let guest = &guests[usize::try_from(i).unwrap()];
            assert_eq!(guest.try_wait().unwrap(), Some(ExitStatus::Exited(u8::try_from(i).unwrap())));
            epoll::delete(&set, guest.as_fd()).unwrap();
            ended += 1;
        }
    }
}

#[test]
fn paused_guest_stands_still_until_resumed() {
    fn state(pid: u32) -> String {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1[..1].to_owned()
    }
    let runtime = Runtime::new();
    for supervision in BOTH {
        let guest = build(&runtime, "spin").supervision(supervision).start().unwrap();
        for _ in 0..3 {
            guest.pause().unwrap();
            assert!(matches!(state(guest.pid()).as_str(), "T" | "t"), "{supervision:?}");
            let before = guest.usage().unwrap().user_time;
            assert_eq!(guest.try_wait().unwrap(), None);
            assert_eq!(guest.usage().unwrap().user_time, before);
            guest.resume().unwrap();
        }
        guest.pause().unwrap();
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
        guest.pause().unwrap();
    }
}

#[test]
fn paused_guest_can_be_detached_and_dropped() {
    let runtime = Runtime::new();
    let guest = build(&runtime, "spin").start().unwrap();
    guest.pause().unwrap();
    drop(guest);
    let guest = build(&runtime, "spin").start().unwrap();
    guest.pause().unwrap();
    let pid = guest.detach().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn usage_is_told_while_running_and_afterwards() {
    let runtime = Runtime::new();
    let guest = build(&runtime, "spin").start().unwrap();
    while guest.usage().unwrap().user_time < Duration::from_millis(20) {
        thread::yield_now();
    }
    assert!(guest.usage().unwrap().resident > 0);
    guest.kill().unwrap();
    guest.wait().unwrap();
    let usage = guest.usage().unwrap();
    assert!(usage.user_time >= Duration::from_millis(10), "{usage:?}");
}

#[test]
fn memory_size_does_not_matter_to_what_is_used() {
    let runtime = Runtime::new();
    for size in [4, 64, 4096, 65536, 1 << 20] {
        let size = nabla_monitor::ByteSize::mib(size);
        let guest = build(&runtime, "sleeper").memory(size).console(Console::pipe()).start().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(&mut guest.take_console().unwrap(), &mut ready).unwrap();
        assert!(guest.usage().unwrap().resident < 1 << 20, "{size}");
    }
}

#[test]
fn peak_memory_of_an_ended_guest_is_its_own() {
    let runtime = Runtime::new();
    let peak = |builder: nabla_monitor::GuestBuilder| {
        let guest = builder.start().unwrap();
        assert!(guest.wait().unwrap().success());
        guest.usage().unwrap().max_resident
    };
    // This program alone is larger than that.
    let small = peak(build(&runtime, "hello"));
    assert!(small < 1 << 20, "{small}");
    let large = peak(build(&runtime, "memory").memory(nabla_monitor::ByteSize::mib(128)).arg("32"));
    assert!((32 << 20..40 << 20).contains(&large), "{large}");
}

#[test]
fn the_image_that_was_opened_is_the_one_that_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.nabla");
    fs::copy(nabla_testkit::guest("hello"), &path).unwrap();
    let image = OpenImage::open(&path).unwrap();
    let other = directory.path().join("other");
    fs::write(&other, "not an image").unwrap();
    fs::rename(&other, &path).unwrap();
    let runtime = Runtime::new();
    let (status, output) = run(runtime.guest(image).memory(nabla_monitor::ByteSize::mib(16)));
    assert_eq!((status, &*output), (ExitStatus::Exited(0), &*run(build(&runtime, "hello")).1));
    runtime.guest(&path).start().unwrap_err();
}

#[test]
fn a_guest_tells_its_devices_as_they_are() {
    if !nabla_testkit::need::tap() {
        return;
    }
    let tap = nabla_testkit::TestTap::up("10.202.9.1/24");
    let runtime = Runtime::new();
    let guest = build(&runtime, "net-echo").net(tap.name()).start().unwrap();
    let [device] = guest.devices() else { panic!("{:?}", guest.devices()) };
    let DeviceProperties::Net(net) = &device.properties else { panic!("{device:?}") };
    assert_eq!((&*device.name, net.interface.as_deref(), net.mtu), ("service0", Some(tap.name()), 1500));
    // Made up, and told all the same.
    assert_eq!(net.mac.0[0] & 3, 2);
}
