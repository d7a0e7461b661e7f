//! The network ring of guests in virtual machines, and what hostile guests do to it.

use crate::{backend::KVM, common::run};
use nabla_monitor::{BadHypercall, ByteSize, ExitStatus, HypercallMistake, Runtime, Tap};
use nabla_testkit::need;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;

/// A processor for the guest, and one for the monitor's thread: otherwise no ring is offered.
fn needs() -> bool {
    need::kvm() && need::two_processors()
}

/// Both ends of a wire. The second is what the guest gets in place of a tap.
fn wire() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap()
}

fn ring(words: &str) -> (ExitStatus, String, OwnedFd) {
    let (here, there) = wire();
    rustix::io::write(&here, b"a frame from outside").unwrap();
    let builder = KVM.build(&Runtime::new(), "ring").memory(ByteSize::mib(32)).args(words.split(' '));
    let (status, output) = run(builder.net(Tap::from_fd(there).unwrap()));
    (status, output, here)
}

#[test]
fn frames_go_through_the_ring_both_ways() {
    if !needs() {
        return;
    }
    // The guest's image begins with its header: something that is known, to be sent.
    let words = "entry 1 1 100000 4 entry 2 1 1000000 800 entry 2 1 1000000 800 entry 1 1 100001 3 submit done commits";
    let (status, output, wire) = ring(words);
    assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), "1:0:14 2:1:0 end\n"));
    let mut frame = [0; 16];
    for expected in [4, 3] {
        assert_eq!(rustix::io::read(&wire, &mut frame), Ok(expected));
    }
}

#[test]
fn what_was_submitted_before_the_end_is_sent() {
    if !needs() {
        return;
    }
    let (status, _, wire) = ring("entry 1 1 100000 20 submit");
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(rustix::io::read(&wire, &mut [0; 64]), Ok(0x20));
}

#[test]
fn nonsense_in_the_ring_ends_the_guest_and_says_why() {
    if !needs() {
        return;
    }
    for (words, expected) in [
        ("tail 401 wait", HypercallMistake::Ring { submitted: 0x401 }),
        ("tail ffffffff wait", HypercallMistake::Ring { submitted: u32::MAX }),
        ("host tail 80000000 wait", HypercallMistake::Ring { submitted: 1 << 31 }),
        ("entry 1 1 ffffffffffffffff 800 submit wait", HypercallMistake::Memory { address: u64::MAX }),
        ("entry 1 1 200000000 800 submit wait", HypercallMistake::Memory { address: 0x2_0000_0000 }),
        ("entry 2 1 1000 800 submit wait", HypercallMistake::Memory { address: 0x1000 }),
        ("entry 2 1 10000 800 submit wait", HypercallMistake::Memory { address: 0x1_0000 }),
        ("entry 1 1 0 1 submit wait", HypercallMistake::Memory { address: 0 }),
    ] {
        let (status, output, _) = ring(words);
        let ExitStatus::BadHypercall(BadHypercall { port: 0x600, mistake, .. }) = status else {
            panic!("{words}: {status}: {output}")
        };
        assert_eq!(mistake, expected, "{words}");
        assert_eq!(status.shell_code(), 139);
    }
    let (status, output, _) = ring("entry 2 1 text 800 submit wait");
    let text = status.to_string();
    assert!(
        text.contains("ended for a submission to its network ring (port 0x600) with memory at 0x1"),
        "{text}: {output}"
    );
}

#[test]
fn strange_words_in_the_ring_are_answered_or_left() {
    if !needs() {
        return;
    }
    let words = "host entry 0 1 0 0 entry ffffffff 1 0 0 entry 2 0 0 1 entry 2 ffffffff 0 1 entry 1 7 0 1 submit done commits \
                 kick host";
    let (status, output, _) = ring(words);
    assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), "2:2:0 3:2:0 end\n"));
}

#[test]
fn guest_with_a_ring_can_be_paused_and_killed() {
    if !needs() {
        return;
    }
    let (_here, there) = wire();
    let runtime = Runtime::new();
    let guest =
        KVM.build(&runtime, "ring").args(["kick", "wait"]).net(Tap::from_fd(there).unwrap()).start().unwrap();
    guest.pause().unwrap();
    guest.resume().unwrap();
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}

#[test]
fn reader_that_has_stopped_costs_frames_and_nothing_else() {
    if !needs() {
        return;
    }
    // More than any socket holds, and nobody reads.
    let words = format!("{}submit done", "entry 1 1 100000 800 ".repeat(300));
    let (status, output, _wire) = ring(&words);
    assert_eq!((status, output.as_str()), (ExitStatus::Exited(0), "end\n"));
}
