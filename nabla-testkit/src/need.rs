//! What a test needs of the machine.
//!
//! Each function returns whether it is there. If not, the test that asked is reported as skipped, with the
//! reason: on standard error, and in `target/skipped-tests.txt`, which `cargo xtask test` prints at its end. The
//! usual form is `if !need::root() { return }`.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// Where skipped tests are listed: one line each, the test's name, a tab, the reason.
#[must_use]
pub fn skipped_list() -> PathBuf {
    crate::target_directory().join("skipped-tests.txt")
}

/// Reports the calling test as skipped.
pub fn skip(reason: &str) {
    // The test harness names each test's thread after it.
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_stem).map_or_else(String::new, |stem| {
        let stem = stem.to_string_lossy();
        format!("{}::", stem.rsplit_once('-').map_or(&*stem, |(name, _)| name))
    });
    eprintln!("SKIPPED {program}{name}: {reason}");
    if let Ok(mut list) = OpenOptions::new().append(true).create(true).open(skipped_list()) {
        let _ = writeln!(list, "{program}{name}\t{reason}");
    }
}

fn need(there: bool, reason: &str) -> bool {
    if !there {
        skip(reason);
    }
    there
}

/// The test runs as root.
#[must_use]
pub fn root() -> bool {
    need(rustix::process::geteuid().is_root(), "needs root")
}

/// `/dev/net/tun` can be used, and the test may create taps.
#[must_use]
pub fn tap() -> bool {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    root() && need(tun.is_ok(), "needs /dev/net/tun")
}

/// `/dev/kvm` can be used.
#[must_use]
pub fn kvm() -> bool {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    need(kvm.is_ok(), "needs /dev/kvm")
}

/// The kernel has Landlock.
#[must_use]
pub fn landlock() -> bool {
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    need(lsm.contains("landlock"), "needs a kernel with Landlock")
}

/// A Python that has a module: the one on PATH, or that of the system, for which packages are.
#[must_use]
pub fn python(module: &str) -> Option<&'static str> {
    let has = |python: &&str| {
        let mut command = Command::new(python);
        let tried = command.args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    need(found.is_some(), &format!("needs python3 with {module}"));
    found
}

/// A program is on PATH.
#[must_use]
pub fn program(name: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", name])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    need(found, &format!("needs the program {name}"))
}
