//! Guests in virtual machines: starting, waiting, killing, pausing.

mod common;

use common::{build_hvt, message, open_descriptors, run};
use nabla_monitor::{ByteSize, Console, Error, ExitStatus, Guest, Isolation, Runtime};
use nabla_testkit::need;
use rustix::event::epoll;
use std::{
    fs,
    io::Read,
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Starts a guest that prints "ready", and returns once it has.
fn start_ready(runtime: &Runtime, name: &str) -> Guest {
    let guest = build_hvt(runtime, name).console(Console::pipe()).start().unwrap();
    let mut ready = [0; 6];
    guest.take_console().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    guest
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn exit_status_is_the_guests() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for code in [0_u8, 1, 2, 42, 127, 128, 254] {
        let guest = build_hvt(&runtime, "exit").arg(code.to_string()).start().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(code));
        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(code));
    }
}

#[test]
fn abort_and_panic_are_aborted() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for name in ["abort", "panic"] {
        let (status, output) = run(build_hvt(&runtime, name));
        assert_eq!(status, ExitStatus::Aborted, "{name}: {output}");
    }
}

#[test]
fn arguments_arrive_and_every_console_gets_the_output() {
    if !need::kvm() {
        return;
    }
    let expected = "Hello, World one two words three\n";
    let runtime = Runtime::new();
    let build = || build_hvt(&runtime, "hello").args(["one", "two words"]).arg("three");
    assert_eq!(run(build()), (ExitStatus::Exited(0), expected.to_owned()));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    build().console(Console::file(&path)).start().unwrap().wait().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    build().console(Console::writer(sink.clone())).start().unwrap().wait().unwrap();
    assert_eq!(*sink.0.lock().unwrap(), expected.as_bytes());
}

#[test]
fn guest_that_writes_more_than_a_pipe_holds_waits_for_its_reader() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = build_hvt(&runtime, "chatty").arg("100000").console(Console::pipe()).start().unwrap();
    assert_eq!(guest.wait_timeout(Duration::from_millis(100)).unwrap(), None);
    // A guest that waits for its reader can be held and killed all the same.
    guest.pause().unwrap();
    guest.resume().unwrap();
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    let guest = build_hvt(&runtime, "chatty").arg("10000").console(Console::pipe()).start().unwrap();
    let mut output = Vec::new();
    guest.take_console().unwrap().read_to_end(&mut output).unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
    assert!(output.len() > 64 << 10, "{}", output.len());
    // A reader that goes away does not end it.
    let guest = build_hvt(&runtime, "chatty").arg("10000").console(Console::pipe()).start().unwrap();
    drop(guest.take_console());
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
}

#[test]
fn guest_that_never_exits_to_the_monitor_can_be_killed() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for name in ["spin", "sleeper"] {
        let guest = start_ready(&runtime, name);
        assert_eq!(guest.try_wait().unwrap(), None);
        assert_eq!(guest.wait_timeout(Duration::from_millis(20)).unwrap(), None);
        let start = Instant::now();
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
        assert!(start.elapsed() < Duration::from_secs(5));
        guest.kill().unwrap();
        guest.pause().unwrap();
        guest.resume().unwrap();
        assert_eq!(guest.try_wait().unwrap(), Some(ExitStatus::Killed(9)));
    }
}

#[test]
fn guest_can_be_killed_at_any_moment() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for exits in 0..40_u64 {
        let guest = build_hvt(&runtime, "calls").arg("1000000").start().unwrap();
        while guest.counters().is_some_and(|counters| counters.exits.hypercalls < exits) {
            thread::yield_now();
        }
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    }
}

#[test]
fn a_fork_of_the_host_program_does_not_end_the_guest() {
    if !need::kvm() {
        return;
    }
    let mut guest = Some(start_ready(&Runtime::new(), "spin"));
    let text = common::in_child(|| {
        drop(guest.take());
        "dropped".to_owned()
    });
    assert_eq!(text, "dropped");
    let guest = guest.unwrap();
    assert_eq!(guest.try_wait().unwrap(), None);
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}

#[test]
fn paused_guest_stands_still_until_resumed() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = start_ready(&runtime, "spin");
    for _ in 0..10 {
        guest.pause().unwrap();
        // The kernel counts processor time in ticks, of which one may come while the thread goes to sleep.
        let in_guest = || guest.counters().unwrap().time_in_guest;
        let before = in_guest();
        // Somebody else gets things done meanwhile.
        let other = build_hvt(&runtime, "exit").start().unwrap();
        assert_eq!(other.wait().unwrap(), ExitStatus::Exited(0));
        assert_eq!(in_guest(), before);
        assert_eq!(guest.try_wait().unwrap(), None);
        guest.resume().unwrap();
    }
    let before = guest.usage().unwrap().user_time;
    let deadline = Instant::now() + Duration::from_secs(10);
    while guest.usage().unwrap().user_time == before {
        assert!(Instant::now() < deadline, "it does not go on");
        thread::yield_now();
    }
    guest.pause().unwrap();
    guest.pause().unwrap();
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}

#[test]
fn pause_does_not_disturb_a_guest_that_waits() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = build_hvt(&runtime, "sleeper").arg("300").start().unwrap();
    for _ in 0..20 {
        guest.pause().unwrap();
        guest.resume().unwrap();
    }
    assert_eq!(guest.wait_timeout(Duration::from_secs(30)).unwrap(), Some(ExitStatus::Exited(0)));
}

#[test]
fn dropping_the_handle_ends_the_guest_and_leaves_nothing_behind() {
    if !need::kvm() {
        return;
    }
    // In a process of its own, since other tests of this program start threads and open files.
    if std::env::var_os("NABLA_TEST_ALONE").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "dropping_the_handle_ends_the_guest_and_leaves_nothing_behind",
                "--test-threads=1",
            ])
            .env("NABLA_TEST_ALONE", "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let runtime = Runtime::new();
    assert!(nabla_testkit::guest_hvt("spin").exists());
    let (descriptors, running) = (open_descriptors(), threads());
    for name in ["spin", "sleeper", "exit"] {
        let guest = build_hvt(&runtime, name).start().unwrap();
        drop(guest);
    }
    let paused = build_hvt(&runtime, "spin").start().unwrap();
    paused.pause().unwrap();
    drop(paused);
    assert_eq!(open_descriptors(), descriptors);
    assert_eq!(threads(), running);
}

#[test]
fn several_threads_wait_while_another_kills() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = start_ready(&runtime, "spin");
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| guest.wait().unwrap())).collect();
        guest.kill().unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), ExitStatus::Killed(9));
        }
    });
}

#[test]
fn guests_run_side_by_side_and_their_descriptors_work_in_an_event_loop() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let guests: Vec<_> =
        (0..16_u64).map(|i| build_hvt(&runtime, "exit").arg(i.to_string()).start().unwrap()).collect();
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
fn guest_outlives_the_thread_that_started_it_and_dies_with_its_handle() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = thread::spawn(move || start_ready(&runtime, "sleeper")).join().unwrap();
    assert_eq!(guest.try_wait().unwrap(), None);
    assert_eq!(guest.pid(), std::process::id());
    let error = message(&guest.detach().unwrap_err());
    assert!(error.contains("cannot outlive the program"), "{error}");
}

#[test]
fn usage_tells_time_and_memory() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let (status, output) =
        run(build_hvt(&runtime, "memory").arg("64").memory(ByteSize::gib(4)).console(Console::null()));
    assert!(status.success(), "{output}");
    let guest = start_ready(&runtime, "spin");
    while guest.usage().unwrap().user_time < Duration::from_millis(20) {
        thread::yield_now();
    }
    let resident = guest.usage().unwrap().resident;
    assert!(resident > 0 && resident < 2 << 20, "{resident}");
    guest.kill().unwrap();
    guest.wait().unwrap();
    let usage = guest.usage().unwrap();
    assert!(usage.user_time >= Duration::from_millis(10), "{usage:?}");
    assert!(usage.max_resident > 0 && usage.resident == 0, "{usage:?}");
}

#[test]
fn memory_size_does_not_matter_to_what_is_used() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for size in [4, 64, 512, 4096] {
        let guest = build_hvt(&runtime, "exit").memory(ByteSize::mib(size)).start().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0), "{size}");
        let used = guest.usage().unwrap().max_resident;
        assert!(used > 0 && used < 1 << 20, "{size}: {used}");
    }
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
        let error = message(&error(build_hvt(&runtime, "exit").memory(size)));
        assert!(error.contains(text), "{error}");
    }
    let mut isolation = Isolation::default();
    isolation.namespaces = true;
    let refused = error(build_hvt(&runtime, "exit").isolation(isolation));
    assert!(matches!(refused, Error::NotForVirtualMachines), "{refused}");
    // It cannot take the place of this process, so it is started.
    let started = build_hvt(&runtime, "exit").arg("3").exec().unwrap();
    assert_eq!(started.wait().unwrap(), ExitStatus::Exited(3));
}

#[test]
fn threads_of_guests_are_confined_and_the_others_are_not() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = build_hvt(&runtime, "spin").name("kvm-confined").start().unwrap();
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

#[test]
fn host_program_can_change_its_identity() {
    if !need::kvm() {
        return;
    }
    unsafe extern "C" {
        safe fn getgid() -> u32;
        safe fn setgid(gid: u32) -> i32;
    }
    let runtime = Runtime::new();
    let guests = [start_ready(&runtime, "spin"), start_ready(&runtime, "sleeper")];
    for _ in 0..20 {
        // The C library has every thread do it, the guests' too, and aborts the program when one cannot.
        assert_eq!(setgid(getgid()), 0);
    }
    for guest in &guests {
        assert_eq!(guest.try_wait().unwrap(), None);
    }
}

#[test]
fn host_program_can_change_its_identity_while_guests_start() {
    if !need::kvm() {
        return;
    }
    unsafe extern "C" {
        safe fn getgid() -> u32;
        safe fn setgid(gid: u32) -> i32;
    }
    // The C library then holds the lock that it also takes for new threads, until every thread has answered.
    let runtime = Runtime::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(setgid(getgid()), 0);
            }
        });
        for _ in 0..50 {
            let guest = build_hvt(&runtime, "exit").arg("7").start().unwrap();
            assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(7));
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn host_program_that_ends_or_is_killed_takes_its_guests_along() {
    if !need::kvm() {
        return;
    }
    // This program starts itself as the host program, which prints "ready" when its guest runs.
    if std::env::var_os("NABLA_TEST_HOST").is_some() {
        let runtime = Runtime::new();
        let guest = start_ready(&runtime, "spin");
        println!("\nhost ready");
        guest.wait().unwrap();
        return;
    }
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "host_program_that_ends_or_is_killed_takes_its_guests_along", "--nocapture"])
        .env("NABLA_TEST_HOST", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(host.stdout.take().unwrap());
    assert!(std::io::BufRead::lines(output).any(|line| line.unwrap() == "host ready"));
    host.kill().unwrap();
    // A processor that could not be stopped would keep the program from ending.
    let start = Instant::now();
    host.wait().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
}
