//! What is said of memory that a guest cannot have.

use crate::{outcome, shell};
use nabla_testkit::guest_hvt;
use std::{os::unix::process::CommandExt, process::Command};

#[test]
fn memory_above_what_the_abi_can_address_is_not_the_executables_fault() {
    let mut tender = Command::new(env!("CARGO_BIN_EXE_nabla"));
    let seen = outcome(tender.arg0("solo5-hvt").arg("--mem=6000").arg(guest_hvt("hello")));
    let expected = "solo5-hvt: guest memory size 6291456000 bytes exceeds the max size 4294967296 bytes\n";
    assert_eq!((seen.status, seen.stderr.as_str()), (1, expected));
}

/// The launcher has no library to ask: it writes texts that were put into its file.
#[test]
fn a_process_that_cannot_map_its_memory_says_why_in_words() {
    for options in ["", "--supervise"] {
        let script = format!("ulimit -v 1000000; exec $nabla run {options} --mem 2G $guest");
        let seen = shell("hello", &script);
        assert_eq!((seen.status, seen.stderr.lines().count()), (125, 1), "{}", seen.stderr);
        for part in ["cannot map 2 GiB of guest memory", "Cannot allocate memory", "ulimit -v"] {
            assert!(seen.stderr.contains(part), "{part}: {}", seen.stderr);
        }
        assert!(!seen.stderr.contains("errno"), "{}", seen.stderr);
    }
}
