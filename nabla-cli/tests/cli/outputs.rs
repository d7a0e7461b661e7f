//! Where output goes: links, devices, pipes and descriptors are written through, never replaced; and what a killed run leaves.

use crate::{nabla, outcome, shell};
use nabla_testkit::{guest, need};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::{FileTypeExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn exit_code(report: &str) -> Value {
    serde_json::from_str::<Value>(report).unwrap_or_else(|error| panic!("{error}: {report}"))["exit_code"]
        .clone()
}

#[test]
fn report_on_standard_error_goes_where_that_goes() {
    let directory = tempfile::tempdir().unwrap();
    let before = fs::symlink_metadata("/dev/stderr").map(|metadata| metadata.is_symlink()).ok();
    for (redirection, place) in
        [("2>err", "/dev/stderr"), ("3>err", "/dev/fd/3"), ("3>>err", "/proc/self/fd/3")]
    {
        let script = format!(
            "cd '{}' && rm -f err && \"$nabla\" run \"$guest\" 3 --json-report {place} {redirection}; cat err",
            directory.path().display()
        );
        let seen = shell("exit", &script);
        assert_eq!(exit_code(&seen.stdout), 3, "{place}: {seen:?}");
        assert_eq!(names(directory.path()), ["err"], "{place}");
    }
    let after = fs::symlink_metadata("/dev/stderr").map(|metadata| metadata.is_symlink()).ok();
    assert_eq!(before, after, "the machine's link was replaced");
}

#[test]
fn report_follows_what_a_descriptor_has_already() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "cd '{}' && {{ echo first; \"$nabla\" run \"$guest\" --json-report /dev/fd/3; }} 3>err >&3; cat err",
        directory.path().display()
    );
    let seen = shell("exit", &script);
    let rest = seen.stdout.strip_prefix("first\n").unwrap_or_else(|| panic!("{seen:?}"));
    assert_eq!(exit_code(rest), 0);
}

#[test]
fn report_and_console_can_be_sockets() {
    let (mut report, passed) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" run \"$1\" --json-report /dev/fd/0 --console /dev/fd/0"]);
    command.arg(env!("CARGO_BIN_EXE_nabla")).arg(guest("hello"));
    let status = command.stdin(std::os::fd::OwnedFd::from(passed)).status().unwrap();
    assert!(status.success());
    drop(command);
    let mut text = String::new();
    report.read_to_string(&mut text).unwrap();
    let rest = text.strip_prefix("Hello, World\n").unwrap_or_else(|| panic!("{text}"));
    assert_eq!(exit_code(rest), 0);
}

#[test]
fn descriptors_that_nabla_was_not_given_are_refused() {
    for options in
        [&["--json-report", "/dev/fd/99"][..], &["--console", "/dev/fd/99"], &["--console", "/dev/fd/4"]]
    {
        let seen = outcome(crate::run("hello").args(options));
        assert_eq!((seen.status, seen.stdout.as_str()), (125, ""), "{options:?}: {seen:?}");
        assert!(seen.stderr.contains(options[1]) && seen.stderr.contains("Bad file descriptor"), "{seen:?}");
    }
    let seen = shell("hello", "\"$nabla\" run \"$guest\" --json-report /dev/fd/3 3</dev/null");
    assert_eq!((seen.status, seen.stdout.as_str()), (125, ""), "only for reading: {seen:?}");
}

#[test]
fn links_and_devices_stay_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name| directory.path().join(name);
    fs::write(at("manifest.json"), r#"{"type":"solo5.manifest","version":1,"devices":[]}"#).unwrap();
    fs::write(at("target"), "something longer than what is written, many times over").unwrap();
    symlink("target", at("link")).unwrap();
    symlink("/dev/null", at("null")).unwrap();
    let script = format!(
        "cd '{}' && ln -s \"$nabla\" solo5-elftool && ./solo5-elftool gen-manifest manifest.json link && \
         ./solo5-elftool gen-manifest manifest.json null && rm solo5-elftool && \
         \"$nabla\" run \"$guest\" --json-report null && \"$nabla\" run \"$guest\" --json-report /dev/null",
        directory.path().display()
    );
    let seen = shell("hello", &script);
    assert_eq!(seen.status, 0, "{seen:?}");
    let written = fs::read_to_string(at("target")).unwrap();
    assert!(written.starts_with("/*") && !written.contains("many times over"), "{written}");
    assert_eq!(names(directory.path()), ["link", "manifest.json", "null", "target"]);
    assert!(["link", "null"].iter().all(|name| fs::symlink_metadata(at(name)).unwrap().is_symlink()));
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());

    let page = at("nabla.1");
    fs::write(at("page"), "").unwrap();
    symlink("page", &page).unwrap();
    let seen = outcome(nabla().args(["man", "--out"]).arg(directory.path()));
    assert_eq!(seen.status, 0, "{seen:?}");
    assert!(fs::symlink_metadata(&page).unwrap().is_symlink());
    assert!(fs::read_to_string(at("page")).unwrap().contains("Examples:"));
    assert!(at("nabla-iso-build.1").exists(), "pages of verbs' verbs are written, too");
}

#[test]
fn full_device_is_an_error_wherever_output_goes() {
    for script in [
        "\"$nabla\" run \"$guest\" --json-report /dev/full",
        "\"$nabla\" run \"$guest\" --json-report /dev/fd/3 3>/dev/full",
        "\"$nabla\" man > /dev/full",
        "\"$nabla\" doctor > /dev/full",
        "\"$nabla\" inspect \"$guest\" --json > /dev/full",
        "\"$nabla\" completions fish > /dev/full",
        "\"$nabla\" iso build /etc/apt -q -o - > /dev/full",
        "ln -s \"$nabla\" $(mktemp -d)/solo5-elftool && $_ query-abi \"$guest\" > /dev/full",
    ] {
        let seen = shell("hello", script);
        assert!([1, 125].contains(&seen.status), "{script}: {seen:?}");
        assert!(seen.stderr.contains("No space left on device"), "{script}: {seen:?}");
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    }
}

#[test]
fn next_run_removes_what_a_killed_one_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("r.json");
    let mut command = crate::run("sleeper");
    let mut killed = command.arg("--json-report").arg(&report).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(killed.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    // As long as it runs, no other run takes it.
    let seen = outcome(crate::run("exit").arg("--json-report").arg(&report));
    assert_eq!(seen.status, 0, "{seen:?}");
    assert_eq!(names(directory.path()).len(), 2);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(names(directory.path()).len(), 2);
    let seen = outcome(crate::run("exit").arg("--json-report").arg(&report));
    assert_eq!(seen.status, 0, "{seen:?}");
    assert_eq!(names(directory.path()), ["r.json"]);
}

#[test]
fn nothing_from_an_image_or_a_path_reaches_a_terminal_raw() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\nb");
    fs::copy(guest("cat"), &path).unwrap();
    let is_clean = |text: &str| {
        text.chars()
            .all(|c| c == '\n' || !(c.is_control() || matches!(c, '\u{61c}' | '\u{202a}'..='\u{202e}')))
    };
    let path = path.to_str().unwrap();
    for arguments in [
        &["inspect", path][..],
        &["inspect", "--json", path],
        &["run", path],
        &["run", path, "--json-report", "/dev/stdout", "--disk", path],
        &["run", path, "--disk", &format!("{path}x")],
        &["run", path, "--dumpcore", path],
        &["run", path, "--mem", path],
        &["run", path, "--user", path],
        &["iso", "ls", path],
        &["iso", path],
        &[path],
    ] {
        let seen = outcome(nabla().args(arguments));
        assert!(is_clean(&seen.stderr) && is_clean(&seen.stdout), "{arguments:?}: {seen:?}");
    }
    // The name of a file, which is in an image of a file system.
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f\u{1b}[2J\u{9b}\u{61c}\u{202e}\n"), "").unwrap();
    let iso = directory.path().join("tree.iso").into_os_string().into_string().unwrap();
    let tree = tree.to_str().unwrap();
    assert_eq!(outcome(nabla().args(["iso", "build", tree, "-o", &iso])).status, 0);
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    for arguments in [
        &["iso", "ls", &iso][..],
        &["iso", "ls", "--json", &iso],
        &["iso", "diff", &iso, empty],
        &["iso", "diff", "--json", &iso, empty],
    ] {
        let seen = outcome(nabla().args(arguments));
        assert!(is_clean(&seen.stderr) && is_clean(&seen.stdout), "{arguments:?}: {seen:?}");
        assert!(seen.stdout.contains("[2J"), "{arguments:?}: {seen:?}");
    }
    // The name of a device, which is in the image.
    let mut image = fs::read(guest("cat")).unwrap();
    let name = image.windows(8).position(|bytes| bytes == b"storage\0").expect("the guest has this device");
    image[name..name + 7].copy_from_slice(b"\x1b[2J\x9b\n\x07");
    fs::write(directory.path().join("evil"), image).unwrap();
    let evil = directory.path().join("evil");
    for arguments in [&["inspect"][..], &["inspect", "--json"], &["run"], &["run", "--disk", "x=/dev/null"]] {
        let seen = outcome(nabla().args(arguments).arg(&evil));
        assert!(is_clean(&seen.stderr) && is_clean(&seen.stdout), "{arguments:?}: {seen:?}");
        assert!(seen.stderr.contains("2J") || seen.stdout.contains("2J"), "{arguments:?}: {seen:?}");
    }
    let seen = shell(
        "cat",
        &format!("ln -s \"$nabla\" $(mktemp -d)/solo5-elftool && $_ query-manifest '{}'", evil.display()),
    );
    assert!(is_clean(&seen.stderr) && is_clean(&seen.stdout), "{seen:?}");
}

#[test]
fn disk_that_is_mounted_is_not_written() {
    if !need::program("losetup") || !need::program("mkfs.ext4") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "cd '{}' && truncate -s 8M image && mkfs.ext4 -q image && mkdir mnt || exit 99
         loop=$(losetup -f --show image) || exit 98
         trap 'umount mnt 2>/dev/null; losetup -d $loop' EXIT
         mount $loop mnt || exit 98
         \"$nabla\" run \"$guest\" --disk $loop; echo writing $?
         \"$nabla\" run \"$guest\" --disk $loop,ro >/dev/null; echo reading $?
         umount mnt; \"$nabla\" run \"$guest\" --disk $loop >/dev/null; echo unmounted $?",
        directory.path().display()
    );
    let seen = shell("cat", &script);
    if !need::there("loop-device", seen.status != 98, "needs loop devices") {
        return;
    }
    let statuses: Vec<_> = seen.stdout.lines().collect();
    assert_eq!(statuses, ["writing 125", "reading 0", "unmounted 0"], "{seen:?}");
    assert!(seen.stderr.contains("mounted") && seen.stderr.lines().count() == 1, "{seen:?}");
}
