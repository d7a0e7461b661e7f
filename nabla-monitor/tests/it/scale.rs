//! Many guests at once, and nothing left afterwards.

use crate::{
    backend::{Backend, PROCESS, each_backend},
    child::alone,
    common::{Held, exists, message},
};
use nabla_monitor::{Console, ExitStatus, GdbListener, Guest, Isolation, Runtime};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    thread,
};

each_backend! {
    guests_start_and_end_from_many_threads,
    failed_starts_leave_nothing_behind,
    a_guest_that_nobody_debugs_can_be_dropped,
}

#[test]
fn a_thousand_guests_live_at_once_and_leave_nothing() {
    alone(|| {
        assert!((PROCESS.image)("sleeper").exists());
        // Two descriptors for each guest here; a limit of 1024 would not do.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        if limit.current.is_some_and(|limit| limit < 4096) {
            let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
        }
        let before = Held::now();
        let runtime = Runtime::new();
        let start = || -> (Guest, _) {
            let guest = PROCESS.build(&runtime, "sleeper").console(Console::pipe()).start().unwrap();
            let console = guest.take_console().unwrap();
            (guest, console)
        };
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
        drop(runtime);
        assert_eq!(Held::now(), before);
    });
}

fn proportional_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn guests_start_and_end_from_many_threads(backend: &Backend) {
    alone(|| {
        assert!((backend.image)("exit").exists());
        let before = Held::now();
        let runtime = Runtime::new();
        thread::scope(|scope| {
            let start_some = |thread: u8| {
                for i in 0..40_u8 {
                    let code = thread * 20 + i % 20;
                    let guest = backend.build(&runtime, "exit").arg(code.to_string()).start().unwrap();
                    if i % 4 == 3 {
                        guest.kill().unwrap();
                    } else {
                        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(code));
                    }
                }
            };
            let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || start_some(thread))).collect();
            // The end of the scope would not wait until they have gone, only until they have done their work.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        drop(runtime);
        assert_eq!(Held::now(), before);
    });
}

fn failed_starts_leave_nothing_behind(backend: &Backend) {
    alone(|| {
        let directory = tempfile::tempdir().unwrap();
        // A cgroup that cannot be entered: this fails in the guest's process.
        symlink("/dev/full", directory.path().join("cgroup.procs")).unwrap();
        let mut isolation = Isolation::default();
        isolation.cgroup = Some(directory.path().to_owned());
        let runtime = Runtime::new();
        backend.build(&runtime, "hello").start().unwrap().wait().unwrap();
        let before = Held::now();
        for _ in 0..20 {
            runtime.guest("/bin/true").start().unwrap_err();
            runtime.guest("/nonexistent").start().unwrap_err();
            backend.build(&runtime, "cat").start().unwrap_err();
            backend.build(&runtime, "hello").console(Console::file("/nonexistent/x")).start().unwrap_err();
            let error = backend.build(&runtime, "hello").isolation(isolation.clone()).start().unwrap_err();
            if backend.is_process() {
                let error = message(&error);
                assert!(error.starts_with("cannot enter the cgroup: No space left on device"), "{error}");
            }
        }
        assert_eq!(Held::now(), before);
    });
}

fn a_guest_that_nobody_debugs_can_be_dropped(backend: &Backend) {
    alone(|| {
        let runtime = Runtime::new();
        drop(backend.build(&runtime, "exit").start().unwrap());
        let before = Held::now();
        for round in 0..3 {
            let listener = GdbListener::tcp("127.0.0.1:0").unwrap();
            let address = listener.to_string();
            let guest = backend.build(&runtime, "exit").gdb(listener).start().unwrap();
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
        assert_eq!(Held::now(), before);
    });
}
