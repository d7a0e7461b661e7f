//! Debugging guests of both backends with gdb, and what gdb makes of their core dumps.

use crate::{Outcome, nabla, on_each_backend, outcome};
use nabla_testkit::{guest, guest_hvt, need};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// `nabla run --gdb=SOCKET`, waiting for a debugger.
struct Debugged {
    image: PathBuf,
    socket: PathBuf,
    nabla: Child,
    messages: BufReader<std::process::ChildStderr>,
    _directory: TempDir,
}

impl Debugged {
    fn start(image: &Path, args: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("gdb");
        let mut command = nabla();
        command.arg("run").arg(format!("--gdb={}", socket.display())).arg(image).args(args);
        let mut nabla =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut messages = BufReader::new(nabla.stderr.take().unwrap());
        let mut line = String::new();
        messages.read_line(&mut line).unwrap();
        assert!(line.contains("waiting for a debugger: gdb ") && line.contains("target remote"), "{line}");
        Self { image: image.to_owned(), socket, nabla, messages, _directory: directory }
    }

    /// Runs gdb with these commands after the one that connects.
    fn gdb(&self, commands: &[&str]) -> Outcome {
        let connect = format!("target remote {}", self.socket.display());
        gdb(&self.image, None, [connect.as_str()].into_iter().chain(commands.iter().copied()))
    }

    /// How nabla ended: status, standard output, and the rest of its messages.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut output, mut messages) = (String::new(), String::new());
        self.nabla.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        self.messages.read_to_string(&mut messages).unwrap();
        (self.nabla.wait().unwrap().code(), output, messages)
    }
}

fn gdb<'a>(image: &Path, core: Option<&Path>, commands: impl Iterator<Item = &'a str>) -> Outcome {
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-ex", "set pagination off", "-ex", "set confirm off"]);
    for text in commands {
        command.args(["-ex", text]);
    }
    outcome(command.arg(image).args(core))
}

/// The functions of a backtrace that the guest itself defines, innermost first.
fn functions(backtrace: &str) -> Vec<&str> {
    let names = ["innermost", "inner", "outer", "end_badly", "main"];
    let frames = backtrace.lines().filter(|line| line.starts_with('#'));
    frames
        .filter_map(|line| names.into_iter().find(|name| line.contains(&format!("debuggee::{name} ("))))
        .collect()
}

#[test]
fn a_guest_is_stopped_looked_at_changed_and_finished() {
    if !need::program("gdb") {
        return;
    }
    for image in on_each_backend("debuggee") {
        let debugged = Debugged::start(&image, &[]);
        let seen = debugged.gdb(&[
            "print $pc == _start",
            "break inner",
            "continue",
            "backtrace",
            "stepi",
            "next",
            "print debuggee::SHARE",
            "watch debuggee::TOTAL",
            "continue",
            "set var debuggee::SHARE = 100",
            "continue",
            "info breakpoints",
            "delete",
            "hbreak inner",
            "continue",
            "print $xmm0.uint128 = 5",
            "print $xmm0.uint128",
            "print $mxcsr",
            "monitor help",
            "monitor memory",
            "monitor devices",
            "monitor counters",
            "delete",
            "continue",
        ]);
        let text = &seen.stdout;
        assert_eq!(functions(text), ["inner", "outer", "main"], "{text}\n{}", seen.stderr);
        for expected in [
            "Breakpoint 1, ",
            " = 7\n",
            "Old value = 0\nNew value = 7\n",
            "breakpoint already hit 2 times",
            "hw watchpoint",
            "Breakpoint 3, ",
            " = 5\n",
            "IM DM ZM OM UM PM",
            "exited normally",
        ] {
            assert!(text.contains(expected), "'{expected}' is not in\n{text}\n{}", seen.stderr);
        }
        let monitor = format!("{text}{}", seen.stderr);
        for expected in ["counters ", "none", "resident", " rw-", " r-x"] {
            assert!(monitor.contains(expected), "'{expected}' is not in\n{monitor}");
        }
        // 7 by the first call, 200 and 300 by the others.
        assert_eq!(debugged.end(), (Some(0), "total 507\n".to_owned(), String::new()));
    }
}

/// Instructions that the monitor does for the guest are steps like others, and the guest does not see the debugger's.
#[test]
fn steps_over_privileged_instructions_are_steps() {
    if !need::program("gdb") || !need::kvm() {
        return;
    }
    // nop; cli; mov ecx, 0xc0000100; xor eax, eax; xor edx, edx; wrmsr; pushfq; pop rax; nop
    let arguments = ["--x-exec-heap", "90fab9000100c031c031d20f309c5890"];
    let image = guest_hvt("code");
    // The heap is at the same place in every run, and the guest says where.
    let alone = outcome(nabla().arg("run").arg(&image).args(arguments));
    let address = alone.stdout.lines().find_map(|line| line.strip_prefix("code at ")).unwrap();
    let debugged = Debugged::start(&image, &arguments);
    let stop = format!("hbreak *{address}");
    let mut commands = vec![stop.as_str(), "continue"];
    for _ in 0..9 {
        commands.push("stepi");
        let place = "printf \"at %d\\n\", (int)($pc - $here)";
        commands.push(place);
    }
    let here = format!("set $here = {address}");
    commands.insert(0, &here);
    commands.push("printf \"flags %d\\n\", (int)($rax & 0x100)");
    commands.push("continue");
    let seen = debugged.gdb(&commands);
    let places: Vec<&str> = seen.stdout.lines().filter_map(|line| line.strip_prefix("at ")).collect();
    assert_eq!(
        places,
        ["1", "2", "7", "9", "11", "13", "14", "15", "16"],
        "{}\n{}",
        seen.stdout,
        seen.stderr
    );
    assert!(seen.stdout.contains("flags 0\n"), "{}", seen.stdout);
    assert_eq!(debugged.end().0, Some(0));
}

#[test]
fn a_guest_that_loops_is_interrupted_and_let_go() {
    if !need::program("gdb") {
        return;
    }
    for image in on_each_backend("debuggee") {
        let debugged = Debugged::start(&image, &["loop"]);
        // gdb's own interrupt needs a terminal, so another thread of its Python does what Ctrl-C does; where gdb has no
        // Python, the protocol is spoken by hand.
        let mut stream = UnixStream::connect(&debugged.socket).unwrap();
        let mut packet = |text: &str| exchange(&mut stream, text);
        assert!(packet("?").starts_with('S') || packet("?").starts_with('T'));
        send(&mut stream, "vCont;c");
        stream.write_all(&[3]).unwrap();
        let stop = receive(&mut stream);
        assert!(stop.starts_with("T02") || stop.starts_with("S02"), "{stop}");
        drop(stream);
        // The debugger is lost, and the guest runs on: another one can connect, and end the loop.
        let seen = debugged.gdb(&["backtrace", "set var debuggee::SHARE = 0", "detach"]);
        let found = functions(&seen.stdout);
        assert_eq!(found, ["innermost", "end_badly", "main"], "{}\n{}", seen.stdout, seen.stderr);
        let (status, output, _) = debugged.end();
        assert_eq!((status, output.as_str()), (Some(0), "total 42\nleft the loop: 42\n"));
    }
}

#[test]
fn breakpoints_of_a_debugger_that_is_lost_are_gone() {
    for image in on_each_backend("debuggee") {
        let debugged = Debugged::start(&image, &[]);
        let address = symbol(&image, "outer");
        let mut stream = UnixStream::connect(&debugged.socket).unwrap();
        assert_eq!(exchange(&mut stream, &format!("Z0,{address:x},1")), "OK");
        assert_eq!(exchange(&mut stream, &format!("m{address:x},1")).len(), 2);
        drop(stream);
        assert_eq!(debugged.end(), (Some(0), "total 42\n".to_owned(), String::new()));
    }
}

#[test]
fn nonsense_and_kills_are_survived() {
    for image in on_each_backend("debuggee") {
        let debugged = Debugged::start(&image, &["loop"]);
        for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"$zz#00", b"$mffffffffffffffff,ffff#00", &[0; 5000]]
        {
            let mut stream = UnixStream::connect(&debugged.socket).unwrap();
            // It may be hung up on in the middle of this.
            let _ = stream.write_all(nonsense);
        }
        let mut stream = UnixStream::connect(&debugged.socket).unwrap();
        send(&mut stream, "k");
        let (status, _, messages) = debugged.end();
        assert_eq!(status, Some(137), "{messages}");
    }
}

#[test]
fn a_fault_is_shown_before_the_guest_ends() {
    if !need::program("gdb") {
        return;
    }
    for image in on_each_backend("debuggee") {
        let debugged = Debugged::start(&image, &[]);
        let seen = debugged.gdb(&[
            "break inner",
            "continue",
            "set var $pc = 0x10",
            "continue",
            "info registers rip",
        ]);
        let text = &seen.stdout;
        assert!(text.contains("Program received signal SIGSEGV") && text.contains("0x10"), "{text}");
        let (status, _, messages) = debugged.end();
        assert_eq!(status, Some(139), "{messages}");
    }
}

#[test]
fn the_core_of_an_abort_has_the_same_backtrace() {
    for image in on_each_backend("debuggee") {
        let directory = TempDir::new().unwrap();
        let seen =
            outcome(nabla().args(["run", "--dumpcore"]).arg(directory.path()).arg(&image).arg("abort"));
        assert_eq!(seen.status, 255, "{}", seen.stderr);
        let files: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [core] = &files[..] else { panic!("{files:?}") };
        let line = format!("core dumped to {}\n", core.display());
        assert!(seen.stderr.ends_with(&line), "{}", seen.stderr);
        let metadata = core.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(
            metadata.len() > 500 << 20 && metadata.blocks() * 512 < 1 << 20,
            "it is not sparse: {metadata:?}"
        );
        if need::program("gdb") {
            let found = gdb(&image, Some(core), ["backtrace", "print debuggee::TOTAL"].into_iter());
            assert_eq!(functions(&found.stdout), ["innermost", "end_badly", "main"], "{}", found.stdout);
            assert!(found.stdout.contains(" = 42\n"), "{}", found.stdout);
        }
    }
}

#[test]
fn a_guest_that_just_exits_leaves_no_core() {
    let directory = TempDir::new().unwrap();
    let run =
        |image: &Path| outcome(nabla().args(["run", "--dumpcore"]).arg(directory.path()).arg(image).arg("3"));
    for image in on_each_backend("exit") {
        let seen = run(&image);
        assert_eq!((seen.status, seen.stderr.as_str()), (3, ""));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_cannot_be_done_is_said_before_the_guest_starts() {
    let image = guest("debuggee");
    for (option, place, text) in [
        ("--dumpcore", "/nonexistent", "core dumps cannot be written to '/nonexistent': No such file"),
        ("--dumpcore", "/dev/null", "core dumps cannot be written to '/dev/null': Not a directory"),
        ("--gdb", "nonsense", "debuggers cannot be waited for at 'nonsense'"),
        ("--gdb", "/nonexistent/gdb", "debuggers cannot be waited for at '/nonexistent/gdb'"),
    ] {
        let seen = outcome(nabla().arg("run").arg(format!("{option}={place}")).arg(&image));
        assert_eq!((seen.status, seen.stdout.as_str()), (125, ""), "{}", seen.stderr);
        assert!(seen.stderr.contains(text), "{}", seen.stderr);
    }
}

#[test]
fn solo5_hvt_debug_dumps_a_core_where_scripts_look_for_it() {
    if !need::kvm() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let tender = directory.path().join("solo5-hvt-debug");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_nabla"), &tender).unwrap();
    let option = format!("--dumpcore={}", directory.path().display());
    let seen = outcome(Command::new(&tender).arg(option).arg(guest_hvt("debuggee")).arg("abort"));
    assert_eq!(seen.status, 255, "{}", seen.stderr);
    let core = seen.stderr.trim_end().rsplit(' ').next().unwrap();
    assert!(Path::new(core).file_name().unwrap().to_str().unwrap().starts_with("core.solo5-hvt."), "{core}");
    assert!(Path::new(core).is_file());
    let help = outcome(Command::new(&tender).arg("--help"));
    assert!(
        help.stderr.contains("--gdb-port=PORT") && help.stderr.contains("--dumpcore=DIR"),
        "{}",
        help.stderr
    );
}

/// One packet and its answer.
fn exchange(stream: &mut UnixStream, text: &str) -> String {
    send(stream, text);
    receive(stream)
}

fn send(stream: &mut UnixStream, text: &str) {
    let sum = text.bytes().fold(0_u8, u8::wrapping_add);
    stream.write_all(format!("${text}#{sum:02x}").as_bytes()).unwrap();
}

fn receive(stream: &mut UnixStream) -> String {
    let mut byte = || {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        byte[0]
    };
    while byte() != b'$' {}
    let mut text = Vec::new();
    loop {
        match byte() {
            b'#' => break,
            other => text.push(other),
        }
    }
    byte();
    byte();
    stream.write_all(b"+").unwrap();
    String::from_utf8(text).unwrap()
}

/// The address of a function, from the image's symbol table.
fn symbol(image: &Path, name: &str) -> u64 {
    let bytes = fs::read(image).unwrap();
    let number = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
    };
    let at = |number: u64| usize::try_from(number).unwrap();
    let sections = at(number(40, 8));
    let section = |index: usize, field: usize, size: usize| number(sections + 64 * index + field, size);
    let table = (0..at(number(60, 2))).find(|&index| section(index, 4, 4) == 2).expect("it has no symbols");
    let strings = at(section(at(section(table, 40, 4)), 24, 8));
    let (start, size) = (at(section(table, 24, 8)), at(section(table, 32, 8)));
    let found = (start..start + size)
        .step_by(24)
        .find(|&entry| bytes[strings + at(number(entry, 4))..].starts_with(format!("{name}\0").as_bytes()));
    number(found.unwrap() + 8, 8)
}
