//! `doctor`, `completions`, `man`, help and version.

use crate::{nabla, outcome, shell};
use nabla_testkit::guest;
use serde_json::Value;
use std::fs;

#[test]
fn doctor_tells_whether_guests_can_run() {
    let seen = outcome(nabla().args(["doctor", "--json"]));
    assert_eq!(seen.stderr, "");
    let report: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!((&report["type"], &report["version"]), (&"nabla.doctor".into(), &1.into()));
    assert_eq!(report["can_run"], seen.status == 0);
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["name"] == "process"));
    for check in checks {
        assert!(["ok", "limited", "missing"].contains(&check["status"].as_str().unwrap()), "{check}");
        assert!(
            check["detail"].is_string() && (check["fix"].is_string() || check["fix"].is_null()),
            "{check}"
        );
        assert_eq!(check.as_object().unwrap().len(), 4, "{check}");
    }

    let text = outcome(nabla().arg("doctor"));
    assert_eq!(text.status, seen.status);
    for check in checks {
        assert!(text.stdout.contains(check["name"].as_str().unwrap()), "{check}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let seen = outcome(nabla().args(["completions", shell]));
        assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
        assert!(seen.stdout.contains("json-report"), "{shell}");
    }
    assert_eq!(shell("hello", "\"$nabla\" completions bash | bash -n").status, 0);
    assert_eq!(outcome(nabla().args(["completions", "tcsh"])).status, 125);
}

#[test]
fn manual_pages_are_printed_or_written() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man/man1");
    let seen = outcome(nabla().args(["man", "--out"]).arg(&out));
    assert_eq!((seen.status, seen.stdout.as_str(), seen.stderr.as_str()), (0, "", ""));
    let printed = outcome(nabla().arg("man"));
    for page in ["nabla", "nabla-run", "nabla-inspect", "nabla-doctor", "nabla-completions", "nabla-man"] {
        let text = fs::read_to_string(out.join(format!("{page}.1"))).unwrap();
        assert!(text.contains("Examples:"), "{page}");
        assert!(printed.stdout.contains(&text), "{page}");
    }
    assert_eq!(outcome(nabla().args(["man", "--out", "/proc/nowhere"])).status, 125);
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["help"], &["run", "--help"], &["help", "run"], &["doctor", "-h"]] {
        let seen = outcome(nabla().args(args));
        assert_eq!((seen.status, seen.stderr.as_str()), (0, ""), "{args:?}");
        assert!(seen.stdout.contains("Examples:"), "{args:?}");
    }
    let seen = outcome(nabla().arg("--version"));
    assert_eq!(seen.stdout, concat!("nabla ", env!("CARGO_PKG_VERSION"), "\n"));
    let seen = outcome(&mut nabla());
    assert_eq!((seen.status, seen.stdout.as_str()), (125, ""));
    assert!(seen.stderr.contains("Usage:"));
}

#[test]
fn a_cause_is_told_once() {
    let images = ["hello", "cat"].map(|name| guest(name).display().to_string());
    let [image, with_disk] = images.each_ref().map(String::as_str);
    let cause = "No such file or directory";
    for args in [
        &["run", "/nonexistent/app.nabla"][..],
        &["run", with_disk, "--disk", "/nonexistent/disk.img"],
        &["run", image, "--console", "/nonexistent/log"],
        &["run", image, "--json-report", "/nonexistent/report.json"],
        &["run", image, "--dumpcore", "/nonexistent/cores"],
        &["run", image, "--gdb=/nonexistent/gdb"],
        &["inspect", "/nonexistent/app.nabla"],
        &["iso", "build", "/nonexistent/root", "-o", "/tmp/nabla-never.iso"],
        &["iso", "build", "--from-tar", "/nonexistent/root.tar", "-o", "/tmp/nabla-never.iso"],
        &["iso", "build", "/dev", "-o", "/nonexistent/root.iso"],
        &["iso", "ls", "/nonexistent/root.iso"],
        &["iso", "extract", "/nonexistent/root.iso", "/nonexistent/root"],
        &["man", "--out", "/proc/nonexistent/man"],
    ] {
        let seen = outcome(nabla().args(args));
        assert_eq!(seen.stderr.matches(cause).count(), 1, "{args:?}: {}", seen.stderr);
    }
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let seen = shell("hello", "\"$nabla\" man | head -1 >/dev/null; echo ${PIPESTATUS[0]}");
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("0\n", ""));
}

#[test]
fn full_disk_is_an_error() {
    let seen = shell("hello", "\"$nabla\" --help >/dev/full; echo $?");
    assert_eq!(seen.stdout, "125\n");
    assert!(seen.stderr.contains("No space left on device"), "{}", seen.stderr);
}
