//! `nabla iso`, and guests that mount what it makes.

use crate::{nabla, on_each_backend, outcome, shell};
use nabla_testkit::need;
use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

fn iso(verb: &str) -> Command {
    let mut command = nabla();
    command.args(["iso", verb]).env_remove("SOURCE_DATE_EPOCH");
    command
}

/// A directory "root" with some files.
fn tree() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("etc/deep/er/and/deep/er/still/and/on")).unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(root.join("etc/deep/er/and/deep/er/still/and/on/file"), "found\n").unwrap();
    fs::write(root.join("large"), vec![1; 100_001]).unwrap();
    fs::write(root.join("cache.pyc"), "x").unwrap();
    symlink("etc/hosts", root.join("link")).unwrap();
    fs::set_permissions(root.join("large"), fs::Permissions::from_mode(0o600)).unwrap();
    (directory, root)
}

fn names(directory: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn an_image_is_built_listed_printed_verified_unpacked_and_compared() {
    let (directory, root) = tree();
    let image = directory.path().join("image.iso");
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "other\n").unwrap();
    let seen = outcome(iso("build").arg(&root).arg("-o").arg(&image).args(["--exclude", "*.pyc", "--json"]));
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
    let summary: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(summary["type"], "nabla.iso");
    assert_eq!(summary["size"], fs::metadata(&image).unwrap().len());
    assert_eq!((&summary["entries"], &summary["files"]), (&13.into(), &3.into()));

    let seen = outcome(iso("ls").arg(&image));
    assert_eq!(seen.stdout, "etc\nlarge\nlink\n");
    let seen = outcome(iso("ls").args(["-l", "-R"]).arg(&image));
    assert!(
        seen.stdout.contains("-rw-------") && seen.stdout.contains("link -> etc/hosts"),
        "{}",
        seen.stdout
    );
    let seen = outcome(iso("ls").arg("--json").arg(&image).arg("/etc"));
    let listing: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(listing["entries"].as_array().unwrap().len(), 2);

    let seen = outcome(iso("cat").arg(&image).args(["link", "/etc/deep/er/and/deep/er/still/and/on/file"]));
    assert_eq!((seen.status, seen.stdout.as_str()), (0, "127.0.0.1 localhost\nfound\n"));
    let seen = outcome(iso("cat").arg(&image).arg("/nothing"));
    assert_eq!(seen.status, 125);
    assert!(seen.stderr.contains("'/nothing'") && seen.stderr.contains("no such file"), "{}", seen.stderr);

    assert_eq!(outcome(iso("verify").arg(&image)).status, 0);
    let target = directory.path().join("unpacked");
    let seen = outcome(iso("extract").arg(&image).arg(&target));
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
    assert_eq!(outcome(iso("diff").arg(&image).arg(&target)).stdout, "");
    let seen = outcome(iso("diff").arg(&image).arg(&root));
    assert_eq!((seen.status, seen.stdout.as_str()), (1, "/cache.pyc: only in the directory\n"));
    // What is there is not unpacked over.
    assert_eq!(outcome(iso("extract").arg(&image).arg(&target)).status, 125);

    let add = format!("/etc/hosts={}", hosts.display());
    let seen = outcome(iso("build").arg(&root).arg("-q").arg("-o").arg(&image).arg("--add").arg(&add));
    assert_eq!((seen.status, seen.stdout.as_str(), seen.stderr.as_str()), (0, "", ""));
    assert_eq!(outcome(iso("cat").arg(&image).arg("/etc/hosts")).stdout, "other\n");
    let seen = outcome(iso("diff").arg("--json").arg(&image).arg(&root).args(["--ignore", "time,mode"]));
    let differences: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(differences["differences"][0]["path"], "/etc/hosts");
    assert_eq!(differences["differences"].as_array().unwrap().len(), 1);
}

#[test]
fn damage_is_told() {
    let (directory, root) = tree();
    let image = directory.path().join("image.iso");
    outcome(iso("build").arg(&root).arg("-o").arg(&image));
    let size = fs::metadata(&image).unwrap().len();
    fs::File::options().write(true).open(&image).unwrap().set_len(size - 60_000).unwrap();
    let seen = outcome(iso("verify").arg(&image));
    assert_eq!(seen.status, 1);
    assert!(seen.stdout.contains("cut off"), "{}", seen.stdout);
    for verb in ["ls", "cat", "verify", "extract", "diff"] {
        let seen = outcome(iso(verb).arg("/dev/null").args(if verb == "ls" || verb == "verify" {
            &[][..]
        } else {
            &["x"]
        }));
        assert_eq!(seen.status, 125, "{verb}");
        assert!(seen.stderr.contains("too short"), "{verb}: {}", seen.stderr);
        assert_eq!(
            outcome(iso(verb).arg("/nonexistent").args(if verb == "ls" || verb == "verify" {
                &[][..]
            } else {
                &["x"]
            }))
            .status,
            125
        );
    }
}

#[test]
fn pipes_standard_input_and_dates_work() {
    if !need::program("tar") {
        return;
    }
    let (directory, root) = tree();
    let script = format!(
        "cd {} && tar cf - -C root . | \"$nabla\" iso build --from-tar - -o - | cat > image.iso && \"$nabla\" iso diff image.iso root --ignore owner && \"$nabla\" iso build root -o - | head -c 10 | wc -c; echo ${{PIPESTATUS[0]}}",
        directory.path().display()
    );
    let seen = shell("hello", &script);
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("10\n0\n", ""));
    let build = |name: &str| {
        let image = directory.path().join(name);
        let seen =
            outcome(iso("build").arg(&root).arg("-o").arg(&image).env("SOURCE_DATE_EPOCH", "1000000000"));
        assert_eq!(seen.status, 0, "{}", seen.stderr);
        fs::read(image).unwrap()
    };
    let first = build("one.iso");
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    assert!(first == build("two.iso"));
    let seen = outcome(iso("build").arg(&root).args(["-o", "/tmp/never.iso"]).env("SOURCE_DATE_EPOCH", "x"));
    assert_eq!(seen.status, 125);
}

#[test]
fn wrong_usage_says_what_is_wrong_and_leaves_nothing() {
    let (directory, root) = tree();
    let image = directory.path().join("image.iso");
    for (options, expected) in [
        (vec!["--volume-id", "\u{e9}"], "volume's name"),
        (vec!["--owner", "x"], "a number"),
        (vec!["--add", "x"], "PATH=FILE"),
        (vec!["--exclude", "["], "pattern"),
        (vec!["--from-tar", "/etc/passwd"], "/etc/passwd"),
        (vec!["--from-tar", "/nonexistent"], "/nonexistent"),
    ] {
        let seen = outcome(iso("build").arg(&root).arg("-o").arg(&image).args(&options));
        assert_eq!(seen.status, 125, "{options:?}");
        assert!(seen.stderr.contains(expected), "{options:?}: {}", seen.stderr);
    }
    let seen = outcome(iso("build").arg(&root).args(["-o", "/nonexistent/x.iso"]));
    assert!(seen.status == 125 && seen.stderr.contains("/nonexistent"), "{}", seen.stderr);
    assert_eq!(names(directory.path()), ["root"]);
}

/// Whatever the moment, there is the old image or the new one under its name, and nothing else after the next build.
#[test]
fn killed_builds_leave_whole_images_or_none() {
    let (directory, root) = tree();
    for number in 0..200 {
        fs::write(root.join(format!("file {number}")), vec![2; 30_000]).unwrap();
    }
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    let image = out.join("image.iso");
    let mut complete = 0;
    // The delay grows with each build, a part of a millisecond at a time, from before the start to after the end.
    for round in 0_u32..200 {
        let mut build = iso("build");
        build.arg(&root).arg("-q").arg("-o").arg(&image).stdin(Stdio::null());
        let mut child = build.spawn().unwrap();
        // Not a wait for anything: it decides where the build is hit.
        let until = std::time::Instant::now() + std::time::Duration::from_micros(u64::from(round) * 120);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if image.exists() {
            complete += 1;
            assert_eq!(outcome(iso("verify").arg(&image)).status, 0, "round {round}");
            if round % 3 == 0 {
                fs::remove_file(&image).unwrap();
            }
        }
    }
    assert_eq!(outcome(iso("build").arg(&root).arg("-q").arg("-o").arg(&image)).status, 0);
    assert_eq!(names(&out), ["image.iso"], "{complete} builds were complete");
    assert_eq!(outcome(iso("diff").arg(&image).arg(&root)).stdout, "");
}

#[test]
fn guests_of_both_kinds_mount_images() {
    let (directory, root) = tree();
    let image = directory.path().join("image.iso");
    outcome(iso("build").arg(&root).arg("-o").arg(&image));
    for guest in on_each_backend("files") {
        let mut command = nabla();
        command.arg("run").arg(&guest).arg("--disk").arg(format!("{},ro", image.display()));
        let seen = outcome(command.args(["--", "/", "link", "/etc", "/nothing", "/large"]));
        assert_eq!(seen.status, 0, "{}", seen.stderr);
        let lines: Vec<&str> = seen.stdout.lines().collect();
        for expected in [
            "/etc/",
            "/link -> etc/hosts",
            "/large 100001 100001",
            "/etc/deep/er/and/deep/er/still/and/on/file 6 550",
            "link: 20 bytes",
            "/etc: it is a directory",
            "/nothing: there is no such file",
            "/large: 100001 bytes",
        ] {
            assert!(lines.contains(&expected), "'{expected}' is not in\n{}", seen.stdout);
        }
        // Something else on the disk.
        let mut command = nabla();
        fs::write(directory.path().join("zeros"), vec![0; 1 << 20]).unwrap();
        command.arg("run").arg(&guest).arg("--disk").arg(directory.path().join("zeros"));
        assert!(outcome(&mut command).stdout.starts_with("cannot mount: the image is broken in sector 16"));
    }
}

#[test]
fn readers_that_go_away_are_no_error() {
    let (directory, root) = tree();
    let image = directory.path().join("image.iso");
    fs::write(root.join("huge"), vec![b'x'; 3 << 20]).unwrap();
    outcome(iso("build").arg(&root).arg("-o").arg(&image));
    let mut child =
        iso("cat").arg(&image).arg("huge").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    // A tar stream that ends in the middle.
    let mut child = iso("build")
        .args(["--from-tar", "-", "-o"])
        .arg(directory.path().join("never.iso"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[1; 700]).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(125));
    assert!(!directory.path().join("never.iso").exists());
}

#[test]
fn images_that_are_broken_are_told_with_status_1_and_what_is_none_with_125() {
    let (directory, root) = tree();
    let image = directory.path().join("image.iso");
    outcome(iso("build").arg(&root).arg("-o").arg(&image));
    let whole = fs::read(&image).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 4] = [
        ("no volume descriptor", |bytes| bytes[16 * 2048 + 1] = b'X'),
        ("block size", |bytes| bytes[16 * 2048 + 128] = 3),
        ("after the image's end", |bytes| bytes.truncate(18 * 2048)),
        ("too short", |bytes| bytes.truncate(1000)),
    ];
    for (expected, change) in damage {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&image, bytes).unwrap();
        let seen = outcome(iso("verify").arg(&image));
        assert_eq!((seen.status, seen.stderr.as_str()), (1, ""), "{expected}");
        assert!(seen.stdout.contains(expected), "{expected}: {}", seen.stdout);
        let seen = outcome(iso("verify").arg("--json").arg(&image));
        let report: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
        assert_eq!((seen.status, report["problems"].as_array().unwrap().len()), (1, 1));
        assert_eq!(outcome(iso("ls").arg(&image)).status, 125);
    }
    fs::write(&image, "").unwrap();
    assert_eq!(outcome(iso("verify").arg(&image)).status, 125);
}

#[test]
fn pipes_are_refused_without_waiting_for_their_other_end() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    for (verb, more) in
        [("ls", &[][..]), ("verify", &[]), ("cat", &["x"]), ("extract", &["x"]), ("diff", &["/"])]
    {
        let seen = outcome(iso(verb).arg(&pipe).args(more));
        assert!(seen.status == 125 && seen.stderr.contains("no file and no block device"), "{}", seen.stderr);
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let (directory, root) = tree();
    let image = directory.path().join("image.iso");
    outcome(iso("build").arg(&root).arg("-o").arg(&image));
    let image = image.to_str().unwrap();
    let root = root.to_str().unwrap();
    let other = directory.path().join("other.iso");
    let unpacked = directory.path().join("unpacked");
    for arguments in [
        &["ls", image][..],
        &["ls", "-R", "--json", image],
        &["cat", image, "link"],
        &["verify", image],
        &["verify", "--json", image],
        &["diff", image, directory.path().to_str().unwrap()],
        &["diff", "--json", image, root],
        &["extract", image, unpacked.to_str().unwrap()],
        &["build", root, "-o", other.to_str().unwrap()],
        &["build", root, "--json", "-o", other.to_str().unwrap()],
        &["build", root, "-o", "-"],
    ] {
        let mut command = nabla();
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command.arg("iso").args(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn names_are_escaped_wherever_people_read_them() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"a\x1b[2J\n\xff");
    fs::write(root.join(odd), "x").unwrap();
    symlink(odd, root.join("link")).unwrap();
    let image = directory.path().join("image.iso");
    outcome(iso("build").arg(&root).arg("-o").arg(&image));
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let escaped = "a\\u{1b}[2J\\n\\xff";
    let long = outcome(iso("ls").arg("-l").arg(&image)).stdout;
    assert_eq!(long.lines().count(), 2);
    assert!(long.contains(&format!("link -> {escaped}\n")), "{long}");
    let diff = outcome(iso("diff").arg(&image).arg(&empty)).stdout;
    assert!(diff.contains(&format!("/{escaped}: only in the image\n")), "{diff}");
    let seen = outcome(iso("cat").arg(&image).arg("\x1b[2J"));
    assert!(!seen.stderr.contains('\x1b'), "{}", seen.stderr);
}

#[test]
fn deep_trees_are_compared_and_listed_up_to_the_longest_path() {
    let (directory, image) = (tempfile::tempdir().unwrap(), "image.iso");
    let path = "d/".repeat(2500);
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "x").unwrap();
    let seen = outcome(
        iso("build")
            .arg("--add")
            .arg(format!("/{path}f={}", hosts.display()))
            .args(["--time", "0", "-o", image])
            .current_dir(directory.path()),
    );
    assert_eq!(seen.status, 0, "{}", seen.stderr);
    let seen = outcome(iso("ls").args(["-R", image]).current_dir(directory.path()));
    assert_eq!((seen.status, seen.stdout.lines().count()), (125, 2048));
    assert!(seen.stderr.contains("453 files with paths of over 4095 bytes"), "{}", seen.stderr);
    let seen = outcome(iso("ls").args(["-R", "--json", image]).current_dir(directory.path()));
    let listing: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(listing["entries"].as_array().unwrap().len(), 2048);
    let seen = outcome(iso("extract").args(["-q", image, "x"]).current_dir(directory.path()));
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
    let seen = outcome(iso("diff").args([image, "x"]).current_dir(directory.path()));
    assert_eq!((seen.status, seen.stdout.as_str()), (0, ""));
    // What is only in one is told once.
    fs::create_dir(directory.path().join("empty")).unwrap();
    let seen = outcome(
        iso("diff").args([image, "empty", "--ignore", "mode,owner,time"]).current_dir(directory.path()),
    );
    assert_eq!((seen.status, seen.stdout.as_str()), (1, "/d: only in the image\n"));
    assert!(Command::new("rm").arg("-r").arg(directory.path().join("x")).status().unwrap().success());
}
