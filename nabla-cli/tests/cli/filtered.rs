//! Hosts whose system call filter denies what a newer kernel would offer: Docker's of 2018, systemd-nspawn's. There is a
//! way without, or one sentence that names the call.

use crate::{Outcome, nabla, outcome};
use nabla_testkit::{Call, deny, guest, guest_hvt, need};
use rustix::io::Errno;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

const PRCTL: Call = ("prctl", 157);
const CLONE: Call = ("clone", 56);
const PTRACE: Call = ("ptrace", 101);
const CAPSET: Call = ("capset", 126);
const EPOLL_CREATE1: Call = ("epoll_create1", 291);
const TIMERFD_CREATE: Call = ("timerfd_create", 283);
const EVENTFD2: Call = ("eventfd2", 290);
const PRLIMIT64: Call = ("prlimit64", 302);
const SECCOMP: Call = ("seccomp", 317);
const MEMFD_CREATE: Call = ("memfd_create", 319);
const EXECVEAT: Call = ("execveat", 322);
const COPY_FILE_RANGE: Call = ("copy_file_range", 326);
const STATX: Call = ("statx", 332);
const PIDFD_SEND_SIGNAL: Call = ("pidfd_send_signal", 424);
const PIDFD_OPEN: Call = ("pidfd_open", 434);
const CLONE3: Call = ("clone3", 435);
const CLOSE_RANGE: Call = ("close_range", 436);
const OPENAT2: Call = ("openat2", 437);
const PIDFD_GETFD: Call = ("pidfd_getfd", 438);
const FACCESSAT2: Call = ("faccessat2", 439);
const EPOLL_PWAIT2: Call = ("epoll_pwait2", 441);
const LANDLOCK_CREATE_RULESET: Call = ("landlock_create_ruleset", 444);
const LANDLOCK_RESTRICT_SELF: Call = ("landlock_restrict_self", 446);

/// What Docker's filter of 2018 does not know, and answers with EPERM.
const DOCKER_2018: [Call; 12] = [
    STATX,
    PIDFD_SEND_SIGNAL,
    PIDFD_OPEN,
    CLONE3,
    CLOSE_RANGE,
    OPENAT2,
    PIDFD_GETFD,
    FACCESSAT2,
    EPOLL_PWAIT2,
    LANDLOCK_CREATE_RULESET,
    LANDLOCK_RESTRICT_SELF,
    PTRACE,
];

/// `nabla run` of a guest that ends with a status of its own.
fn process(options: &[&str]) -> Command {
    let mut command = nabla();
    command.arg("run").args(options).arg(guest("exit")).arg("7");
    command
}

/// Checks that a failure is one sentence, which names the call.
fn names_call(seen: &Outcome, call: &str) {
    assert_eq!(seen.status, 125, "{call}: {}{}", seen.stdout, seen.stderr);
    assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
    for text in ["panicked", "errno ", "Connection reset"] {
        assert!(!seen.stderr.contains(text), "{call}: {}", seen.stderr);
    }
    assert!(seen.stderr.contains(call), "{call}: {}", seen.stderr);
}

#[test]
fn processes_run_without_the_calls_that_have_a_substitute() {
    let optional = [
        CLOSE_RANGE,
        CLONE3,
        EXECVEAT,
        MEMFD_CREATE,
        PIDFD_SEND_SIGNAL,
        STATX,
        COPY_FILE_RANGE,
        EPOLL_PWAIT2,
    ];
    for errno in [Errno::PERM, Errno::NOSYS] {
        for options in [&[][..], &["--supervise"]] {
            for calls in optional.chunks(1).chain([&DOCKER_2018[..11]]) {
                let seen = outcome(deny(&mut process(options), calls, errno));
                assert_eq!(seen.status, 7, "{calls:?} {errno} {options:?}: {}", seen.stderr);
            }
        }
    }
    let seen = outcome(deny(&mut process(&[]), &DOCKER_2018, Errno::PERM));
    assert_eq!(seen.status, 7, "{}", seen.stderr);
}

/// The only child of a process.
fn child(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("children of {pid}: {children:?}"))
}

/// A guest has its own descriptors and no other, whoever closes what was inherited.
#[test]
fn guests_inherit_no_descriptor_without_close_range() {
    // They cannot be traced, so root alone sees what they have.
    if !need::root() {
        return;
    }
    let script = "exec 7</etc/passwd 30</etc/passwd 200</etc/passwd; exec \"$@\"";
    for options in [&[][..], &["--supervise"]] {
        for calls in [&[PIDFD_GETFD][..], &[CLOSE_RANGE]] {
            let mut command = Command::new("bash");
            let nabla = env!("CARGO_BIN_EXE_nabla");
            command.args(["-c", script, "bash", nabla, "run"]).args(options).arg(guest("sleeper"));
            let mut started = deny(&mut command, calls, Errno::PERM).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(started.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            let guest = if options.is_empty() { started.id() } else { child(child(started.id())) };
            let entries = fs::read_dir(format!("/proc/{guest}/fd")).unwrap();
            let mut found: Vec<i32> =
                entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
            started.kill().unwrap();
            started.wait().unwrap();
            found.sort_unstable();
            // The console, the event set and the timer.
            assert_eq!(found, [1, 4, 5], "{calls:?} {options:?}");
            assert_eq!(line, "ready\n");
        }
    }
}

#[test]
fn processes_name_the_call_that_they_need() {
    let needed = [PRCTL, CAPSET, EPOLL_CREATE1, TIMERFD_CREATE, PRLIMIT64, SECCOMP];
    for errno in [Errno::PERM, Errno::NOSYS] {
        for call in needed {
            names_call(&outcome(deny(&mut process(&[]), &[call], errno)), call.0);
        }
        for call in [CAPSET, EPOLL_CREATE1, TIMERFD_CREATE, SECCOMP, CLONE, PTRACE] {
            names_call(&outcome(deny(&mut process(&["--supervise"]), &[call], errno)), call.0);
        }
    }
}

#[test]
fn virtual_machines_run_or_name_the_call() {
    if !need::kvm() {
        return;
    }
    let machine = || {
        let mut command = nabla();
        command.arg("run").arg(guest_hvt("exit")).arg("7");
        command
    };
    for errno in [Errno::PERM, Errno::NOSYS] {
        for call in [CLOSE_RANGE, STATX, EPOLL_PWAIT2, MEMFD_CREATE, LANDLOCK_CREATE_RULESET, PIDFD_OPEN] {
            let seen = outcome(deny(&mut machine(), &[call], errno));
            assert_eq!(seen.status, 7, "{} {errno}: {}", call.0, seen.stderr);
        }
        names_call(&outcome(deny(&mut machine(), &[EVENTFD2], errno)), "eventfd2");
    }
    // Where the C library is told that there is no such call, it starts threads by another.
    assert_eq!(outcome(deny(&mut machine(), &[CLONE3], Errno::NOSYS)).status, 7);
    names_call(&outcome(deny(&mut machine(), &[CLONE3], Errno::PERM)), "clone3");
}

#[test]
fn doctor_says_what_is_denied() {
    for call in [CLONE3, CLONE, CLOSE_RANGE, OPENAT2, EVENTFD2, TIMERFD_CREATE, MEMFD_CREATE, PTRACE] {
        let seen = outcome(deny(nabla().arg("doctor"), &[call], Errno::PERM));
        assert!(matches!(seen.status, 0 | 1), "{}: {}", call.0, seen.stderr);
        assert!(!seen.stderr.contains("panicked"), "{}: {}", call.0, seen.stderr);
        let needed = ![CLOSE_RANGE, OPENAT2].contains(&call) && (call != CLONE3 || need::kvm());
        assert!(!needed || seen.stdout.contains(call.0), "{}: {}", call.0, seen.stdout);
    }
}
