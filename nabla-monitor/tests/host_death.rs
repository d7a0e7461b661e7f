//! When the host program ends, its guests do, however it ends.
//!
//! Each test runs this test program again as a host program that starts guests, and then ends it in some way.

mod common;

use common::build;
use nabla_monitor::{Runtime, Supervision};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{
    env,
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, ChildStdin, Command, Stdio},
};

const ROLE: &str = "NABLA_TEST_HOST";

/// Not a test: the host program. Starts guests, prints their pids, and then does what it was told to.
#[test]
fn host() {
    let Ok(role) = env::var(ROLE) else { return };
    let runtime = Runtime::new();
    let start = |supervision| build(&runtime, "sleeper").supervision(supervision).start().unwrap();
    let guests = [start(Supervision::Full), start(Supervision::None)];
    let detached = start(Supervision::Full).detach().unwrap();
    // The harness prints in front of this, so the line is marked.
    println!("\npids {} {} {detached}", guests[0].pid(), guests[1].pid());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    match role.as_str() {
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
    guests: [OwnedFd; 2],
    detached: OwnedFd,
}

impl Host {
    fn start(role: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "host", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut pids = Vec::new();
        while pids.is_empty() {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the host program failed");
            if let Some(rest) = line.strip_prefix("pids ") {
                let open = |pid: &str| {
                    pidfd_open(Pid::from_raw(pid.parse().unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
                };
                pids = rest.split_whitespace().map(open).collect();
            }
        }
        let detached = pids.pop().unwrap();
        let guests = <[OwnedFd; 2]>::try_from(pids).unwrap();
        // Whoever still has the pipe is not disturbed by our leaving it.
        std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        Self { stdin: child.stdin.take(), child, guests, detached }
    }

    /// Tells it to go on with what it is for.
    fn go(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits until both guests have ended, and checks that the detached one has not.
    fn assert_guests_end(&self) {
        for guest in &self.guests {
            assert_eq!(poll(&mut [PollFd::new(guest, PollFlags::IN)], None).unwrap(), 1);
        }
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
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

#[test]
fn guests_end_with_a_killed_host_program() {
    let _ = nabla_testkit::guest("sleeper");
    for signal in [Signal::KILL, Signal::TERM, Signal::ABORT] {
        let host = Host::start("exit");
        let pid = Pid::from_raw(i32::try_from(host.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        host.assert_guests_end();
    }
}

#[test]
fn guests_end_with_a_host_program_that_exits_or_panics() {
    let _ = nabla_testkit::guest("sleeper");
    for role in ["exit", "panic", "fork"] {
        let mut host = Host::start(role);
        host.go();
        host.assert_guests_end();
    }
}

#[test]
fn guests_end_with_a_host_program_that_becomes_another() {
    let _ = nabla_testkit::guest("sleeper");
    let mut host = Host::start("exec");
    host.go();
    host.assert_guests_end();
    assert!(host.child.try_wait().unwrap().is_none(), "the other program runs");
}
