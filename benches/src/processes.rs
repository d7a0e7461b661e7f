//! Comparisons of guests in processes.

use crate::{
    comparison::Comparison,
    pairs::measure,
    program::{proportional_memory, time},
    setup::Setup,
};
use anyhow::{Context, Result, ensure};
use nabla_monitor::{ByteSize, Console, Supervision};
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Instant,
};

const MEMORY_MIB: u64 = 64;
/// Clock reads and polls of one run of the guest `calls`.
const CALLS: &str = "20000";

/// All of them.
pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "library-start-exit",
            ours: "start() to exit, from a running program",
            theirs: "solo5-spt, whole run",
            unit: "us",
            at_most: Some(0.5),
            is_possible: Setup::has_spt,
            run: |s, n| {
                measure(
                    n,
                    || start_to_exit(s, Supervision::Full, ByteSize::mib(MEMORY_MIB)),
                    || solo5(s, &[], "hello", &[]),
                )
            },
        },
        Comparison {
            name: "library-start-exit-unsupervised",
            ours: "the same without supervision",
            theirs: "solo5-spt, whole run",
            unit: "us",
            at_most: Some(0.5),
            is_possible: Setup::has_spt,
            run: |s, n| {
                measure(
                    n,
                    || start_to_exit(s, Supervision::None, ByteSize::mib(MEMORY_MIB)),
                    || solo5(s, &[], "hello", &[]),
                )
            },
        },
        Comparison {
            name: "cli-run",
            ours: "nabla run, whole run",
            theirs: "solo5-spt, whole run",
            unit: "us",
            at_most: Some(1.0),
            is_possible: Setup::has_spt,
            run: |s, n| measure(n, || nabla(s, &[], "hello", &[]), || solo5(s, &[], "hello", &[])),
        },
        Comparison {
            name: "cli-run-over-floor",
            ours: "nabla run, whole run",
            theirs: "a bare ELF file that exits",
            unit: "us",
            at_most: None,
            is_possible: |_| true,
            run: |s, n| {
                let bare = s.directory.path().join("bare");
                measure(n, || nabla(s, &[], "hello", &[]), || time(&bare, [""; 0]))
            },
        },
        Comparison {
            name: "memory-size",
            ours: "start() to exit with 4 GiB",
            theirs: "the same with 4 MiB",
            unit: "us",
            at_most: Some(1.1),
            is_possible: |_| true,
            run: |s, n| {
                let full = Supervision::Full;
                measure(
                    n,
                    || start_to_exit(s, full, ByteSize::gib(4)),
                    || start_to_exit(s, full, ByteSize::mib(4)),
                )
            },
        },
        Comparison {
            name: "disk-read",
            ours: "nabla run, guest sums a 32 MiB disk",
            theirs: "solo5-spt, the same guest",
            unit: "us",
            at_most: Some(1.05),
            is_possible: Setup::has_spt,
            run: |s, n| {
                let ours = [OsString::from("--disk"), s.disk().into()];
                let mut theirs = OsString::from("--block:storage=");
                theirs.push(s.disk());
                let n = n.div_ceil(4);
                measure(
                    n,
                    || nabla(s, &ours, "disk-sum", &[]),
                    || solo5(s, &[theirs.clone()], "disk-sum", &[]),
                )
            },
        },
        Comparison {
            name: "clocks-and-polls",
            ours: "nabla run, guest reads clocks and polls",
            theirs: "solo5-spt, the same guest",
            unit: "us",
            at_most: Some(1.05),
            is_possible: Setup::has_spt,
            run: |s, n| {
                let n = n.div_ceil(4);
                measure(n, || nabla(s, &[], "calls", &[CALLS]), || solo5(s, &[], "calls", &[CALLS]))
            },
        },
        Comparison {
            name: "idle-memory",
            ours: "proportional memory of an idle guest",
            theirs: "of a solo5-spt process with it",
            unit: "KiB",
            at_most: Some(0.2),
            is_possible: Setup::has_spt,
            run: |s, n| {
                let n = n.div_ceil(10);
                measure(n, || idle_in_library(s), || idle_in_solo5(s))
            },
        },
    ]
}

/// The whole run of a guest under `solo5-spt`.
fn solo5(setup: &Setup, options: &[OsString], guest: &str, args: &[&str]) -> Result<f64> {
    let mut line = vec![OsString::from(format!("--mem={MEMORY_MIB}"))];
    line.extend_from_slice(options);
    line.extend([OsString::from("--"), setup.guest(guest).into()]);
    line.extend(args.iter().map(OsString::from));
    time(setup.spt()?, line)
}

/// The whole run of a guest under `nabla run`.
fn nabla(setup: &Setup, options: &[OsString], guest: &str, args: &[&str]) -> Result<f64> {
    let mut line = vec![OsString::from("run"), format!("--mem={MEMORY_MIB}M").into()];
    line.extend_from_slice(options);
    line.extend([setup.guest(guest).into(), OsString::from("--")]);
    line.extend(args.iter().map(OsString::from));
    time(&setup.nabla, line)
}

/// From `start` to the exit of a guest, in this program.
fn start_to_exit(setup: &Setup, supervision: Supervision, memory: ByteSize) -> Result<f64> {
    let image = setup.guest("hello");
    let start = Instant::now();
    let guest = setup
        .runtime
        .guest(image)
        .memory(memory)
        .console(Console::null())
        .supervision(supervision)
        .start()?;
    let status = guest.wait()?;
    let time = start.elapsed();
    ensure!(status.success(), "the guest {status}");
    Ok(time.as_secs_f64() * 1e6)
}

fn idle_in_library(setup: &Setup) -> Result<f64> {
    let image = setup.guest("sleeper");
    let guest =
        setup.runtime.guest(image).memory(ByteSize::mib(MEMORY_MIB)).console(Console::pipe()).start()?;
    let mut console = guest.take_console().context("the console is a pipe")?;
    console.read_exact(&mut [0; 6])?;
    proportional_memory(guest.pid())
}

fn idle_in_solo5(setup: &Setup) -> Result<f64> {
    /// Kills the process when dropped.
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut command = Command::new(setup.spt()?);
    command.arg(format!("--mem={MEMORY_MIB}")).arg(setup.guest("sleeper"));
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let mut console = BufReader::new(running.0.stdout.take().context("the output is a pipe")?);
    console.read_line(&mut String::new())?;
    proportional_memory(running.0.id())
}
