//! The command lines of Solo5's tools.

use crate::{Outcome, disk, outcome};
use nabla_testkit::{TestTap, guest, need};
use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

/// nabla under another name.
fn called(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nabla"));
    command.arg0(format!("/usr/bin/{name}"));
    command
}

fn spt() -> Command {
    called("solo5-spt")
}

fn elftool() -> Command {
    called("solo5-elftool")
}

#[test]
fn spt_runs_a_guest_with_its_arguments() {
    let image = guest("echo-args");
    for before in [&[][..], &["--"], &["--mem=2"], &["--mem=2", "--"], &["--x-exec-heap"]] {
        let seen = outcome(spt().args(before).arg(&image).args(["--mem=3", "--", "x"]));
        assert_eq!(seen.status, 0, "{before:?}: {}", seen.stderr);
        assert_eq!(seen.stdout.lines().next(), Some("--mem=3 -- x"), "{before:?}");
    }
    assert_eq!(outcome(spt().arg(guest("exit")).arg("7")).status, 7);
    assert_eq!(outcome(spt().arg(guest("abort"))).status, 255);
    assert_eq!(outcome(spt().arg(guest("fault")).arg("null-read")).status, -11);
}

#[test]
fn spt_writes_its_disks_and_does_not_lock_them() {
    let (_directory, path) = disk("disk.img", "text\n");
    let path = path.to_str().unwrap();
    let held = fs::File::open(path).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let block = format!("--block:storage={path}");

    let seen = outcome(spt().args(["--mem=2", &block]).arg(guest("cat")));
    assert_eq!((seen.status, seen.stdout.as_str()), (0, "text\n"), "{}", seen.stderr);
    let size = "--block-sector-size:storage=1024";
    let seen = outcome(spt().args(["--mem=2", size, &block, "--"]).arg(guest("blk")));
    assert_eq!(seen.status, 0, "{}", seen.stderr);
    assert!(seen.stdout.starts_with("4096 bytes in blocks of 1024\n"), "{}", seen.stdout);
    assert!(!fs::read(path).unwrap().starts_with(b"text"));
}

#[test]
fn spt_attaches_interfaces_by_name_and_by_descriptor() {
    if !need::tap() || !need::program("python3") {
        return;
    }
    let tap = TestTap::up("10.0.0.1/24");
    let mac = "--net-mac:service0=02:00:00:00:00:07";
    let by_name =
        outcome(spt().args([mac, &format!("--net:service0={}", tap.name())]).arg(guest("net-echo")).arg("0"));
    assert_eq!(by_name.stdout, "ready 02:00:00:00:00:07\n", "{}", by_name.stderr);

    let open = "import fcntl, os, struct, sys\n\
                tap = os.open('/dev/net/tun', os.O_RDWR)\n\
                fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))\n\
                os.dup2(tap, 7)\n\
                os.execv(sys.argv[2], ['solo5-spt'] + sys.argv[3:])";
    let mut command = Command::new("python3");
    command.args(["-c", open, tap.name(), env!("CARGO_BIN_EXE_nabla"), mac, "--net:service0=@7"]);
    let by_descriptor = outcome(command.arg(guest("net-echo")).arg("0"));
    assert_eq!(by_descriptor.stdout, "ready 02:00:00:00:00:07\n", "{}", by_descriptor.stderr);
}

#[test]
fn spt_fails_as_the_original_does() {
    let (directory, path) = disk("disk.img", "");
    let block = format!("--block:storage={}", path.display());
    let small = directory.path().join("small.img");
    fs::write(&small, []).unwrap();
    let small = format!("--block:storage={}", small.display());
    let (cat, net) = (guest("cat"), guest("net-echo"));
    let (cat, net) = (cat.to_str().unwrap(), net.to_str().unwrap());
    for (args, lines) in [
        (vec![], vec!["Missing KERNEL operand"]),
        (vec!["--"], vec!["Missing KERNEL operand"]),
        (vec!["/none"], vec!["/none: Could not open: No such file or directory"]),
        (vec!["--mem=0", &block, cat], vec!["Malformed argument to --mem"]),
        (vec!["--mem=x", cat], vec!["Malformed argument to --mem"]),
        (vec!["--mom=2", cat], vec!["Invalid option: `--mom=2'"]),
        (
            vec![cat],
            vec![
                "Device 'storage' of type BLOCK_BASIC declared but not attached.",
                "All declared devices must be attached. See --help for syntax.",
            ],
        ),
        (
            vec![net],
            vec![
                "Device 'service0' of type NET_BASIC declared but not attached.",
                "All declared devices must be attached. See --help for syntax.",
            ],
        ),
        (
            vec![&block, net],
            vec!["Resource not declared in manifest: 'storage'", "Invalid option: `--block:storage="],
        ),
        (
            vec!["--block:storage=/none", cat],
            vec!["Could not open block device: /none: No such file or directory"],
        ),
        (vec![&small, cat], vec!["storage: Backing storage must be at least 1 block (512 bytes) in size"]),
        (
            vec![&block, "--block-sector-size:storage=8192", cat],
            vec!["storage: Backing storage size must be block aligned (8192 bytes)"],
        ),
        (
            vec!["--net:service0=nabla-none0", net],
            vec![
                "Could not attach interface: nabla-none0: No such file or directory",
                "Invalid option: `--net:service0=nabla-none0'",
            ],
        ),
        (
            vec!["--net:service0=@999999", net],
            vec![
                "Could not attach interface: @999999: Bad file descriptor",
                "Invalid option: `--net:service0=@999999'",
            ],
        ),
    ] {
        let seen = outcome(spt().args(&args));
        assert_eq!((seen.status, seen.stdout.as_str()), (1, ""), "{args:?}: {}", seen.stderr);
        for (line, expected) in seen.stderr.lines().zip(&lines) {
            assert!(line.starts_with(&format!("solo5-spt: {expected}")), "{args:?}: {}", seen.stderr);
        }
        assert!(seen.stderr.lines().count() >= lines.len(), "{args:?}: {}", seen.stderr);
    }
    let long = outcome(spt().arg(guest("hello")).arg("x".repeat(8192)));
    assert_eq!(
        (long.status, long.stderr.as_str()),
        (1, "solo5-spt: Guest command line too long (max=8191 characters)\n")
    );
}

#[test]
fn spt_tells_usage_and_version() {
    let help = outcome(spt().arg("--help"));
    assert_eq!((help.status, help.stdout.as_str()), (1, ""));
    assert!(help.stderr.starts_with("usage: solo5-spt ") && help.stderr.contains("--block:NAME=PATH"));
    let version = outcome(spt().arg("--version"));
    assert_eq!(version.status, 0);
    assert!(
        version.stderr.starts_with("solo5-spt tender, version ")
            && version.stderr.ends_with("\nABI version 2\n")
    );
    // What follows the image is the guest's.
    assert_eq!(outcome(spt().arg(guest("hello")).arg("--help")).status, 0);
}

#[test]
fn elftool_tells_abi_and_manifest() {
    let abi = outcome(elftool().arg("query-abi").arg(guest("two-disks")));
    assert_eq!(abi.stdout, "{\n  \"type\": \"solo5.abi\",\n  \"target\": \"spt\",\n  \"version\": 2\n}\n");
    let manifest = outcome(elftool().arg("query-manifest").arg(guest("two-disks")));
    assert_eq!(
        manifest.stdout,
        "{\n  \"type\": \"solo5.manifest\",\n  \"version\": 1,\n  \"devices\": [\n    \
         { \"name\": \"a\", \"type\": \"BLOCK_BASIC\" },\n    \
         { \"name\": \"b\", \"type\": \"BLOCK_BASIC\" }\n  ]\n}\n"
    );
    let none = outcome(elftool().arg("query-manifest").arg(guest("hello")));
    assert_eq!(
        none.stdout,
        "{\n  \"type\": \"solo5.manifest\",\n  \"version\": 1,\n  \"devices\": [\n  ]\n}\n"
    );
}

#[test]
fn elftool_fails_as_the_original_does() {
    for (args, message) in [
        (&[][..], "usage: solo5-elftool COMMAND"),
        (&["query-abi"], "usage: solo5-elftool COMMAND"),
        (&["query-abi", "a", "b"], "usage: solo5-elftool COMMAND"),
        (&["query-all", "a"], "usage: solo5-elftool COMMAND"),
        (&["query-abi", "/none"], "solo5-elftool: /none: Could not open: No such file or directory\n"),
        (&["query-manifest", "/etc/passwd"], "solo5-elftool: /etc/passwd: invalid executable: "),
        (
            &["gen-manifest", "/none", "-"],
            "solo5-elftool: /none: Could not open for reading: No such file or directory\n",
        ),
        (
            &["gen-manifest", "/dev/null", "/none/x"],
            "solo5-elftool: /none/x: Could not open for writing: No such file or directory\n",
        ),
        (&["gen-manifest", "/dev/null", "-"], "solo5-elftool: premature EOF in JSON data\n"),
    ] {
        let seen = outcome(elftool().args(args));
        assert_eq!((seen.status, seen.stdout.as_str()), (1, ""), "{args:?}");
        assert!(seen.stderr.starts_with(message), "{args:?}: {}", seen.stderr);
    }
}

#[test]
fn elftool_generates_from_and_to_files_and_pipes() {
    const SOURCE: &str =
        r#"{"type":"solo5.manifest","version":1,"devices":[{"name":"net0","type":"NET_BASIC"}]}"#;
    let directory = tempfile::tempdir().unwrap();
    let (source, output) = (directory.path().join("manifest.json"), directory.path().join("manifest.c"));
    fs::write(&source, SOURCE).unwrap();

    let to_file = outcome(elftool().arg("gen-manifest").args([&source, &output]));
    assert_eq!((to_file.status, to_file.stdout.as_str()), (0, ""), "{}", to_file.stderr);
    let text = fs::read_to_string(&output).unwrap();
    assert!(text.contains("#define MFT_ENTRIES 2\n"), "{text}");
    assert!(text.contains("    { .name = \"net0\", .type = MFT_DEV_NET_BASIC },\n"), "{text}");

    let mut child = elftool()
        .args(["gen-manifest", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(SOURCE.as_bytes()).unwrap();
    let piped: Outcome = child.wait_with_output().unwrap().into();
    assert_eq!((piped.status, piped.stdout.as_str()), (0, text.as_str()));

    // A manifest that is wrong leaves what was there.
    fs::write(&source, "{}").unwrap();
    let seen = outcome(elftool().arg("gen-manifest").args([&source, &output]));
    assert_eq!(seen.status, 1);
    assert!(seen.stderr.contains(":1: missing .type"), "{}", seen.stderr);
    assert_eq!(fs::read_to_string(&output).unwrap(), text);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}
