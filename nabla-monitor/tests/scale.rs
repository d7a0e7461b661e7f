//! Many guests at once, and nothing left afterwards.
//!
//! In a program of its own, since it counts the descriptors and processes of the whole program.

mod common;

use common::{backends, build, exists, message, open_descriptors};
use nabla_monitor::{Console, ExitStatus, GdbListener, Guest, Runtime};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::Mutex,
    thread,
};

/// All tests count what the program has open.
static ALONE: Mutex<()> = Mutex::new(());

/// Processes that share this program's memory: supervisors.
fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&own)
        })
        .collect()
}

#[test]
fn a_thousand_guests_live_at_once_and_leave_nothing() {
    let _alone = ALONE.lock().unwrap();
    let _ = nabla_testkit::guest("sleeper");
    let descriptors = open_descriptors();
    let processes = children();
    {
        let runtime = Runtime::new();
        let start = || -> (Guest, _) {
            let guest = build(&runtime, "sleeper").console(Console::pipe()).start().unwrap();
            let console = guest.take_console().unwrap();
            (guest, console)
        };
        // Two descriptors for each guest here; a limit of 1024 would not do.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        if limit.current.is_some_and(|limit| limit < 4096) {
            let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
        }
        let mut guests: Vec<_> = (0..1000).map(|_| start()).collect();
        for (_, console) in &mut guests {
            let mut ready = [0; 6];
            console.read_exact(&mut ready).unwrap();
        }
        let memory: u64 = guests.iter().take(50).map(|(guest, _)| proportional_memory(guest.pid())).sum();
        assert!(memory / 50 < 100 << 10, "an idle guest uses {} bytes", memory / 50);
        let pids: Vec<u32> = guests.iter().map(|(guest, _)| guest.pid()).collect();
        assert!(guests.iter().all(|(guest, _)| guest.try_wait().unwrap().is_none()));
        for (guest, _) in &guests[..500] {
            guest.kill().unwrap();
        }
        for (guest, _) in &guests[..500] {
            assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
        }
        drop(guests);
        assert!(!pids.into_iter().any(exists));
    }
    assert_eq!(open_descriptors(), descriptors);
    assert_eq!(children(), processes);
}

fn proportional_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn guests_start_and_end_from_many_threads() {
    let _alone = ALONE.lock().unwrap();
    let _ = nabla_testkit::guest("exit");
    let descriptors = open_descriptors();
    {
        let runtime = Runtime::new();
        thread::scope(|scope| {
            for thread in 0..8_u8 {
                let runtime = &runtime;
                scope.spawn(move || {
                    for i in 0..40_u8 {
                        let code = thread * 20 + i % 20;
                        let guest = build(runtime, "exit").arg(code.to_string()).start().unwrap();
                        if i % 4 == 3 {
                            guest.kill().unwrap();
                        } else {
                            assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(code));
                        }
                    }
                });
            }
        });
    }
    assert_eq!(open_descriptors(), descriptors);
}

#[test]
fn failed_starts_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    // A cgroup that cannot be entered: this fails in the guest's process.
    std::os::unix::fs::symlink("/dev/full", directory.path().join("cgroup.procs")).unwrap();
    let mut isolation = nabla_monitor::Isolation::default();
    isolation.cgroup = Some(directory.path().to_owned());
    let runtime = Runtime::new();
    build(&runtime, "hello").start().unwrap().wait().unwrap();
    let (descriptors, processes) = (open_descriptors(), children());
    for _ in 0..20 {
        runtime.guest("/bin/true").start().unwrap_err();
        runtime.guest("/nonexistent").start().unwrap_err();
        build(&runtime, "cat").start().unwrap_err();
        build(&runtime, "hello").console(Console::file("/nonexistent/x")).start().unwrap_err();
        let error = build(&runtime, "hello").isolation(isolation.clone()).start().unwrap_err();
        let error = message(&error);
        assert!(error.starts_with("cannot enter the cgroup: No space left on device"), "{error}");
    }
    assert_eq!(open_descriptors(), descriptors);
    assert_eq!(children(), processes);
}

#[test]
fn a_guest_that_nobody_debugs_can_be_dropped() {
    let _alone = ALONE.lock().unwrap();
    for build in backends() {
        let runtime = Runtime::new();
        drop(build(&runtime, "exit").start().unwrap());
        let before = open_descriptors().len();
        for round in 0..3 {
            let listener = GdbListener::tcp("127.0.0.1:0").unwrap();
            let address = listener.to_string();
            let guest = build(&runtime, "exit").gdb(listener).start().unwrap();
            assert_eq!(guest.try_wait().unwrap(), None);
            // Somebody may be in the middle of it: connected, or talking and silent then.
            let mut connection = TcpStream::connect(&address).unwrap();
            if round > 0 {
                connection.write_all(b"$?#3f").unwrap();
                connection.read_exact(&mut [0; 2]).unwrap();
            }
            drop(guest);
            drop(connection);
            assert!(TcpStream::connect(&address).is_err(), "it still listens");
        }
        assert!(open_descriptors().len() <= before, "descriptors are left");
    }
}
