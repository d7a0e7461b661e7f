//! How guests learn their addresses: what shows that they can be told, and what they are told.

// A part of it is used.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../nabla-core/tests/common/elf.rs"]
mod elf;

use self::elf::with_symbols;
use crate::{Outcome, nabla, net::host, outcome};
use nabla_testkit::{guest, need, target_directory, workspace};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

const RUMPRUN: [&str; 2] = ["rump_init", "rumprun_boot"];

/// The test guest that prints its command line, in a file that has these symbols and no others.
fn net_args(symbols: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("prog.nabla");
    fs::write(&path, with_symbols(&fs::read(guest("net-args")).unwrap(), symbols)).unwrap();
    (directory, path)
}

/// `nabla inspect --json` of an image: which arguments it takes for its network, and what shows it.
fn inspect(image: &Path) -> (Option<String>, Option<String>) {
    let seen = outcome(nabla().arg("inspect").arg(image).arg("--json"));
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    let text = |member: &str| seen[member].as_str().map(str::to_owned);
    (text("net_config"), text("net_config_source"))
}

fn some(style: &str, source: &str) -> (Option<String>, Option<String>) {
    (Some(style.to_owned()), Some(source.to_owned()))
}

/// Runs a guest that has the address 10.3.0.2 and ends by itself.
fn run(image: &Path, options: &[&str], args: &[&str]) -> Outcome {
    let network = host();
    let mut command = nabla();
    command.arg("run").arg(image).args(["--net", "new,host=10.3.0.1/24"]).args(options).arg("--").args(args);
    network.namespace().run(move || outcome(&mut command)).unwrap()
}

/// The code blocks of docs/guests.md from a heading on, in a language.
fn documented(heading: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join("docs/guests.md")).unwrap();
    let (_, text) = text.split_once(heading).unwrap_or_else(|| panic!("no '{heading}'"));
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .map(|block| format!("{block}\n"))
        .collect()
}

/// A guest that somebody writes who does what docs/guests.md says, beside a clone of the repository.
fn guest_of_the_docs(directory: &Path) -> PathBuf {
    const FIRST: &str = "## A guest in twenty lines";
    const TCPIP: &str = "### TCP/IP";
    let manifest = documented(FIRST, "toml")[0].clone();
    let dependency = documented(TCPIP, "toml")[0].clone();
    let line = manifest.lines().find(|line| line.starts_with("nabla-guest = ")).unwrap();
    let manifest = manifest.replace(line, dependency.trim_end());
    symlink(workspace(), directory.join("nabla")).unwrap();
    let source = directory.join("guest");
    fs::create_dir_all(source.join("src")).unwrap();
    fs::write(source.join("Cargo.toml"), &manifest).unwrap();
    fs::write(source.join("build.rs"), &documented(FIRST, "rust")[0]).unwrap();
    fs::write(source.join("src/main.rs"), &documented(TCPIP, "rust")[0]).unwrap();
    let target = target_directory().join("documented-guest");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--offline", "--quiet"]).current_dir(&source);
    cargo.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let built: Outcome = cargo.output().unwrap().into();
    assert_eq!(built.status, 0, "{}", built.stderr);
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).unwrap();
    target.join("release").join(name)
}

#[test]
fn guest_written_as_the_docs_say_is_told_its_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let image = guest_of_the_docs(directory.path());
    assert_eq!(inspect(&image), some("nabla", "note"));
    let text = outcome(nabla().arg("inspect").arg(&image)).stdout;
    assert!(text.contains("net args  nabla, as its network note says"), "{text}");
    if !need::tap() {
        return;
    }
    let network = host();
    let mut command = nabla();
    command.arg("run").arg(&image).args(["--net", "new,host=10.3.0.1/24"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = network.namespace().run(move || command.spawn()).unwrap().unwrap();
    let line = BufReader::new(child.stdout.as_mut().unwrap()).lines().next();
    child.kill().unwrap();
    let ended: Outcome = child.wait_with_output().unwrap().into();
    assert_eq!(line.map(Result::unwrap).as_deref(), Some("my address is 10.3.0.2/24"), "{ended:?}");
}

#[test]
fn guest_that_shows_nothing_is_told_nothing_and_nabla_says_what_helps() {
    // Built with the SDK's TCP/IP, but without the parser of the arguments; and with symbols, but not the right ones.
    for (_directory, image) in [net_args(&[]), net_args(&["main", "rump_init", "caml_startup"])] {
        assert_eq!(inspect(&image), (None, None));
        let text = outcome(nabla().arg("inspect").arg(&image)).stdout;
        assert!(text.contains("net args  unknown; nabla run --net-config says it"), "{text}");
        if !need::tap() {
            continue;
        }
        let seen = run(&image, &[], &["own", "word"]);
        assert_eq!((seen.status, seen.stdout.as_str()), (0, "own word\n"), "{}", seen.stderr);
        assert!(seen.stderr.contains("is not told its address"), "{}", seen.stderr);
        assert!(seen.stderr.contains("--net-config nabla"), "{}", seen.stderr);
        let said = run(&image, &["--net-config", "nabla"], &["own"]);
        assert_eq!(said.stdout, "--ipv4=10.3.0.2/24 --ipv4-gateway=10.3.0.1 own\n");
        let none = run(&image, &["--net-config", "none"], &["own"]);
        assert_eq!(none.stdout, "own\n");
        for seen in [said, none] {
            assert!(!seen.stderr.contains("is not told"), "{}", seen.stderr);
        }
    }
}

#[test]
fn mirage_guest_is_known_by_its_symbols() {
    for stub in ["caml_poll", "mirage_solo5_yield", "mirage_solo5_yield_2"] {
        let (_directory, image) = net_args(&["caml_startup", stub]);
        assert_eq!(inspect(&image), some("mirage", "symbols"));
        if need::tap() {
            let seen = run(&image, &[], &["--own=1"]);
            assert_eq!(
                seen.stdout, "--ipv4=10.3.0.2/24 --ipv4-gateway=10.3.0.1 --own=1\n",
                "{}",
                seen.stderr
            );
        }
    }
}

const NET: &str = r#""net":{"if":"ukvmif0","cloner":"True","type":"inet","method":"static","addr":"10.3.0.2","mask":"24","gw":"10.3.0.1"}"#;

#[test]
fn rumprun_guest_is_told_in_its_json() {
    let (_directory, image) = net_args(&RUMPRUN);
    assert_eq!(inspect(&image), some("rumprun", "symbols"));
    if !need::tap() {
        return;
    }
    let words = run(&image, &[], &["one", "two"]);
    assert_eq!(words.stdout, format!("{{\"cmdline\":\"prog.nabla one two\",{NET}}}\n"), "{}", words.stderr);

    let blk = r#""blk":{"source":"etfs","path":"/dev/ld0a","fstype":"blk","mountpoint":"/"}"#;
    let members = format!(r#""env":"A=1","env":"B=2","cmdline":"prog x",{blk},{blk}"#);
    let given = format!("{{{members}}}");
    let merged = run(&image, &[], &[&given]);
    assert_eq!(merged.stdout, format!("{{{members},{NET}}}\n"), "{}", merged.stderr);
    // The monitor joins arguments by spaces, whichever way a shell has split them.
    let parts: Vec<_> = given.split(' ').collect();
    assert_eq!(run(&image, &[], &parts).stdout, merged.stdout);

    let own = r#"{"cmdline":"prog","net":{"if":"ukvmif0","type":"inet","method":"dhcp"}}"#;
    assert_eq!(run(&image, &[], &[own]).stdout, format!("{own}\n"));
}

#[test]
fn malformed_json_of_a_rumprun_guest_is_an_error() {
    if !need::tap() {
        return;
    }
    let (_directory, image) = net_args(&RUMPRUN);
    for given in [r#"{"cmdline":"prog""#, r#"{"cmdline":"prog"} x"#, "{cmdline}"] {
        let seen = run(&image, &[], &[given]);
        assert_eq!((seen.status, seen.stdout.as_str()), (125, ""), "{}", seen.stderr);
        assert!(
            seen.stderr.contains("not one object of JSON") && seen.stderr.contains("line 1 column"),
            "{}",
            seen.stderr
        );
    }
}
