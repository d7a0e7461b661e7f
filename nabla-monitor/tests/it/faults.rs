//! What a fault tells.

use crate::{
    backend::{Backend, each_backend},
    common::run,
};
use nabla_monitor::{ExitStatus, Runtime};

each_backend! {
    faults_are_told_with_signal_address_and_instruction,
    exec_heap_allows_what_is_a_fault_without_it_and_nothing_else,
}

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;

/// Accesses to what is not there, and to what is there and protected.
fn faults_are_told_with_signal_address_and_instruction(backend: &Backend) {
    let runtime = Runtime::new();
    let mut cases = vec![
        ("null-read", SIGSEGV, Some(Some(0))),
        ("null-write", SIGSEGV, Some(Some(0))),
        ("text-write", SIGSEGV, None),
        ("rodata-write", SIGSEGV, None),
        ("end-read", SIGSEGV, Some(Some(16 << 20))),
        // Not canonical or not there.
        ("kernel-read", SIGSEGV, None),
        ("data-jump", SIGSEGV, None),
        ("heap-jump", SIGSEGV, None),
        ("stack-jump", SIGSEGV, None),
        ("rodata-jump", SIGSEGV, None),
        ("misaligned-sse", SIGSEGV, None),
        ("stack-overflow", SIGSEGV, None),
    ];
    if backend.is_process() {
        // The monitor of a virtual machine emulates these, or calls them unsupported; and a signal has an address for
        // everything.
        cases.extend(["hlt", "cli", "out"].map(|name| (name, SIGSEGV, None)));
        cases.extend([("ud2", SIGILL, None), ("int3", SIGTRAP, None), ("div-zero", SIGFPE, None)]);
    } else {
        // Processes have a page there, which the kernel emulates.
        cases.push(("vsyscall-read", SIGSEGV, None));
        cases.extend(
            [("ud2", SIGILL), ("int3", SIGTRAP), ("div-zero", SIGFPE)]
                .map(|(name, signal)| (name, signal, Some(None))),
        );
    }
    for (case, signal, address) in cases {
        let (status, output) = run(backend.build(&runtime, "fault").arg(case));
        assert_eq!(output, format!("{case}\n"), "{status}");
        let ExitStatus::Faulted(fault) = status else { panic!("{case}: {status}") };
        assert_eq!(fault.signal, signal, "{case}: {status}");
        if let Some(address) = address {
            assert_eq!(fault.address, address, "{case}: {status}");
        }
        let ip = fault.instruction_pointer.unwrap();
        assert!((0x10_0000..=16 << 20).contains(&ip), "{case}: {status}");
        let protected = case.ends_with("-jump") || case == "text-write" || case == "rodata-write";
        if protected {
            assert!(fault.address.is_some_and(|at| (0x10_0000..16 << 20).contains(&at)), "{case}: {status}");
        }
    }
}

fn exec_heap_allows_what_is_a_fault_without_it_and_nothing_else(backend: &Backend) {
    let runtime = Runtime::new();
    let fault = |case: &str| run(backend.build(&runtime, "fault").exec_heap(true).arg(case));
    for case in ["heap-jump", "stack-jump"] {
        assert_eq!(fault(case), (ExitStatus::Exited(3), format!("{case}\nno fault\n")));
    }
    for case in ["data-jump", "rodata-jump", "text-write"] {
        let (status, _) = fault(case);
        assert!(matches!(status, ExitStatus::Faulted(_)), "{case}: {status}");
    }
}
