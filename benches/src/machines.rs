//! Comparisons of guests in virtual machines.
//!
//! Where the machine itself is a virtual one without hardware help, KVM interprets code in ring 0, which is where
//! Solo5's tender runs guests. Numbers of repetitions are such that this ends within a few seconds.

use crate::{
    bindings,
    comparison::Comparison,
    pairs::measure,
    program::{output, time},
    setup::Setup,
};
use anyhow::{Context, Result, ensure};
use nabla_monitor::{ByteSize, Console};
use std::{
    arch::asm,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Instant,
};

const MEMORY_MIB: u64 = 64;
/// Numbers that are added: as the issue of a processor at full speed, and as an interpreter manages.
const MANY: u64 = 200_000_000;
const FEW: &str = "100000";
/// Clock reads and polls, or reads of the wall clock, of one run.
const CALLS: &str = "2000";

/// The guest `measure` under `nabla run`: what it measured itself, in microseconds.
fn nabla(setup: &Setup, args: &[&str]) -> Result<f64> {
    let mut line = vec![OsString::from("run"), format!("--mem={MEMORY_MIB}").into()];
    line.push(guest(setup, "measure")?.into());
    line.extend(args.iter().map(OsString::from));
    printed(&output(&setup.nabla, line)?)
}

/// The same under `solo5-hvt`.
fn solo5(setup: &Setup, args: &[&str]) -> Result<f64> {
    let mut line = vec![OsString::from(format!("--mem={MEMORY_MIB}"))];
    line.push(guest(setup, "measure")?.into());
    line.extend(args.iter().map(OsString::from));
    printed(&output(setup.hvt()?, line)?)
}

fn guest(setup: &Setup, name: &str) -> Result<PathBuf> {
    let directory = setup.hvt_guests.as_ref().context("there is no KVM")?;
    Ok(directory.join(name))
}

/// The last line, which is a number of nanoseconds.
fn printed(text: &str) -> Result<f64> {
    let line = text.lines().last().context("the guest printed nothing")?;
    Ok(line.trim().parse::<f64>().with_context(|| format!("the guest printed '{line}'"))? / 1e3)
}

/// The line that is a number of nanoseconds, among others, in microseconds.
fn number(text: &str) -> Result<f64> {
    let number = text.lines().find_map(|line| line.trim().parse::<f64>().ok());
    Ok(number.context("the guest printed no number")? / 1e3)
}

/// The guest's loop, in this process.
fn plain_loop(count: u64) -> f64 {
    let start = Instant::now();
    // SAFETY: registers only.
    unsafe {
        asm!(
            "2:",
            "add {sum}, {count}",
            "dec {count}",
            "jnz 2b",
            sum = inout(reg) 0_u64 => _,
            count = inout(reg) count.max(1) => _,
            options(nomem, nostack),
        );
    }
    start.elapsed().as_secs_f64() * 1e6
}

/// From `start` to the exit of a guest, in this program.
fn start_to_exit(setup: &Setup) -> Result<f64> {
    let image = guest(setup, "exit")?;
    let start = Instant::now();
    let guest =
        setup.runtime.guest(image).memory(ByteSize::mib(MEMORY_MIB)).console(Console::null()).start()?;
    let status = guest.wait()?;
    let time = start.elapsed();
    ensure!(status.success(), "the guest {status}");
    Ok(time.as_secs_f64() * 1e6)
}

fn whole_run(setup: &Setup, of_nabla: bool, options: &[OsString], name: &str) -> Result<f64> {
    let mut line = if of_nabla { vec![OsString::from("run")] } else { Vec::new() };
    line.push(format!("--mem={MEMORY_MIB}").into());
    line.extend_from_slice(options);
    line.push(guest(setup, name)?.into());
    time(if of_nabla { &setup.nabla } else { setup.hvt()? }, line)
}

/// All of them.
pub fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "vm-loop",
            ours: "a guest adds 200 million numbers",
            theirs: "a plain process does",
            unit: "us",
            at_most: Some(1.1),
            is_possible: Setup::has_kvm,
            run: |s, n| {
                measure(n.div_ceil(4), || nabla(s, &["sum", &MANY.to_string()]), || Ok(plain_loop(MANY)))
            },
        },
        Comparison {
            name: "vm-loop-solo5",
            ours: "a guest adds 100,000 numbers",
            theirs: "under solo5-hvt",
            unit: "us",
            at_most: Some(1.0),
            is_possible: Setup::has_hvt,
            run: |s, n| measure(n.div_ceil(10), || nabla(s, &["sum", FEW]), || solo5(s, &["sum", FEW])),
        },
        Comparison {
            name: "vm-clocks-and-polls",
            ours: "a guest reads clocks and polls",
            theirs: "under solo5-hvt",
            unit: "us",
            at_most: Some(1.0),
            is_possible: Setup::has_hvt,
            run: |s, n| {
                measure(n.div_ceil(10), || nabla(s, &["calls", CALLS]), || solo5(s, &["calls", CALLS]))
            },
        },
        Comparison {
            name: "vm-wall-clock",
            ours: "a guest reads the wall clock",
            theirs: "under solo5-hvt",
            unit: "us",
            // Both are an exit of the machine and nothing else, and leaving ring 3 is dearer where ring 0 is interpreted.
            at_most: None,
            is_possible: Setup::has_hvt,
            run: |s, n| measure(n.div_ceil(4), || nabla(s, &["wall", CALLS]), || solo5(s, &["wall", CALLS])),
        },
        Comparison {
            name: "vm-wall-clock-bindings",
            ours: "the wall clock through Solo5's bindings",
            theirs: "under solo5-hvt",
            unit: "us",
            at_most: Some(1.5),
            is_possible: |s| s.has_hvt() && bindings::possible(),
            run: |s, n| {
                let image = s.wall()?;
                measure(
                    n.div_ceil(2),
                    || number(&output(&s.nabla, ["run".into(), OsString::from(&image)])?),
                    || number(&output(s.hvt()?, [OsString::from(&image)])?),
                )
            },
        },
        Comparison {
            name: "vm-disk-read",
            ours: "nabla run, guest sums a disk of 1 MiB",
            theirs: "solo5-hvt, the same guest",
            unit: "us",
            at_most: Some(1.0),
            is_possible: Setup::has_hvt,
            run: |s, n| {
                let ours = [OsString::from("--disk"), s.small_disk().into()];
                let theirs = [joined("--block:storage=", s.small_disk().as_os_str())];
                measure(
                    n.div_ceil(20),
                    || whole_run(s, true, &ours, "disk-sum"),
                    || whole_run(s, false, &theirs, "disk-sum"),
                )
            },
        },
        Comparison {
            name: "vm-library-start-exit",
            ours: "start() to exit in a virtual machine",
            theirs: "solo5-hvt, whole run",
            unit: "us",
            at_most: Some(0.5),
            is_possible: Setup::has_hvt,
            run: |s, n| measure(n, || start_to_exit(s), || whole_run(s, false, &[], "exit")),
        },
        Comparison {
            name: "vm-cli-run",
            ours: "nabla run, whole run in a virtual machine",
            theirs: "solo5-hvt, whole run",
            unit: "us",
            // A process of its own, and what KVM does when a machine is made, take longer than half of the peer's.
            at_most: Some(1.0),
            is_possible: Setup::has_hvt,
            run: |s, n| measure(n, || whole_run(s, true, &[], "exit"), || whole_run(s, false, &[], "exit")),
        },
    ]
}

fn joined(prefix: &str, path: &OsStr) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}
