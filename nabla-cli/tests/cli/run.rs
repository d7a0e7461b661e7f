//! `nabla run` in its plain form.

use crate::{Outcome, disk, nabla, on_each_backend, outcome, run, shell, shell_with, write_disk};
use nabla_testkit::{TestTap, guest, need};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn exit_status_is_the_guests() {
    for status in 0..=255 {
        let Outcome { status: seen, stderr, .. } = outcome(run("exit").arg(status.to_string()));
        assert_eq!((seen, stderr.as_str()), (status, ""));
    }
}

#[test]
fn signal_that_ends_the_guest_ends_the_process() {
    assert_eq!(outcome(run("fault").arg("null-read")).status, -11);
    assert_eq!(outcome(run("fault").arg("ud2")).status, -4);
    // A shell makes 128+N of it.
    assert_eq!(shell("syscalls", "\"$nabla\" run \"$guest\" 64 32 0; exit $?").status, 159);
}

#[test]
fn failures_have_their_own_statuses() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    fs::write(&text, "#!/bin/sh\n").unwrap();
    for (args, status, message) in [
        (vec!["/nonexistent/app.nabla"], 127, "No such file or directory"),
        (vec!["/etc"], 126, "not a regular file"),
        (vec![text.to_str().unwrap()], 126, "not an ELF file"),
        (vec!["/proc/self/exe"], 126, "cannot be run"),
        (vec![], 125, "<IMAGE>"),
        (vec!["--mem", "x", "app.nabla"], 125, "'x' is not a size"),
        (vec!["--nonsense", "app.nabla"], 125, "--nonsense"),
        (vec!["--user", "nabla-nobody", "app.nabla"], 125, "there is no user 'nabla-nobody'"),
        (vec!["app.nabla", "--disk", "a,rw"], 125, "no option 'rw'"),
    ] {
        let seen = outcome(nabla().arg("run").args(&args));
        assert_eq!((seen.status, seen.stdout.as_str()), (status, ""), "{args:?}: {}", seen.stderr);
        assert!(
            seen.stderr.starts_with("nabla: ") && seen.stderr.contains(message),
            "{args:?}: {}",
            seen.stderr
        );
    }
}

#[test]
fn an_image_that_may_not_be_read_is_not_runnable() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("app.nabla");
    std::os::unix::fs::symlink("app.nabla", &image).unwrap();
    let seen = outcome(nabla().arg("run").arg(&image));
    assert_eq!(seen.status, 126, "{}", seen.stderr);
}

#[test]
fn errors_name_the_option_that_helps() {
    let (_directory, path) = disk("disk.img", "");
    let path = path.to_str().unwrap();
    for (name, args, message) in [
        ("cat", vec![], "(attach it with --disk storage=PATH)"),
        ("net-echo", vec![], "(attach it with --net service0=TAP, or --net service0=new)"),
        ("two-disks", vec!["--disk", path], "(--disk NAME=PATH)"),
        ("hello", vec!["--disk", path], "declares no block device"),
        ("cat", vec!["--disk", path, "--disk", path], "attached twice"),
        ("cat", vec!["--disk", "/nonexistent"], "No such file"),
        // A program that is running cannot be written.
        ("cat", vec!["--disk", env!("CARGO_BIN_EXE_nabla")], "(--disk PATH,ro)"),
        ("cat", vec!["--disk", &format!("{path},block-size=8192")], "must have at least 1 block"),
        ("cat", vec!["--disk", &format!("{path},block-size=100")], "(--disk PATH,block-size=N)"),
        ("hello", vec!["--mem", "1"], "(--mem 2)"),
        ("net-echo", vec!["--net", "nabla-none0"], "no such interface"),
        ("net-echo", vec!["--net", "@999999"], "descriptor 999999, which --net names, cannot be used"),
    ] {
        let seen = outcome(run(name).args(&args));
        assert_eq!((seen.status, seen.stdout.as_str()), (125, ""), "{args:?}: {}", seen.stderr);
        assert!(seen.stderr.contains(message), "{args:?}: {}", seen.stderr);
        assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
    }
}

#[test]
fn messages_stay_on_their_line() {
    let seen = outcome(nabla().args(["run", "/nonexistent/a\nb\u{1b}[2J"]));
    assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
    assert!(!seen.stderr.contains('\u{1b}'));
}

#[test]
fn arguments_reach_the_guest() {
    let image = guest("echo-args");
    let image = image.to_str().unwrap();
    for (args, line) in [
        (vec![image], ""),
        (vec![image, "one", "two"], "one two"),
        (vec![image, "one", "--mem", "64", "two"], "one two"),
        (vec!["--mem", "64", image, "--", "--mem", "3"], "--mem 3"),
        (vec!["--", image, "--mem", "3"], "--mem 3"),
        (vec![image, "--", "a", "", "b c", "é"], "a  b c é"),
    ] {
        let seen = outcome(nabla().arg("run").args(&args));
        assert_eq!((seen.status, seen.stdout.lines().next()), (0, Some(line)), "{args:?}: {}", seen.stderr);
    }
    let seen = outcome(nabla().args(["run", image, "--"]).arg("x".repeat(9000)));
    assert_eq!(seen.status, 125);
    assert!(seen.stderr.contains("at most 8191 fit"), "{}", seen.stderr);
}

#[test]
fn disks_are_attached_with_and_without_a_name() {
    let (directory, path) = disk("disk.img", "from the disk\n");
    let path = path.to_str().unwrap();
    let odd = directory.path().join("a=b,c.img");
    write_disk(&odd, "odd\n");
    for (spec, text) in [
        (path.to_owned(), "from the disk\n"),
        (format!("storage={path}"), "from the disk\n"),
        (format!("{path},ro,block-size=4096"), "from the disk\n"),
        ("./a=b,,c.img".to_owned(), "odd\n"),
        ("storage=a=b,,c.img,ro".to_owned(), "odd\n"),
    ] {
        let seen = outcome(run("cat").args(["--disk", &spec]).current_dir(directory.path()));
        assert_eq!((seen.status, seen.stdout.as_str()), (0, text), "{spec}: {}", seen.stderr);
    }
}

#[test]
fn disks_by_name_are_not_mixed_up_and_read_only_ones_not_written() {
    let (directory, from) = disk("from", "content");
    let to = directory.path().join("to");
    write_disk(&to, "");
    let spec = |name: &str, path: &Path, options: &str| format!("{name}={}{options}", path.display());

    let denied = outcome(run("two-disks").args([
        "--disk",
        &spec("b", &to, ",ro"),
        "--disk",
        &spec("a", &from, ",ro"),
    ]));
    assert_ne!(denied.status, 0);
    assert!(fs::read(&to).unwrap().iter().all(|&byte| byte == 0));

    let seen =
        outcome(run("two-disks").args(["--disk", &spec("b", &to, ""), "--disk", &spec("a", &from, ",ro")]));
    assert_eq!(seen.status, 0, "{}", seen.stderr);
    assert!(fs::read(&to).unwrap().starts_with(b"content"));
}

#[test]
fn tap_is_attached_by_name_and_by_descriptor() {
    if !need::tap() {
        return;
    }
    let tap = TestTap::up("10.0.0.1/24");
    let mac = "02:00:00:00:00:07";
    // The name is opened by nabla; a descriptor, here, by a program that hands it on.
    let open = "import fcntl, os, struct, sys\n\
                tap = os.open('/dev/net/tun', os.O_RDWR)\n\
                fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))\n\
                os.dup2(tap, 7)\n\
                os.execv(sys.argv[2], sys.argv[2:])";
    let by_name = {
        let mut command = run("net-echo");
        command.args(["--net", &format!("{},mac={mac}", tap.name()), "0"]);
        command
    };
    let mut commands = vec![by_name];
    if need::program("python3") {
        let mut command = Command::new("python3");
        command.args(["-c", open, tap.name(), env!("CARGO_BIN_EXE_nabla"), "run"]).arg(guest("net-echo"));
        command.args(["--net", &format!("service0=@7,mac={mac}"), "0"]);
        commands.push(command);
    }
    for mut command in commands {
        let seen = outcome(&mut command);
        assert_eq!((seen.status, seen.stdout.as_str()), (0, &*format!("ready {mac}\n")), "{}", seen.stderr);
    }
}

#[test]
fn nabla_becomes_the_guest() {
    let mut child = run("sleeper").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let name = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((line.as_str(), name.as_str()), ("ready\n", "sleeper\n"));
}

#[test]
fn process_can_be_named() {
    let mut child = run("sleeper").args(["--name", "somebody"]).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let name = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(name, "somebody\n");
}

#[test]
fn console_can_be_a_file_which_is_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    for _ in 0..2 {
        let seen = outcome(run("echo-args").arg("--console").arg(&log).args(["--", "x"]));
        assert_eq!((seen.status, seen.stdout.as_str()), (0, ""), "{}", seen.stderr);
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "x\n[x]\nx\n[x]\n");
    let seen = outcome(run("echo-args").args(["--console", "/nonexistent/log"]));
    assert_eq!(seen.status, 125);
}

#[test]
fn reader_that_goes_away_ends_the_guest_quietly() {
    for image in on_each_backend("chatty") {
        let line = "\"$nabla\" run \"$guest\" 100000000 | head -1; echo ${PIPESTATUS[0]}";
        let seen = shell_with(&image, line);
        let lines: Vec<&str> = seen.stdout.lines().collect();
        assert!(lines[0].starts_with("0."), "{lines:?}");
        assert_eq!((lines[1], seen.stderr.as_str()), ("141", ""));
    }
}

#[test]
fn closed_standard_descriptors_do_no_harm() {
    for (redirection, stdout) in
        [("<&-", "1 2\n"), (">&-", ""), ("2>&-", "1 2\n"), ("<&- 2>&-", "1 2\n"), ("<&- >&- 2>&-", "")]
    {
        let seen = shell("echo-args", &format!("\"$nabla\" run \"$guest\" 1 2 {redirection}"));
        let first: String = seen.stdout.lines().take(1).map(|line| format!("{line}\n")).collect();
        assert_eq!((seen.status, first.as_str()), (0, stdout), "{redirection}: {}", seen.stderr);
    }
    // A failure without a place for its message is still a failure, and the message goes nowhere else.
    let seen = shell("hello", "\"$nabla\" run /nonexistent 2>&-");
    assert_eq!((seen.status, seen.stdout.as_str()), (127, ""));
}

#[test]
fn nothing_is_logged_unless_asked_for() {
    let (_directory, path) = disk("disk.img", "text\n");
    let spec = path.to_str().unwrap();
    let quiet = outcome(run("cat").args(["--disk", spec]));
    let verbose = outcome(run("cat").args(["--disk", spec, "-vvv", "--supervise"]));
    assert_eq!((quiet.status, quiet.stderr.as_str()), (0, ""));
    assert_eq!((verbose.status, verbose.stdout.as_str()), (0, "text\n"));
    assert!(verbose.stderr.contains("INFO"), "{}", verbose.stderr);
}

#[test]
fn every_v_tells_more() {
    let [steps, details, times] = ["-v", "-vv", "-vvv"].map(|v| outcome(run("hello").arg(v)).stderr);
    assert!(steps.contains(" INFO ") && !steps.contains("DEBUG"), "{steps}");
    assert!(
        details.contains(" INFO ") && details.contains("DEBUG") && !details.contains("ThreadId"),
        "{details}"
    );
    assert!(times.contains("DEBUG") && times.contains("ThreadId"), "{times}");
}

#[test]
fn walls_can_be_added() {
    if !need::root() {
        return;
    }
    for (user, uid) in [("1234:5678", 1234), ("root:5678", 0)] {
        let mut child =
            run("sleeper").args(["--isolate", "--user", user]).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let namespace = fs::read_link(format!("/proc/{}/ns/net", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{status}");
        assert!(status.contains("Gid:\t5678\t5678\t5678\t5678"), "{status}");
        assert_ne!(namespace, fs::read_link("/proc/self/ns/net").unwrap());
    }
}
