//! What guests in virtual machines see of exceptions and privileged instructions, and what ends them.

use crate::{backend::KVM, common::run};
use nabla_monitor::{Console, ExitStatus, Fault, Runtime};
use nabla_testkit::need;
use std::{fs, io::Read, time::Duration};

const SIGILL: i32 = 4;

/// Whether the processor is QEMU's, emulated in software, for which an address that is not canonical is a #GP on the stack,
/// too. Processors raise #SS.
fn is_emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").unwrap().contains("QEMU TCG CPU")
}

/// A guest with tables of its own sees what it would see in ring 0, on the stack that it chose.
#[test]
fn exceptions_go_to_the_guests_own_gates() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for (case, vector, error_code, rest) in [
        ("ud2", 6, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("divide", 0, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("null", 14, 0, "rf=1 if=0 cr2=0x8 ist=true offset=0"),
        ("null-write", 14, 2, "rf=1 if=0 cr2=0x8 ist=true offset=0"),
        ("low-write", 14, 2, "rf=1 if=0 cr2=0x1000 ist=true offset=0"),
        ("boot-write", 14, 3, "rf=1 if=0 cr2=0x10000 ist=true offset=0"),
        ("null-jump", 14, 0, "rf=1 if=0 cr2=0x0 ist=true"),
        // The monitor's own pages look as if they were not there.
        ("above", 14, 0, "rf=1 if=0 cr2=0x200000000 ist=true offset=0"),
        ("noncanonical", 13, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("stack", if is_emulated() { 13 } else { 12 }, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("selector", 13, 0x18, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("outside", 13, 0x60, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("misaligned", 13, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        // Gates that are not there: not a code for an external event, since the guest asked for it.
        ("int-absent", 13, 0x28 * 8 + 2, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("int-outside", 13, 0x80 * 8 + 2, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("int-present", 32, 0, "rf=0 if=0 cr2=0x0 ist=true offset=2\nwent on"),
        ("int3", 3, 0, "rf=0 if=0 cr2=0x0 ist=true offset=1\nwent on"),
        ("int4", 4, 0, "rf=0 if=0 cr2=0x0 ist=true offset=2\nwent on"),
        ("sti", 6, 0, "rf=1 if=1 cr2=0x0 ist=true offset=0"),
        ("cli", 6, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        ("syscall", 6, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        // Three bases are set and read back first; this one is not canonical.
        ("wrmsr", 13, 0, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
        // The gate of #UD is gone: #GP for it, from an event that no instruction asked for.
        ("double", 13, 6 * 8 + 3, "rf=1 if=0 cr2=0x0 ist=true offset=0"),
    ] {
        let (status, output) = run(KVM.build(&runtime, "traps").arg(case));
        let expected = format!("vector={vector} ec={error_code:#x} cs=0x8 ss=0x10 {rest}");
        assert!(output.starts_with(&expected), "{case}: {output:?}, not {expected:?}");
        assert_eq!(status, ExitStatus::Exited(0), "{case}");
    }
}

#[test]
fn single_steps_and_alignment_flags_do_what_they_do_in_ring_0() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    assert_eq!(
        run(KVM.build(&runtime, "traps").arg("step")),
        (ExitStatus::Exited(0), "single steps\nwent on\n".into())
    );
    assert_eq!(run(KVM.build(&runtime, "traps").arg("ac")), (ExitStatus::Exited(0), "went on\n".into()));
    // Which exception it is depends on the processor's maker.
    let (status, output) = run(KVM.build(&runtime, "traps").arg("sysenter"));
    assert!(output.starts_with("vector=6 ") || output.starts_with("vector=13 "), "{output}");
    assert!(status.success());
}

#[test]
fn exceptions_that_cannot_be_delivered_end_the_guest() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for case in ["triple", "bad-stack", "text-stack"] {
        let (status, output) = run(KVM.build(&runtime, "traps").arg(case));
        let ExitStatus::Faulted(Fault { signal, address, instruction_pointer, .. }) = status else {
            panic!("{case}: {status}: {output}")
        };
        assert_eq!((signal, address), (SIGILL, None), "{case}");
        assert!(status.to_string().ends_with("could not be entered (triple fault)"), "{case}: {status}");
        assert!(instruction_pointer.is_some_and(|ip| ip > 0x10_0000), "{case}");
    }
}

/// What the guest's code did, and the address of its first byte.
fn code_at(runtime: &Runtime, hex: &str) -> (ExitStatus, u64) {
    let (status, output) = run(KVM.build(runtime, "code").exec_heap(true).arg(hex));
    let start = output.lines().next().unwrap().trim_start_matches("code at 0x");
    (status, u64::from_str_radix(start, 16).unwrap())
}

#[test]
fn interrupts_without_a_gate_tell_their_own_address() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    // After two nops: int n, int3, int 3 in its long form, int 4.
    for hex in ["9090cd80", "9090cc", "9090cd03", "9090cd04"] {
        let (status, start) = code_at(&runtime, hex);
        let ExitStatus::Faulted(fault) = status else { panic!("{hex}: {status}") };
        assert_eq!(fault.instruction_pointer, Some(start + 2), "{hex}: {status}");
        assert!(!fault.handler_failed, "{hex}: {status}");
    }
}

#[test]
fn a_jump_to_where_syscall_goes_is_no_syscall() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    // mov rcx, -2; mov r11, -1; mov rax, 0x200000ff0; jmp rax
    let (status, _) = code_at(&runtime, "48c7c1feffffff49c7c3ffffffff48b8f00f000002000000ffe0");
    let ExitStatus::Faulted(fault) = status else { panic!("{status}") };
    assert_eq!(fault.instruction_pointer, Some(0x2_0000_0ff0), "{status}");
    // nop; syscall
    let (status, start) = code_at(&runtime, "900f05");
    let ExitStatus::Faulted(fault) = status else { panic!("{status}") };
    assert_eq!((fault.signal, fault.instruction_pointer), (SIGILL, Some(start + 1)), "{status}");
}

#[test]
fn endless_exceptions_can_be_paused_and_killed() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let guest = KVM.build(&runtime, "traps").arg("loop").console(Console::pipe()).start().unwrap();
    guest.take_console().unwrap().read_exact(&mut [0; 6]).unwrap();
    assert_eq!(guest.wait_timeout(Duration::from_millis(50)).unwrap(), None);
    guest.pause().unwrap();
    guest.resume().unwrap();
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}

#[test]
fn thread_pointer_can_be_set() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let (status, output) = run(KVM.build(&runtime, "tls"));
    assert_eq!(
        (status, output.as_str()),
        (ExitStatus::Exited(0), "fs:8 = 0x123456789abcdef0\nfs:8 = 0x2a\n")
    );
}
