//! Every wait on somebody who may die ends when he does, and a guest's pid is its own until its end has been told.

use crate::{
    backend::{Backend, PROCESS, each_backend},
    common::exists,
};
use nabla_monitor::{ByteSize, Console, Error, ExitStatus, GdbListener, Guest, GuestBuilder, Runtime};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    thread,
};

each_backend! {
    a_guest_killed_at_any_moment_under_a_debugger_ends,
    output_is_collected_however_much_it_is,
    a_core_ends_when_its_guest_is_killed,
}

fn field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or_default().to_owned()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// The parent of every process guest.
fn kill_supervisor(guest: &Guest) {
    kill(field(guest.pid(), "PPid").parse().unwrap());
}

/// Waits for a guest's end without asking how it ended.
fn await_end(guest: &Guest) {
    poll(&mut [PollFd::new(guest, PollFlags::IN)], None).unwrap();
}

fn assert_lost(guest: Guest) {
    assert!(matches!(guest.wait(), Err(Error::StatusLost)));
    assert!(guest.dump_core("/nonexistent").is_err());
    assert!(guest.core().is_err());
    // Joins its threads.
    drop(guest);
}

#[test]
fn guests_of_a_killed_supervisor_are_lost_and_hold_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let listener = || GdbListener::tcp("127.0.0.1:0").unwrap();
    let plain = |builder: GuestBuilder| builder;
    let cores = |builder: GuestBuilder| builder.core_dumps(directory.path());
    let debugged = |builder: GuestBuilder| builder.gdb(listener());
    let settings: [&dyn Fn(GuestBuilder) -> GuestBuilder; 3] = [&plain, &cores, &debugged];
    for set in settings {
        for _ in 0..5 {
            let runtime = Runtime::new();
            let guest = set(PROCESS.build(&runtime, "spin")).start().unwrap();
            kill_supervisor(&guest);
            assert_lost(guest);
            // Another one takes its place.
            let next = PROCESS.build(&runtime, "exit").arg("3").start().unwrap();
            assert_eq!(next.wait().unwrap(), ExitStatus::Exited(3));
        }
    }
}

#[test]
fn a_supervisor_killed_under_a_debugger_ends_the_session() {
    for goes_on in [false, true] {
        let runtime = Runtime::new();
        let listener = GdbListener::tcp("127.0.0.1:0").unwrap();
        let address = listener.to_string();
        let guest = PROCESS.build(&runtime, "spin").gdb(listener).start().unwrap();
        let mut connection = TcpStream::connect(&address).unwrap();
        connection.write_all(if goes_on { b"$c#63" } else { b"$?#3f" }).unwrap();
        // It has been understood.
        connection.read_exact(&mut [0; 1]).unwrap();
        kill_supervisor(&guest);
        assert_lost(guest);
        connection.read_to_end(&mut Vec::new()).unwrap();
    }
}

fn a_guest_killed_at_any_moment_under_a_debugger_ends(backend: &Backend) {
    let runtime = Runtime::new();
    for turns in 0..20 {
        let listener = GdbListener::tcp("127.0.0.1:0").unwrap();
        let guest = backend.build(&runtime, "spin").gdb(listener).start().unwrap();
        // A process is on its way through its launcher, instruction by instruction.
        (0..turns * 50).for_each(|_| thread::yield_now());
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
        assert!(guest.core().unwrap().is_none());
    }
}

#[test]
fn the_pid_of_an_ended_guest_stays_its_own_until_that_is_told() {
    let runtime = Runtime::new();
    for name in ["exit", "abort"] {
        let guest = PROCESS.build(&runtime, name).start().unwrap();
        await_end(&guest);
        // However long nobody asks, and whatever else the supervisor does meanwhile.
        assert_eq!(PROCESS.build(&runtime, "hello").start().unwrap().wait().unwrap(), ExitStatus::Exited(0));
        assert!(field(guest.pid(), "State").starts_with('Z'));
        assert_eq!(field(guest.pid(), "Name"), name);
        assert!(guest.usage().unwrap().max_resident > 0);
        guest.wait().unwrap();
        let pid = guest.pid();
        drop(guest);
        assert!(!exists(pid));
    }
    // Nobody ever waits.
    let guest = PROCESS.build(&runtime, "exit").start().unwrap();
    let pid = guest.pid();
    await_end(&guest);
    drop(guest);
    assert!(!exists(pid));
}

#[test]
fn a_detached_guest_leaves_no_zombie_at_its_end() {
    let runtime = Runtime::new();
    let other = PROCESS.start_ready(&runtime, "sleeper");
    let guest = PROCESS.start_ready(&runtime, "sleeper");
    let pidfd =
        pidfd_open(Pid::from_raw(guest.pid().try_into().unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
    let pid = guest.detach().unwrap();
    kill(pid);
    poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], None).unwrap();
    // Its parent, which has more to do, reaps it.
    while exists(pid) {
        thread::yield_now();
    }
    assert_eq!(other.try_wait().unwrap(), None);
}

fn output_is_collected_however_much_it_is(backend: &Backend) {
    let runtime = Runtime::new();
    let output = backend.build(&runtime, "chatty").arg("5000").output().unwrap();
    assert_eq!(output.status, ExitStatus::Exited(0));
    assert_eq!(output.console.len(), 5000 * 64 + b"end\n".len());
    assert!(output.console.ends_with(b"end\n"));
    let guest = backend.build(&runtime, "chatty").arg("5000").console(Console::pipe()).start().unwrap();
    assert_eq!(guest.wait_with_output().unwrap(), output);
    // Somebody else has it, or there is none.
    let guest = backend.build(&runtime, "hello").console(Console::pipe()).start().unwrap();
    let console = guest.take_console();
    assert_eq!(guest.wait_with_output().unwrap().console, b"");
    drop(console);
    let guest = backend.build(&runtime, "hello").start().unwrap();
    assert_eq!(guest.wait_with_output().unwrap().status, ExitStatus::Exited(0));
}

#[test]
fn an_identity_that_means_no_change_is_refused() {
    let runtime = Runtime::new();
    for (uid, gid) in [(u32::MAX, 1), (1, u32::MAX)] {
        let mut isolation = nabla_monitor::Isolation::default();
        isolation.identity = Some(nabla_monitor::Identity { uid, gid });
        let error = PROCESS.build(&runtime, "hello").isolation(isolation).start().unwrap_err();
        assert!(matches!(error, Error::Identity { .. }), "{error:?}");
        assert!(error.to_string().contains("4294967295"), "{error}");
    }
}

fn a_core_ends_when_its_guest_is_killed(backend: &Backend) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    let guest = backend.build(&runtime, "spin").memory(ByteSize::gib(2)).start().unwrap();
    thread::scope(|scope| {
        let dumps = scope.spawn(|| while guest.dump_core(directory.path()).is_ok() {});
        guest.kill().unwrap();
        dumps.join().unwrap();
    });
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}
