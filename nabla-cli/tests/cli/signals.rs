//! Signals where they are easily lost: while a guest is being started, and in the first process of a namespace.

use crate::outcome;
use nabla_testkit::{guest, guest_hvt, need};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

const ENDING: [(Signal, i32); 3] = [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)];

/// `nabla run` as the first process of a namespace, with a guest that waits for ever, and its number outside.
fn first(image: &Path, options: &[&str]) -> (Child, Pid) {
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(env!("CARGO_BIN_EXE_nabla"))
        .arg("run");
    command.arg(image).args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let number = fs::read_to_string(children).unwrap();
    (child, Pid::from_raw(number.trim().parse().unwrap()).unwrap())
}

#[test]
fn first_process_of_a_namespace_ends_by_signals() {
    if !need::root() {
        return;
    }
    let mut images = vec![guest("sleeper")];
    if need::kvm() {
        images.push(guest_hvt("sleeper"));
    }
    for image in images {
        for options in [&[][..], &["--supervise"], &["--json-report", "/dev/null"]] {
            for (signal, code) in ENDING {
                let (mut child, pid) = first(&image, options);
                kill_process(pid, signal).unwrap();
                let status = child.wait().unwrap();
                assert_eq!(status.code(), Some(code), "{} {options:?} {signal:?}", image.display());
            }
        }
    }
}

#[test]
fn first_process_of_a_namespace_has_its_guest_s_status() {
    if !need::root() {
        return;
    }
    let run = |name: &str, argument: &str| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]).arg(env!("CARGO_BIN_EXE_nabla")).arg("run");
        outcome(command.arg(guest(name)).arg(argument))
    };
    assert_eq!(run("exit", "77").status, 77);
    let fault = run("fault", "null-write");
    assert_eq!(fault.status, 139, "{fault:?}");
    assert!(fault.stderr.contains("memory fault"), "{fault:?}");
}

/// A nabla that is started and waits for something that never comes.
fn stuck(command: &mut Command, is_stuck: impl Fn(&str) -> bool) -> Child {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let wchan = format!("/proc/{}", child.id());
    while !is_stuck(&wchan) {
        std::thread::yield_now();
    }
    child
}

/// Whether a process is in a system call that waits: `open` of a FIFO, or `read` of a pipe.
fn waits_in(process: &str, calls: &[&str]) -> bool {
    let call = fs::read_to_string(format!("{process}/syscall")).unwrap_or_default();
    calls.iter().any(|number| call.split(' ').next() == Some(number))
}

fn ends(mut child: Child, what: &str) {
    for (signal, code) in ENDING.into_iter().take(1) {
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(status.code(), Some(code), "{what}: {stderr}");
        assert!(stderr.contains("nabla received SIGTERM before the guest ran"), "{what}: {stderr}");
    }
}

#[test]
fn signals_end_a_nabla_whose_outputs_nobody_reads() {
    const OPEN: [&str; 2] = ["2", "257"];
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for options in [&["--json-report"][..], &["--supervise", "--console"]] {
        let mut command = crate::run("hello");
        command.args(options).arg(&fifo);
        ends(stuck(&mut command, |process| waits_in(process, &OPEN)), options[0]);
    }
    // In its plain form, where nothing stands in the way.
    let mut command = crate::run("hello");
    command.arg("--console").arg(&fifo);
    let mut plain = stuck(&mut command, |process| waits_in(process, &OPEN));
    kill_process(Pid::from_child(&plain), Signal::TERM).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&plain.wait().unwrap()), Some(15));
}

#[test]
fn report_in_a_fifo_waits_for_its_reader() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut child = crate::run("exit").arg("--json-report").arg(&fifo).spawn().unwrap();
    let report = fs::read_to_string(&fifo).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(report.contains("\"exit_code\": 0"), "{report}");
}

/// A cgroup that can be frozen, removed at the end.
struct Freezer(std::path::PathBuf);

impl Freezer {
    fn new(name: &str) -> Option<Self> {
        let root = ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup"]
            .map(Path::new)
            .into_iter()
            .find(|root| root.is_dir());
        let cgroup = Self(root?.join(format!("nabla-{name}-{}", std::process::id())));
        let made = fs::create_dir(&cgroup.0).is_ok() && cgroup.set(false);
        need::there("freezer", made, "needs a cgroup that can be frozen");
        made.then_some(cgroup)
    }

    /// Freezes it or lets it go on, in either version of cgroups.
    fn set(&self, frozen: bool) -> bool {
        let (state, freeze) = if frozen { ("FROZEN", "1") } else { ("THAWED", "0") };
        let existing = |(name, value): (&str, &str)| {
            let path = self.0.join(name);
            path.exists() && fs::write(path, value).is_ok()
        };
        existing(("freezer.state", state)) || existing(("cgroup.freeze", freeze))
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set(false);
        // Processes leave it in their own time.
        while fs::remove_dir(&self.0).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn signals_end_a_nabla_whose_guest_is_frozen_at_its_start() {
    let Some(cgroup) = Freezer::new("start") else { return };
    assert!(cgroup.set(true));
    let mut command = crate::run("hello");
    command.args(["--supervise", "--cgroup"]).arg(&cgroup.0).process_group(0);
    let is_stuck = |process: &str| {
        waits_in(process, &["0"])
            && fs::read_to_string(cgroup.0.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty())
    };
    ends(stuck(&mut command, is_stuck), "a frozen cgroup");
}

#[test]
fn signals_end_a_nabla_whose_guest_is_frozen_later() {
    let Some(cgroup) = Freezer::new("later") else { return };
    let mut command = crate::run("sleeper");
    command.args(["--supervise", "--cgroup"]).arg(&cgroup.0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line == "ready\n" && cgroup.set(true));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // In cgroups of version 1, what is frozen cannot be killed.
    let code = child.wait().unwrap().code();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let kept = code == Some(125) && stderr.contains("is its cgroup frozen");
    assert!(code == Some(143) || kept, "{code:?} {stderr}");
}

#[test]
fn signals_end_a_nabla_whose_report_nobody_reads() {
    const WRITE: [&str; 1] = ["1"];
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    // Filled without waiting, and then waited for.
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" run \"$1\" --json-report /dev/fd/3 3>&1 >/dev/null"]);
    command.arg(env!("CARGO_BIN_EXE_nabla")).arg(guest("exit")).stdin(Stdio::null()).stdout(writer);
    let mut child = command.spawn().unwrap();
    let process = format!("/proc/{}", child.id());
    while !waits_in(&process, &WRITE) {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    drop(reader);
}
