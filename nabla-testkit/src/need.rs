//! What a test needs of the machine.
//!
//! Each function returns whether it is there. If not, the test that asked is reported as skipped, with the reason: on
//! standard error, and in `target/skipped-tests.txt`, which `cargo xtask test` prints at its end. The usual form is
//! `if !need::root() { return }`.
//!
//! Each need has a name. The environment variable `NABLA_REQUIRE` lists names, separated by commas: the want of one of
//! these fails the test instead. `all` stands for every name, and `-NAME` takes one out again: `all,-kvm`. An
//! unknown name fails every test that needs something.

use std::{
    collections::BTreeSet,
    env,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
};

/// What is no program and no module of Python.
const OTHERS: [&str; 11] = [
    "cni",
    "foreign-guests",
    "freezer",
    "kvm",
    "loop-device",
    "macvtap",
    "memory-cgroup",
    "mount-xfs",
    "root",
    "tap",
    "two-processors",
];
/// Programs that tests run.
const PROGRAMS: [&str; 20] = [
    "bsdtar",
    "cc",
    "docker",
    "dockerd",
    "gdb",
    "genisoimage",
    "ip",
    "iptables",
    "isoinfo",
    "losetup",
    "mkfs.ext4",
    "mkfs.xfs",
    "ping",
    "podman",
    "python3",
    "runc",
    "tar",
    "tc",
    "unshare",
    "xorriso",
];
/// Modules of Python that tests import, as they are named in `NABLA_REQUIRE`.
const MODULES: [&str; 1] = ["python:pycdlib"];

/// Every name.
fn names() -> impl Iterator<Item = &'static str> {
    OTHERS.into_iter().chain(PROGRAMS).chain(MODULES)
}

/// The names in the text of `NABLA_REQUIRE`.
fn parse(text: &str) -> Result<BTreeSet<&'static str>, String> {
    let mut required = BTreeSet::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if word == "all" {
            required.extend(names());
            continue;
        }
        let name = word.strip_prefix('-').unwrap_or(word);
        let Some(name) = names().find(|known| *known == name) else {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "NABLA_REQUIRE has '{word}', and no test needs that: use all, or of {known}"
            ));
        };
        if word.starts_with('-') {
            required.remove(name);
        } else {
            required.insert(name);
        }
    }
    Ok(required)
}

/// Whether the want of `name` is a failure.
fn is_required(name: &str) -> bool {
    static REQUIRED: OnceLock<Result<BTreeSet<&str>, String>> = OnceLock::new();
    assert!(names().any(|known| known == name), "'{name}' is not in the lists of nabla_testkit::need");
    let parsed = REQUIRED.get_or_init(|| parse(&env::var("NABLA_REQUIRE").unwrap_or_default()));
    parsed.as_ref().unwrap_or_else(|error| panic!("{error}")).contains(name)
}

/// Where skipped tests are listed: one line each, the test's name, a tab, the reason.
#[must_use]
pub fn skipped_list() -> PathBuf {
    crate::target_directory().join("skipped-tests.txt")
}

/// Returns whether something is there. If not, the calling test is reported as skipped.
///
/// # Panics
///
/// When it is not there and `NABLA_REQUIRE` has `name`, and when `name` is unknown, here or in the variable.
pub fn there(name: &str, is_there: bool, reason: &str) -> bool {
    let required = is_required(name);
    if !is_there {
        assert!(!required, "the test {reason}, and '{name}' is in NABLA_REQUIRE");
        report(name, reason);
    }
    is_there
}

fn report(need: &str, reason: &str) {
    // The test harness names each test's thread after it.
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let program = env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_stem).map_or_else(String::new, |stem| {
        let stem = stem.to_string_lossy();
        format!("{}::", stem.rsplit_once('-').map_or(&*stem, |(name, _)| name))
    });
    eprintln!("SKIPPED {program}{name}: {reason} ({need})");
    if let Ok(mut list) = OpenOptions::new().append(true).create(true).open(skipped_list()) {
        let _ = writeln!(list, "{program}{name}\t{reason} ({need})");
    }
}

/// The test runs as root. `root`.
#[must_use]
pub fn root() -> bool {
    there("root", rustix::process::geteuid().is_root(), "needs root")
}

/// `/dev/net/tun` can be used, and the test may create taps with `ip`. `root`, `tap` and `ip`.
#[must_use]
pub fn tap() -> bool {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    root() && there("tap", tun.is_ok(), "needs /dev/net/tun") && program("ip")
}

/// `/dev/kvm` can be used. `kvm`.
#[must_use]
pub fn kvm() -> bool {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    there("kvm", kvm.is_ok(), "needs /dev/kvm")
}

/// The test may use two processors. `two-processors`.
#[must_use]
pub fn two_processors() -> bool {
    let several = thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    there("two-processors", several, "needs two processors")
}

/// A Python that has a module: the one on PATH, or that of the system, for which packages are. `python:MODULE`.
#[must_use]
pub fn python(module: &str) -> Option<&'static str> {
    let has = |python: &&str| {
        let mut command = Command::new(python);
        let tried = command.args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let found = ["python3", "runc", "/usr/bin/python3"].into_iter().find(has);
    there(&format!("python:{module}"), found.is_some(), &format!("needs python3 with {module}"));
    found
}

/// A program is on PATH. Its need has its name.
#[must_use]
pub fn program(name: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", name])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    there(name, found, &format!("needs the program {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nabla_require_of_this_run_is_understood() {
        parse(&env::var("NABLA_REQUIRE").unwrap_or_default()).unwrap();
    }

    #[test]
    fn names_are_taken_and_taken_out() {
        let parsed = |text| parse(text).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(parsed("kvm, root,,python:pycdlib"), ["kvm", "python:pycdlib", "root"]);
        assert_eq!(parsed("").len(), 0);
        assert_eq!(parsed("all").len(), names().count());
        assert_eq!(parsed("all,-kvm").len(), names().count() - 1);
        assert!(!parsed("all,-kvm").contains(&"kvm"));
    }

    #[test]
    fn unknown_names_are_errors() {
        for text in ["kmv", "root,Tap", "all,-kmv", "python:", "-all"] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("xorriso") && error.contains(text.rsplit(',').next().unwrap()), "{error}");
        }
    }

    #[test]
    #[ignore = "a program for the next test"]
    fn asks_for_what_is_not_there() {
        there("two-processors", false, "needs two processors");
    }

    #[test]
    fn skip_is_a_failure_only_when_required() {
        let directory = tempfile::tempdir().unwrap();
        let run = |required: &str| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "need::tests::asks_for_what_is_not_there", "--ignored", "--nocapture"]);
            command.env("NABLA_REQUIRE", required).env("CARGO_TARGET_DIR", directory.path());
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let listed =
            || std::fs::read_to_string(directory.path().join("skipped-tests.txt")).unwrap_or_default();
        for (required, message) in [
            ("kvm,two-processors", "the test needs two processors, and 'two-processors' is in NABLA_REQUIRE"),
            ("kvm,two-procesors", "NABLA_REQUIRE has 'two-procesors', and no test needs that"),
        ] {
            let (success, said) = run(required);
            assert!(!success && said.contains(message), "{said}");
            assert_eq!(listed(), "");
        }
        let (success, said) = run("kvm");
        assert!(success && said.contains("SKIPPED"), "{said}");
        assert!(listed().ends_with("needs two processors (two-processors)\n"), "{}", listed());
    }
}
