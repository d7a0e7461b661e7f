//! Tests of the `nabla` command as a whole.

mod debug;
mod engines;
mod filtered;
mod inspect;
mod iso;
mod machine;
mod memory;
mod net;
mod net_config;
mod net_edges;
mod no_proc;
mod outputs;
mod run;
mod signals;
mod solo5;
mod supervise;
mod tools;
mod waits;

use nabla_testkit::{guest, guest_hvt, need};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// The command.
fn nabla() -> Command {
    Command::new(env!("CARGO_BIN_EXE_nabla"))
}

/// The images of a test guest, one for each backend that is there.
fn on_each_backend(name: &str) -> Vec<PathBuf> {
    let mut images = vec![guest(name)];
    if need::kvm() {
        images.push(guest_hvt(name));
    }
    images
}

/// `nabla run` of a test guest.
fn run(name: &str) -> Command {
    let mut command = nabla();
    command.arg("run").arg(guest(name));
    command
}

/// What a command did.
#[derive(Debug)]
struct Outcome {
    /// Exit status, or the negative of the signal.
    status: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let status = output.status;
        Self {
            status: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a command to its end.
fn outcome(command: &mut Command) -> Outcome {
    command.stdin(Stdio::null()).output().unwrap().into()
}

/// Runs a shell command in which `$nabla` is the command and `$guest` a test guest.
fn shell(name: &str, script: &str) -> Outcome {
    shell_with(&guest(name), script)
}

/// The same with a guest that is somewhere else.
fn shell_with(guest: &Path, script: &str) -> Outcome {
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("nabla", env!("CARGO_BIN_EXE_nabla")).env("guest", guest);
    outcome(&mut command)
}

/// A directory with a disk of 4096 bytes that starts with a text.
fn disk(name: &str, text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    write_disk(&path, text);
    (directory, path)
}

fn write_disk(path: &Path, text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(4096, 0);
    fs::write(path, bytes).unwrap();
}
