//! Core dumps and debuggers through the API.

use crate::{
    backend::{Backend, KVM, each_backend, start_ready},
    common::stat,
};
use nabla_monitor::{Console, Error, ExitStatus, GdbListener, Runtime};
use nabla_testkit::need;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::Duration,
};

each_backend! {
    a_core_of_a_running_guest_disturbs_nobody,
    a_paused_guest_can_be_dumped_and_stays_paused,
    pauses_and_dumps_from_several_threads_do_not_wait_for_each_other,
    crashes_leave_a_core_and_other_ends_do_not,
    a_directory_that_goes_away_is_an_error_and_not_the_end,
    a_debugger_that_reads_no_answers_holds_nobody,
}

/// Checks that it is a core with registers and memory, and returns the instruction pointer in it.
fn instruction_pointer(core: &Path) -> u64 {
    let file = fs::File::open(core).unwrap();
    let mut start = [0; 4096];
    file.read_exact_at(&mut start, 0).unwrap();
    assert_eq!((&start[..4], start[16]), (&b"\x7fELF"[..], 4));
    let word = |at: usize| u64::from_le_bytes(start[at..at + 8].try_into().unwrap());
    let notes = usize::try_from(word(64 + 8)).unwrap();
    assert_eq!(&start[notes + 12..notes + 16], b"CORE");
    // The first note is that of the registers: a header of 20 bytes, 112 of status, and RIP is the 17th register.
    word(notes + 20 + 112 + 16 * 8)
}

fn a_core_of_a_running_guest_disturbs_nobody(backend: &Backend) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    for name in ["spin", "sleeper"] {
        for asked_before in [false, true] {
            let mut builder = backend.build(&runtime, name);
            if asked_before {
                builder = builder.core_dumps(directory.path());
            }
            let guest = start_ready(builder);
            let first = guest.dump_core(directory.path()).unwrap();
            let second = guest.dump_core(directory.path()).unwrap();
            assert_ne!(first, second);
            for core in [&first, &second] {
                let at = instruction_pointer(core);
                assert!((0x10_0000..0x100_0000).contains(&at), "{at:#x} in {}", core.display());
            }
            assert_eq!(guest.try_wait().unwrap(), None, "{name} has ended");
            guest.kill().unwrap();
            assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
            assert!(guest.core().unwrap().is_none());
            let error = guest.dump_core(directory.path()).unwrap_err();
            assert!(error.to_string().contains("write a core"), "{error}");
        }
    }
}

fn a_paused_guest_can_be_dumped_and_stays_paused(backend: &Backend) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    for name in ["spin", "sleeper"] {
        let guest = backend.start_ready(&runtime, name);
        guest.pause().unwrap();
        let before = guest.usage().unwrap().user_time;
        guest.dump_core(directory.path()).unwrap();
        guest.dump_core(directory.path()).unwrap();
        let after = guest.usage().unwrap().user_time;
        assert!(after - before < Duration::from_millis(100), "{name} has run");
        guest.resume().unwrap();
        guest.kill().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    }
    if backend.is_process() {
        let guest = backend.start_ready(&runtime, "spin");
        guest.pause().unwrap();
        guest.dump_core(directory.path()).unwrap();
        let state = stat(&format!("/proc/{}/stat", guest.pid())).unwrap().swap_remove(0);
        assert!(matches!(state.as_str(), "T" | "t"), "{state}");
    }
}

fn pauses_and_dumps_from_several_threads_do_not_wait_for_each_other(backend: &Backend) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    let guest = backend.start_ready(&runtime, "spin");
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                guest.pause().unwrap();
                guest.resume().unwrap();
            }
        });
        scope.spawn(|| (0..10).for_each(|_| drop(guest.dump_core(directory.path()).unwrap())));
    });
    assert_eq!(guest.try_wait().unwrap(), None);
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
}

fn crashes_leave_a_core_and_other_ends_do_not(backend: &Backend) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    for (name, args, crash) in
        [("abort", &[][..], true), ("exit", &["1"], false), ("exit", &["0"], false), ("panic", &[], true)]
    {
        let guest = backend.build(&runtime, name).args(args).core_dumps(directory.path()).start().unwrap();
        let core = guest.core().unwrap();
        assert_eq!(core.is_some(), crash, "{name}");
        if let Some(core) = core {
            let at = instruction_pointer(&core);
            assert!((0x10_0000..0x100_0000).contains(&at), "{at:#x}");
        }
    }
    // A denied call and a fault, which the backends see differently.
    let guest =
        backend.build(&runtime, "fault").arg("read").arg("64").core_dumps(directory.path()).start().unwrap();
    if !matches!(guest.wait().unwrap(), ExitStatus::Exited(_)) {
        assert!(guest.core().unwrap().is_some());
    }
}

fn a_directory_that_goes_away_is_an_error_and_not_the_end(backend: &Backend) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    let guest = start_ready(backend.build(&runtime, "sleeper").core_dumps(directory.path()));
    drop(directory);
    let missing = guest.dump_core("/nonexistent").unwrap_err();
    assert!(matches!(missing, Error::Operation { .. }), "{missing:?}");
    assert_eq!(guest.try_wait().unwrap(), None);
}

fn a_debugger_that_reads_no_answers_holds_nobody(backend: &Backend) {
    // All of 16 MiB, as digits, over and over: more than any connection buffers.
    const QUESTION: &[u8] = b"$m100000,f00000#10";
    let runtime = Runtime::new();
    let listener = GdbListener::tcp("127.0.0.1:0").unwrap();
    let address = listener.to_string();
    let guest = backend.build(&runtime, "spin").gdb(listener).start().unwrap();
    let mut connection = TcpStream::connect(&address).unwrap();
    for _ in 0..4 {
        connection.write_all(QUESTION).unwrap();
    }
    // It is answering.
    connection.read_exact(&mut [0; 64]).unwrap();
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    drop(guest);
}

/// Most of the time such a guest is in the monitor's own code, where it cannot be stopped.
#[test]
fn a_guest_that_does_nothing_but_switch_threads_can_be_looked_into() {
    if !need::kvm() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new();
    // mov ecx, 0xc0000100; xor eax, eax; xor edx, edx; wrmsr; jmp to wrmsr
    let switching = KVM.build(&runtime, "code").exec_heap(true).arg("b9000100c031c031d20f30ebfc");
    let guest = switching.console(Console::pipe()).start().unwrap();
    guest.take_console().unwrap().read_exact(&mut [0; 8]).unwrap();
    for _ in 0..5 {
        guest.dump_core(directory.path()).unwrap();
    }
    assert_eq!(guest.try_wait().unwrap(), None);
}
