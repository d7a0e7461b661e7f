//! `nabla run` as a parent: `--supervise` and `--json-report`.

use crate::{nabla, outcome, run, shell};
use nabla_testkit::{guest, guest_hvt, need};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

fn report(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Starts a guest that waits for ever, as the leader of a process group, and returns when it runs.
fn sleeper(args: &[&str]) -> Parent {
    wait_until_ready(run("sleeper").args(args).process_group(0))
}

fn wait_until_ready(command: &mut Command) -> Parent {
    let mut parent = Parent(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(parent.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    parent
}

/// A nabla that waits for a guest. Killed when a test fails, and the guest with it.
struct Parent(Child);

impl Parent {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).unwrap();
    }

    /// Waits for the end: exit status and standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.0.wait().unwrap().code(), stderr)
    }

    /// The guest. Takes a nabla that leads its process group.
    fn guest(&self) -> Pid {
        let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let group = self.0.id().to_string();
        // PID (NAME) STATE PARENT GROUP ...
        let is_guest = |stat: &str| {
            let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
            stat.contains(" (sleeper) ") && fields.nth(2) == Some(&group)
        };
        let pids =
            fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let guests: Vec<i32> =
            pids.filter(|pid| is_guest(&stat(pid))).map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(guests.len(), 1, "{guests:?}");
        Pid::from_raw(guests[0]).unwrap()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_gone(pid: &Value) -> bool {
    let pid = pid.as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).unwrap();
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    // Readable when it has ended, which it must within five seconds.
    let mut set = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    rustix::event::poll(&mut set, Some(&timeout)).unwrap() == 1
}

#[test]
fn ordinary_exit_is_passed_on_without_a_word() {
    for status in [0, 1, 77, 254] {
        let seen = outcome(run("exit").arg("--supervise").arg(status.to_string()));
        assert_eq!((seen.status, seen.stderr.as_str()), (status, ""));
    }
}

#[test]
fn other_ends_are_told_in_one_line() {
    for (name, args, status, message) in [
        ("syscalls", vec!["64", "32", "0"], 159, "killed for the denied x86-64 system call 32 (dup)"),
        ("fault", vec!["null-write"], 139, "memory fault (SIGSEGV) at address 0x0 by the instruction at 0x"),
        ("fault", vec!["ud2"], 132, "illegal instruction (SIGILL)"),
        ("fault", vec!["div-zero"], 136, "arithmetic fault (SIGFPE)"),
        ("abort", vec![], 255, "aborted (exit status 255)"),
    ] {
        let seen = outcome(run(name).arg("--supervise").args(&args));
        assert_eq!(seen.status, status, "{name} {args:?}: {}", seen.stderr);
        let start = format!("nabla: {}: {message}", guest(name).display());
        assert!(seen.stderr.starts_with(&start) && seen.stderr.lines().count() == 1, "{}", seen.stderr);
    }
}

#[test]
fn report_has_the_documented_form() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    let disk = directory.path().join("disk.img");
    fs::write(&disk, [b'x'; 4096]).unwrap();
    let spec = format!("{},ro,block-size=1024", disk.display());
    let seen = outcome(run("cat").arg("--json-report").arg(&path).args(["--disk", &spec]));
    assert_eq!(seen.status, 0, "{}", seen.stderr);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "only the report was added");

    let mut report = report(&path);
    for key in ["pid", "started_ns", "duration_ns"] {
        assert!(report[key].as_u64().is_some_and(|number| number > 0), "{key}");
        report[key] = json!(1);
    }
    let capacity = report["devices"][0]["capacity"].take();
    assert_eq!(capacity, fs::metadata(&disk).unwrap().len());
    for (key, value) in report["usage"].as_object_mut().unwrap() {
        assert!(value.is_u64(), "{key}");
        *value = json!(1);
    }
    assert_eq!(
        report,
        json!({
            "type": "nabla.report", "version": 1,
            "image": guest("cat"), "abi": "spt-v2", "pid": 1, "supervised": true,
            "started_ns": 1, "duration_ns": 1, "exit_code": 0, "interrupted_by": null,
            "status": {
                "kind": "exited", "message": "exited with status 0", "code": 0,
                "signal": null, "fault": null, "syscall": null,
            },
            "usage": {
                "user_time_ns": 1, "system_time_ns": 1, "max_resident_bytes": 1,
                "minor_faults": 1, "major_faults": 1,
            },
            "counters": null,
            "devices": [
                { "kind": "block", "index": 1, "name": "storage", "path": disk, "read_only": true, "block_size": 1024, "capacity": null },
            ],
        })
    );
}

#[test]
fn report_counts_what_a_virtual_machine_did() {
    if !need::kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    let mut command = nabla();
    command.args(["run", "--json-report"]).arg(&path).arg(guest_hvt("hello"));
    assert_eq!(outcome(&mut command).stdout, "Hello, World\n");
    let mut counters = report(&path)["counters"].take();
    for key in ["time_in_guest_ns", "time_in_host_ns"] {
        assert!(counters[key].as_u64().is_some_and(|number| number > 0), "{key}");
        counters[key] = json!(1);
    }
    let puts = counters["hypercalls"]["puts"].as_u64().unwrap();
    assert_eq!(
        counters,
        json!({
            "exits": { "hypercalls": puts + 1, "exceptions": 0, "interruptions": 0, "others": 0 },
            "hypercalls": {
                "walltime": 0, "puts": puts, "poll": 0, "block_write": 0, "block_read": 0,
                "net_write": 0, "net_read": 0, "halt": 1,
            },
            "console_bytes": 13, "devices": [],
            "time_in_guest_ns": 1, "time_in_host_ns": 1, "time_waiting_ns": 0,
        })
    );
}

#[test]
fn report_tells_denied_calls_and_faults() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    outcome(run("syscalls").arg("--json-report").arg(&path).args(["64", "41", "0"]));
    let denied = report(&path);
    assert_eq!(denied["exit_code"], 159);
    let status = &denied["status"];
    assert_eq!((&status["kind"], &status["code"]), (&json!("denied"), &Value::Null));
    assert_eq!(status["signal"], json!({ "number": 31, "name": "SIGSYS" }));
    let call = &status["syscall"];
    assert_eq!(
        (&call["entry"], &call["number"], &call["name"]),
        (&json!("x86-64"), &json!(41), &json!("socket"))
    );
    assert_eq!(call["arguments"], json!(["0x0", "0x0", "0x0", "0x0", "0x0", "0x0"]));
    assert!(call["instruction_pointer"].as_str().unwrap().starts_with("0x1"));

    outcome(run("fault").arg("--json-report").arg(&path).arg("null-read"));
    let faulted = report(&path);
    let status = &faulted["status"];
    assert_eq!((&status["kind"], &status["signal"]["name"]), (&json!("faulted"), &json!("SIGSEGV")));
    assert_eq!((&status["fault"]["address"], &status["syscall"]), (&json!("0x0"), &Value::Null));
}

#[test]
fn report_that_cannot_be_written_is_noticed_before_the_start() {
    for path in ["/nonexistent/report.json", "/", "-"] {
        let seen = outcome(run("hello").args(["--json-report", path]));
        assert_eq!((seen.status, seen.stdout.as_str()), (125, ""), "{path}: {}", seen.stderr);
        assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
    }
}

#[test]
fn report_is_left_alone_when_no_guest_starts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    fs::write(&path, "old").unwrap();
    let seen = outcome(run("cat").arg("--json-report").arg(&path));
    assert_eq!(seen.status, 125);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let missing = outcome(nabla().args(["run", "/nonexistent", "--json-report"]).arg(&path));
    assert_eq!(missing.status, 127);
}

#[test]
fn report_can_go_into_a_pipe() {
    let seen = shell("exit", "\"$nabla\" run \"$guest\" 3 --json-report /dev/fd/3 3>&1 >/dev/null | cat");
    let report: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(report["exit_code"], 3);
}

#[test]
fn signals_end_the_guest_and_the_report_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    for (signal, name) in [
        (Signal::INT, "SIGINT"),
        (Signal::TERM, "SIGTERM"),
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
    ] {
        let parent = sleeper(&["--json-report", path.to_str().unwrap()]);
        parent.signal(signal);
        let (code, stderr) = parent.end();
        assert_eq!(code, Some(128 + signal.as_raw()), "{name}: {stderr}");
        assert!(stderr.contains(&format!("killed because nabla received {name}")), "{stderr}");
        let report = report(&path);
        assert_eq!(report["interrupted_by"], json!({ "number": signal.as_raw(), "name": name }));
        assert_eq!(
            (&report["status"]["kind"], &report["exit_code"]),
            (&json!("killed"), &json!(128 + signal.as_raw()))
        );
        assert!(is_gone(&report["pid"]), "{name}");
    }
}

#[test]
fn interrupt_from_a_terminal_reaches_all_of_the_group_and_is_told_once() {
    let parent = sleeper(&["--supervise"]);
    parent.signal_group(Signal::INT);
    let (code, stderr) = parent.end();
    assert_eq!((code, stderr.lines().count()), (Some(130), 1), "{stderr}");
    assert!(stderr.contains("SIGINT"), "{stderr}");
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" run --supervise \"$1\"", env!("CARGO_BIN_EXE_nabla")]);
    let parent = wait_until_ready(command.arg(guest("sleeper")));
    // Were it not ignored, it would be taken first, since its number is lower, and be the one that is told.
    parent.signal(Signal::HUP);
    parent.signal(Signal::TERM);
    assert_eq!(parent.end().0, Some(143));
}

#[test]
fn guest_that_somebody_kills_is_told() {
    let parent = sleeper(&["--supervise"]);
    kill_process(parent.guest(), Signal::TERM).unwrap();
    let (code, stderr) = parent.end();
    assert_eq!(code, Some(143));
    assert!(stderr.contains("killed by SIGTERM"), "{stderr}");
}

#[test]
fn guest_ends_with_a_parent_that_is_killed() {
    let parent = sleeper(&["--supervise"]);
    let guest = parent.guest().as_raw_nonzero().get();
    parent.signal(Signal::KILL);
    parent.end();
    assert!(is_gone(&json!(guest)));
}

#[test]
fn stopped_and_continued_parent_goes_on() {
    let parent = sleeper(&["--supervise"]);
    for signal in [Signal::STOP, Signal::CONT] {
        parent.signal_group(signal);
    }
    parent.signal(Signal::TERM);
    assert_eq!(parent.end().0, Some(143));
}

#[test]
fn reader_that_goes_away_does_not_end_the_parent() {
    let script = "\"$nabla\" run --supervise \"$guest\" 100000 | head -1; echo ${PIPESTATUS[0]}";
    let seen = shell("chatty", script);
    // The guest's writes fail, which it ignores, and it comes to its end.
    assert_eq!(seen.stdout.lines().nth(1), Some("0"), "{}", seen.stderr);
}
