//! `nabla run` of guests in virtual machines: what it says when they cannot run or do not end well, and what it keeps
//! for itself while they run.

use crate::{Outcome, nabla, outcome};
use nabla_testkit::{guest_hvt, need};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

fn run(image: &str, args: &[&str]) -> Outcome {
    outcome(nabla().args(["run", "--x-exec-heap"]).arg(guest_hvt(image)).args(args))
}

/// Checks that there is one sentence on standard error, with this in it, and returns it.
fn sentence(seen: &Outcome, status: i32, parts: &[&str]) -> String {
    assert_eq!(seen.status, status, "{}", seen.stderr);
    assert_eq!(seen.stderr.lines().count(), 1, "{}", seen.stderr);
    for part in parts {
        assert!(seen.stderr.contains(part), "'{part}' is not in {}", seen.stderr);
    }
    seen.stderr.clone()
}

#[test]
fn a_device_that_is_missing_is_named() {
    if !need::kvm() {
        return;
    }
    sentence(&run("cat", &[]), 125, &["block device 'storage' is declared by the guest and not attached"]);
}

#[test]
fn a_triple_fault_tells_where() {
    if !need::kvm() {
        return;
    }
    sentence(&run("traps", &["triple"]), 132, &["SIGILL", "by the instruction at 0x1"]);
}

#[test]
fn an_instruction_that_is_not_emulated_is_shown() {
    if !need::kvm() {
        return;
    }
    // wbinvd, and a write to CR3.
    for (code, bytes) in [("0f09", "0f 09"), ("0f22d8", "0f 22 d8")] {
        sentence(&run("code", &[code]), 132, &["privileged instruction that is not emulated", bytes, "0x"]);
    }
}

#[test]
fn a_kvm_that_is_not_permitted_says_what_to_do() {
    if !need::kvm() || !need::root() {
        return;
    }
    let mode = fs::metadata("/dev/kvm").unwrap().permissions().mode();
    if mode & 0o006 == 0o006 {
        // Every user may open it here. A file system without the device is the only place where it cannot be opened.
        return hidden_kvm();
    }
    // Other users cannot reach the test's own directories.
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (command, image) = (directory.path().join("nabla"), directory.path().join("exit"));
    // By another program: were it open for writing here, another test's child could have it still when it is executed.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_nabla")).arg(&command).status();
    assert!(copied.unwrap().success());
    fs::copy(guest_hvt("exit"), &image).unwrap();
    for file in [&command, &image] {
        fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let seen = outcome(Command::new(&command).arg("run").arg(&image).uid(65534).gid(65534));
    sentence(
        &seen,
        125,
        &["the guest needs a virtual machine, and you may not use /dev/kvm", "usermod -aG kvm"],
    );
}

/// As above, with the device hidden.
fn hidden_kvm() {
    let script = "mount -t tmpfs none /dev && exec \"$0\" run \"$1\"";
    let seen = outcome(
        Command::new("unshare")
            .args(["--mount", "bash", "-c", script])
            .args([Path::new(env!("CARGO_BIN_EXE_nabla")), &guest_hvt("exit")]),
    );
    sentence(&seen, 125, &["the guest needs a virtual machine, and there is no /dev/kvm here", "modprobe"]);
}

#[test]
fn the_program_around_a_machine_keeps_nothing_that_it_does_not_need() {
    if !need::kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tender = directory.path().join("solo5-hvt");
    symlink(env!("CARGO_BIN_EXE_nabla"), &tender).unwrap();
    for (program, run) in [(Path::new(env!("CARGO_BIN_EXE_nabla")), true), (&tender, false)] {
        let mut command = Command::new("bash");
        command.args(["-c", "exec 9</etc/passwd; exec \"$@\"", "bash"]).arg(program);
        if run {
            command.arg("run");
        }
        let mut running =
            command.arg(guest_hvt("sleeper")).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut console = BufReader::new(running.stdout.take().unwrap());
        let mut ready = String::new();
        console.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        // The guest may be ahead of the thread that waits for it, which confines itself last.
        let process = format!("/proc/{}", running.id());
        let status = |task: &Path| fs::read_to_string(task.join("status")).unwrap();
        let confined = |task: &Path| {
            let text = status(task);
            text.contains("NoNewPrivs:\t1\n") && text.contains("Seccomp:\t2\n")
        };
        while !confined(Path::new(&process)) {
            std::thread::yield_now();
        }
        for task in fs::read_dir(format!("{process}/task")).unwrap() {
            let task = task.unwrap().path();
            // The kernel's own threads for the machine have their names in the same list.
            assert!(confined(&task), "{}", status(&task));
        }
        let open: Vec<_> = fs::read_dir(format!("{process}/fd"))
            .unwrap()
            .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
            .collect();
        for what in &open {
            // The sockets lead to each other, and hold the machine when the program ends.
            let allowed = ["pipe:", "anon_inode:[event", "anon_inode:kvm-v", "/dev/null", "socket:"];
            let inherited = fs::read_link("/proc/self/fd/2").unwrap().to_string_lossy() == *what;
            assert!(
                inherited || allowed.iter().any(|start| what.starts_with(start)),
                "{what} is open: {open:?}"
            );
        }
        running.kill().unwrap();
        running.wait().unwrap();
    }
}
