//! When the host program ends, its guests do, however it ends.
//!
//! Each test runs this test program again as a host program that starts guests, and then ends it in some way.

use crate::{
    backend::{Backend, PROCESS, each_backend},
    child,
};
use nabla_monitor::{Guest, Runtime, Supervision};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, ChildStdin, Command, Stdio},
};

each_backend! {
    guests_end_with_a_killed_host_program,
    guests_end_with_a_host_program_that_exits_panics_or_returns,
    guests_end_with_a_host_program_that_becomes_another,
}

/// The host program: starts guests, prints their pids, and then does what its role says.
fn host(backend: &Backend, role: &str) {
    let runtime = Runtime::new();
    let start = |supervision| {
        crate::backend::start_ready(backend.build(&runtime, "sleeper").supervision(supervision))
    };
    let mut guests: Vec<Guest> = backend.supervisions.iter().map(|&supervision| start(supervision)).collect();
    if !backend.is_process() {
        guests.push(backend.start_ready(&runtime, "spin"));
    }
    let mut pids: Vec<u32> = guests.iter().map(Guest::pid).collect();
    // A thread cannot outlive its program. What can is last.
    pids.push(
        PROCESS.build(&runtime, "sleeper").supervision(Supervision::Full).start().unwrap().detach().unwrap(),
    );
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // The harness prints in front of this, so the line is marked.
    println!("\npids {}", pids.join(" "));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    match role {
        "exec" => {
            // From a thread that did not start the supervisor, too: the kernel ends all others.
            let error = std::thread::spawn(|| Command::new("sleep").arg("1000").exec()).join().unwrap();
            panic!("{error}");
        }
        #[expect(clippy::exit, reason = "it is what the test is about")]
        "exit" => std::process::exit(7),
        "panic" => panic!("as it was told"),
        "fork" => drop(Command::new("true").status().unwrap()),
        role => panic!("{role}?"),
    }
    drop(guests);
}

struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    /// The processes that the guests are, or are threads of.
    guests: Vec<OwnedFd>,
    detached: OwnedFd,
}

impl Host {
    fn start(role: &str) -> Self {
        let mut child = child::command(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut guests = Vec::new();
        while guests.is_empty() {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the host program failed");
            if let Some(rest) = line.strip_prefix("pids ") {
                let open = |pid: &str| {
                    pidfd_open(Pid::from_raw(pid.parse().unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
                };
                guests = rest.split_whitespace().map(open).collect();
            }
        }
        let detached = guests.pop().unwrap();
        // Whoever still has the pipe is not disturbed by our leaving it.
        std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        Self { stdin: child.stdin.take(), child, guests, detached }
    }

    /// Tells it to go on with what it is for.
    fn go(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits until the guests have ended, and checks that the detached one has not.
    fn assert_guests_end(&self) {
        let forever = Timespec { tv_sec: 60, tv_nsec: 0 };
        for guest in &self.guests {
            assert_eq!(poll(&mut [PollFd::new(guest, PollFlags::IN)], Some(&forever)).unwrap(), 1);
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&self.detached, PollFlags::IN)], Some(&now)).unwrap(), 0);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.detached, Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn guests_end_with_a_killed_host_program(backend: &Backend) {
    if let Some(role) = child::role() {
        return host(backend, &role);
    }
    for signal in [Signal::KILL, Signal::TERM, Signal::ABORT] {
        let mut host = Host::start("exit");
        let pid = Pid::from_raw(i32::try_from(host.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        host.assert_guests_end();
        let status = host.child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal.as_raw()));
    }
}

fn guests_end_with_a_host_program_that_exits_panics_or_returns(backend: &Backend) {
    if let Some(role) = child::role() {
        return host(backend, &role);
    }
    for role in ["exit", "panic", "fork"] {
        let mut host = Host::start(role);
        host.go();
        host.assert_guests_end();
    }
}

fn guests_end_with_a_host_program_that_becomes_another(backend: &Backend) {
    if let Some(role) = child::role() {
        return host(backend, &role);
    }
    let mut host = Host::start("exec");
    host.go();
    if backend.is_process() {
        host.assert_guests_end();
    } else {
        // The process goes on, as another program, without the guests' threads.
        let threads = format!("/proc/{}/task", host.child.id());
        let name = format!("/proc/{}/comm", host.child.id());
        while std::fs::read_to_string(&name).unwrap() != "sleep\n" {
            std::thread::yield_now();
        }
        assert_eq!(std::fs::read_dir(threads).unwrap().count(), 1);
    }
    assert!(host.child.try_wait().unwrap().is_none(), "the other program runs");
}
