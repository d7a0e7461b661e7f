//! `nabla run` ends, whoever dies meanwhile.

use crate::{nabla, shell};
use nabla_testkit::guest;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
};

#[test]
fn a_launcher_that_fails_under_a_debugger_says_why() {
    for option in ["--gdb=$d/s", "--dumpcore=$d"] {
        let script = format!("d=$(mktemp -d); ulimit -v 1000000; exec $nabla run {option} --mem 2G $guest");
        let outcome = shell("hello", &script);
        assert_eq!(outcome.status, 125, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("cannot map 2 GiB of guest memory"), "{}", outcome.stderr);
    }
}

fn start(option: &str) -> Child {
    let mut command = nabla();
    command.arg("run").arg(option).arg(guest("sleeper")).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal)
        .unwrap();
}

#[test]
fn a_signal_at_any_moment_of_the_start_ends_a_debugged_guest() {
    let directory = tempfile::tempdir().unwrap();
    let _ = guest("sleeper");
    for turns in 0..20 {
        let mut child = start(&format!("--gdb={}", directory.path().join("gdb").display()));
        (0..turns * 400).for_each(|_| std::thread::yield_now());
        kill(child.id(), rustix::process::Signal::TERM);
        // By the signal itself, where it came before it was blocked.
        let status = child.wait().unwrap();
        assert!(status.code().is_none_or(|code| code == 143), "{status}");
        let _ = fs::remove_file(directory.path().join("gdb"));
    }
}

#[test]
fn a_killed_supervisor_ends_a_debugged_or_dumped_guest() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("--gdb={}", directory.path().join("gdb").display());
    for option in [socket.as_str(), &format!("--dumpcore={}", directory.path().display())] {
        for _ in 0..5 {
            let mut child = start(option);
            let mut line = String::new();
            // It runs when it says so.
            if option.starts_with("--gdb") {
                BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
            } else {
                BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            }
            let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
            // A thread that has just ended has no such file any more.
            let children =
                tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
            let supervisor = children.collect::<String>().trim().parse().unwrap();
            kill(supervisor, rustix::process::Signal::KILL);
            let mut messages = String::new();
            child.stderr.take().unwrap().read_to_string(&mut messages).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(125), "{line}{messages}");
            assert!(messages.contains("its supervisor has been killed"), "{line}{messages}");
        }
    }
}
