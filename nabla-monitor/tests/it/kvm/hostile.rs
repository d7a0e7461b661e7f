//! Guests in virtual machines that do what no guest should. Each ends as it should, or gets an error; the host
//! program goes on.

use crate::{backend::KVM, common::run};
use nabla_monitor::{
    BadHypercall, BlockDevice, ByteSize, ExitStatus, GuestBuilder, HypercallMistake, Runtime,
};
use nabla_testkit::need;
use std::{fs, path::Path, sync::OnceLock, time::Duration};

/// The guest that makes any hypercall, with a disk of 8 KiB that it may read.
fn build_hypercall(runtime: &Runtime, arguments: &str) -> GuestBuilder {
    KVM.build(runtime, "hypercall").args(arguments.split(' ')).block(BlockDevice::new(disk()).read_only())
}

fn hypercall(runtime: &Runtime, arguments: &str) -> (ExitStatus, String) {
    run(build_hypercall(runtime, arguments))
}

fn content() -> Vec<u8> {
    (0..8192_u32).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// The disk's path. It is made once for all tests of this program.
fn disk() -> &'static Path {
    static DISK: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    let file = DISK.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content()).unwrap();
        file
    });
    file.path()
}

fn code(runtime: &Runtime, hex: &str) -> (ExitStatus, String) {
    run(KVM.build(runtime, "code").exec_heap(true).arg(hex))
}

/// The port of each hypercall.
const CALLS: [&str; 8] = ["501", "502", "503", "504", "505", "506", "507", "508"];

#[test]
fn structures_outside_of_what_the_guest_may_use_end_it() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for call in CALLS {
        // Not mapped, the boot info (read-only), text, across the end, behind it, the end of what 32 bits hold.
        for address in ["0", "8", "end-4", "end", "end+1000", "ffffffff", "ffffffe8", "80000000"] {
            let (status, output) = hypercall(&runtime, &format!("{call} {address} 0 0 0 0"));
            let ExitStatus::BadHypercall(BadHypercall { port, mistake, instruction_pointer }) = status else {
                panic!("{call} {address}: {status}: {output}")
            };
            assert_eq!(port, u16::from_str_radix(call, 16).unwrap());
            assert!(matches!(mistake, HypercallMistake::Memory { .. }), "{call} {address}: {status}");
            assert!(instruction_pointer > 0x10_0000);
        }
        // What is written must be writable: not by way of the monitor what cannot be done directly.
        if !["502", "508"].contains(&call) {
            for address in ["boot", "text", "fff0"] {
                let (status, _) = hypercall(&runtime, &format!("{call} {address}"));
                assert!(matches!(status, ExitStatus::BadHypercall(_)), "{call} {address}: {status}");
            }
        }
    }
}

#[test]
fn structures_may_be_unaligned() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for address in ["here+1", "here+7", "buffer+ff8", "end-10"] {
        let (status, output) = hypercall(&runtime, &format!("501 {address}"));
        assert!(status.success(), "{address}: {status}: {output}");
    }
}

#[test]
fn data_outside_of_what_the_guest_may_use_ends_it() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let bad = |arguments: String| {
        let (status, output) = hypercall(&runtime, &arguments);
        let memory = matches!(
            status,
            ExitStatus::BadHypercall(BadHypercall { mistake: HypercallMistake::Memory { .. }, .. })
        );
        assert!(memory, "{arguments}: {status}: {output}");
    };
    for (data, length) in [
        ("0", "1"),
        ("end", "1"),
        ("end-1", "2"),
        ("here", "ffffffffffffffff"),
        ("ffffffffffffffff", "1"),
        ("ffffffffffffffff", "2"),
        ("fffffffffffffff0", "20"),
        ("8000000000000000", "8"),
        ("200000000", "1000"),
        ("200001000", "8"),
        ("boot", "100000000"),
    ] {
        bad(format!("502 here {data} {length}"));
    }
    // Nothing is touched, so nothing is wrong.
    for data in ["0", "end", "ffffffffffffffff"] {
        assert!(hypercall(&runtime, &format!("502 here {data} 0")).0.success());
    }
    let (status, output) = hypercall(&runtime, "502 here text 2");
    assert!(status.success(), "code can be printed: {output}");
}

#[test]
fn block_requests_are_checked_in_every_field() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let raw = |arguments: &str| hypercall(&runtime, arguments);
    // handle offset data length -> ret
    for (words, ret) in [
        ("1 0 buffer 200", 0),
        ("1 1e00 buffer 200", 0),
        // Not whole blocks: Solo5's tender takes it, so this does.
        ("1 1 buffer 5", 0),
        ("1 0 buffer 0", 0),
        ("1 2000 buffer 200", 2),
        ("1 1e01 buffer 200", 2),
        ("1 ffffffffffffffff buffer 200", 2),
        ("1 fffffffffffffe00 buffer 200", 2),
        ("1 8000000000000000 buffer 200", 2),
        ("1 200 buffer ffffffffffffffff", 2),
        ("1 200 buffer fffffffffffffe00", 2),
        ("1 200 buffer 8000000000000000", 2),
        ("0 0 buffer 200", 2),
        ("2 0 buffer 200", 2),
        ("3f 0 buffer 200", 2),
        ("40 0 buffer 200", 2),
        ("ffffffff 0 buffer 200", 2),
        ("100000001 0 buffer 200", 2),
        ("ffffffffffffffff 0 buffer 200", 2),
    ] {
        let (status, output) = raw(&format!("505 here {words}"));
        assert!(status.success(), "{words}: {status}");
        let found: Vec<&str> = output.split(' ').collect();
        assert_eq!(found[4], format!("{ret:x}"), "{words}: {output}");
    }
    for words in ["1 0 text 200", "1 0 boot 200", "1 0 0 200", "1 0 end-100 200", "1 0 ffffffffffffff00 200"]
    {
        let (status, _) = raw(&format!("505 here {words}"));
        assert!(matches!(status, ExitStatus::BadHypercall(_)), "{words}: {status}");
    }
    // The structure itself as the buffer: the result is written last.
    let (status, output) = raw("505 here 1 0 here 200");
    assert!(status.success());
    let first = u64::from_le_bytes(content()[..8].try_into().unwrap());
    assert!(output.starts_with(&format!("{first:x} ")), "{output}");
    // A disk that is only read says so, and is not written.
    let (status, output) = raw("504 here 1 0 buffer 200");
    assert!(status.success());
    assert_eq!(output.split(' ').nth(4), Some("3"), "{output}");
    assert_eq!(fs::read(disk()).unwrap(), content());
    // Kinds do not mix.
    for call in ["506", "507"] {
        let (status, output) = raw(&format!("{call} here 1 buffer 200"));
        assert!(status.success());
        assert_eq!(output.split(' ').nth(3), Some("2"), "{output}");
    }
}

#[test]
fn ports_that_are_no_hypercalls_end_the_guest() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let mut cases: Vec<String> =
        ["0", "20", "60", "70", "80", "cf8", "3f8", "4ff", "500", "600", "603", "ffff"]
            .map(str::to_owned)
            .to_vec();
    cases.extend((0x509..0x520).map(|port| format!("{port:x}")));
    // Other sizes, and the other direction.
    let wrong = ["501b", "501w", "501r", "508b", "508w", "508r", "502b"];
    cases.extend(wrong.map(str::to_owned));
    for case in cases {
        let (status, output) = hypercall(&runtime, &format!("{case} here"));
        let ExitStatus::BadHypercall(BadHypercall { port, mistake, .. }) = status else {
            panic!("{case}: {status}: {output}")
        };
        let expected = match wrong.contains(&case.as_str()) {
            true => HypercallMistake::WrongAccess,
            false => HypercallMistake::NoSuchPort,
        };
        assert_eq!(mistake, expected, "{case}");
        let digits = if case.starts_with('5') { &case[..3] } else { &case };
        assert_eq!(port, u16::from_str_radix(digits, 16).unwrap());
    }
}

#[test]
fn halt_takes_any_status_and_no_bad_cookie() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for (words, status) in [
        ("0 7", ExitStatus::Exited(7)),
        ("here 7", ExitStatus::Exited(7)),
        ("end-200 7", ExitStatus::Exited(7)),
        ("0 ff", ExitStatus::Aborted),
        ("0 ffffffff", ExitStatus::Aborted),
        ("0 100", ExitStatus::Exited(0)),
        ("0 1fe", ExitStatus::Exited(254)),
    ] {
        assert_eq!(hypercall(&runtime, &format!("508 here {words}")).0, status, "{words}");
    }
    for cookie in ["end", "end-1ff", "ffffffffffffffff", "fffffffffffffe00", "200000000", "8000000000000000"]
    {
        let (status, _) = hypercall(&runtime, &format!("508 here {cookie} 7"));
        assert!(matches!(status, ExitStatus::BadHypercall(_)), "{cookie}: {status}");
    }
}

#[test]
fn poll_with_any_timeout_can_be_killed() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for timeout in ["0", "1", "f4240"] {
        let (status, output) = hypercall(&runtime, &format!("503 here {timeout} 1234 5678"));
        assert!(status.success());
        assert_eq!(output.split(' ').nth(1), Some("0"), "{output}");
    }
    for timeout in ["ffffffffffffffff", "7fffffffffffffff", "8000000000000000", "e8d4a51000"] {
        let guest = build_hypercall(&runtime, &format!("503 here {timeout}")).start().unwrap();
        let waited = guest.wait_timeout(Duration::from_millis(30)).unwrap();
        assert_eq!(waited, None, "{timeout}");
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    }
}

/// `int n`, by a guest without gates.
#[test]
fn every_interrupt_number_is_a_fault() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for number in 0..=255_u8 {
        let (status, output) = code(&runtime, &format!("cd{number:02x}"));
        assert!(matches!(status, ExitStatus::Faulted(_)), "{number}: {status}: {output}");
    }
}

#[test]
fn instructions_for_ring_0_end_the_guest_with_their_bytes() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for hex in [
        "f4",             // hlt
        "0f22d8",         // mov cr3, rax
        "0f22c0",         // mov cr0, rax
        "0f22e0",         // mov cr4, rax
        "0f20d8",         // mov rax, cr3
        "0f23f8",         // mov dr7, rax
        "0f21f8",         // mov rax, dr7
        "0f06",           // clts
        "0f08",           // invd
        "0f09",           // wbinvd
        "0f0138",         // invlpg [rax]
        "0f01f8",         // swapgs
        "0f00d0",         // lldt ax
        "0f01f0",         // lmsw ax
        "b9800000c00f30", // wrmsr EFER
        "b9820000c00f30", // wrmsr LSTAR
        "b91b0000000f32", // rdmsr APIC_BASE
        "480f07",         // sysretq
    ] {
        let (status, output) = code(&runtime, hex);
        let (privileged, fault) = match status {
            ExitStatus::Unsupported(instruction) => {
                let found: String = instruction.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                (hex.ends_with(&found), false)
            }
            // Instructions that do not exist with these settings, on this processor.
            ExitStatus::Faulted(fault) => (false, fault.signal == 4),
            _ => (false, false),
        };
        assert!(privileged || fault && hex == "480f07", "{hex}: {status}: {output}");
    }
}

#[test]
fn instructions_that_call_hypervisors_and_systems_do_no_harm() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    for (hex, name) in [
        ("0f01c1", "vmcall"),
        ("0f01d9", "vmmcall"),
        ("0f05", "syscall"),
        ("0f34", "sysenter"),
        ("0f35", "sysexit"),
        ("0f01d4", "vmfunc"),
        ("0faa", "rsm"),
        ("f1", "int1"),
        ("0f01d1", "xsetbv"),
        ("b9000000000f33", "rdpmc"),
        ("48cf", "iretq"),
        ("48cb", "retfq"),
        ("cb", "retf"),
        ("9d", "popfq"),
        ("ff28", "far jmp"),
        ("6a0048cb", "retfq to nothing"),
        ("4831c0480fb7c08ed0", "mov ss, 0"),
        ("b80f0000008ed8", "mov ds, LDT"),
        ("b8f30000008ed8", "mov ds, TSS"),
        ("b8e80000008ed8", "mov ds, monitor code"),
        ("0f00d8", "ltr ax"),
        ("0f0110", "lgdt [rax]"),
        ("0f0118", "lidt [rax]"),
        ("48c7c0ffffffff0f0110", "lgdt [-1]"),
        ("4831c00f0118", "lidt [0]"),
        ("48b80000000000000080ffe0", "jmp to a non-canonical address"),
        ("48b80000000200000000ffe0", "jmp to the stub"),
        ("48b8d000000002000000ffe0", "jmp into the stub"),
        ("48b8f00f000002000000ffe0", "jmp to where syscall goes"),
        ("48b80000000200000000488b00", "read the stub"),
        ("48b80010000002000000488900", "write the tables"),
        ("48b80030000002000000488900", "write the page tables"),
        ("48bc0000000000000080c3", "stack at a non-canonical address"),
        ("48bc0030000002000000cd80", "stack at the monitor's"),
        ("48bc003000000200000050", "push to the monitor's stack"),
        ("9c48810c24000004009d", "flags with AC"),
        ("9c48810c24003100009d", "flags with IOPL and TF"),
        ("9c48810c24000002009d", "flags with VM"),
        ("6c", "insb"),
        ("f36f", "rep outsd"),
        ("ba08050000f36f", "rep outsd to halt"),
    ] {
        let (status, output) = code(&runtime, hex);
        let fine = match status {
            ExitStatus::Faulted(_) | ExitStatus::Unsupported(_) | ExitStatus::BadHypercall(_) => true,
            // Some of it is allowed, or ignored.
            ExitStatus::Exited(0) => output.contains("returned"),
            _ => false,
        };
        assert!(fine, "{name}: {status}: {output}");
    }
    // The host, and other guests, are fine.
    assert!(run(KVM.build(&runtime, "hello")).0.success());
}

#[test]
fn tables_that_are_told_are_the_guests_own() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    // sub rsp, 16; sgdt [rsp] or sidt [rsp]; mov rax, [rsp + 2]; add rsp, 16
    for instruction in ["0f010424", "0f010c24"] {
        let (status, output) = code(&runtime, &format!("4883ec10{instruction}488b4424024883c410"));
        assert!(status.success(), "{status}");
        let base = output.lines().last().unwrap().trim_start_matches("returned 0x");
        let base = u64::from_str_radix(base, 16).unwrap();
        // Where the processor does not fault, it tells where a table is. That is all: it cannot be reached.
        assert!(base == 0 || !has_umip(), "{output}");
    }
}

/// Whether the processor lets `sgdt` fault.
fn has_umip() -> bool {
    fs::read_to_string("/proc/cpuinfo").unwrap().contains(" umip")
}

#[test]
fn boot_info_cannot_be_written() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    // mov [0x10000], rax
    let (status, _) = code(&runtime, "4889042500000100");
    assert!(matches!(status, ExitStatus::Faulted(fault) if fault.address == Some(0x1_0000)), "{status}");
    // jmp to it
    let (status, _) = code(&runtime, "b800000100ffe0");
    assert!(matches!(status, ExitStatus::Faulted(fault) if fault.address == Some(0x1_0000)), "{status}");
}

#[test]
fn guests_with_the_most_memory_are_checked_at_its_end_too() {
    if !need::kvm() {
        return;
    }
    let runtime = Runtime::new();
    let big =
        |arguments: &str| -> GuestBuilder { build_hypercall(&runtime, arguments).memory(ByteSize::gib(4)) };
    assert!(run(big("501 ffffffe0")).0.success());
    assert!(run(big("502 here fffffffe 2")).0.success());
    for arguments in ["501 ffffffff", "501 fffffffc", "502 here ffffffff 2", "502 here 100000000 1"] {
        let (status, _) = run(big(arguments));
        assert!(matches!(status, ExitStatus::BadHypercall(_)), "{arguments}: {status}");
    }
}
