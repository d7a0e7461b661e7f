//! Hosts without `/proc`.

use crate::outcome;
use nabla_testkit::{guest, need};
use std::process::Command;

#[test]
fn doctor_and_guests_do_without_proc() {
    if !need::root() {
        return;
    }
    let within = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            "umount -l /proc && exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_nabla"),
        ]);
        outcome(command.args(arguments))
    };
    let doctor = within(&["doctor"]);
    assert_eq!(doctor.status, 0, "{doctor:?}");
    assert!(doctor.stdout.contains("fix: mount -t proc proc /proc"), "{doctor:?}");
    assert!(doctor.stdout.contains("guests run as confined processes"), "{doctor:?}");
    let hello = guest("hello");
    assert_eq!(within(&["run", hello.to_str().unwrap()]).stdout, "Hello, World\n");
    if need::tap() {
        let network = within(&["run", hello.to_str().unwrap(), "--net", "new"]);
        assert!(network.status == 125 && network.stderr.contains("mount -t proc proc /proc"), "{network:?}");
    }
}
