//! What can happen to a process: signals from elsewhere, and a life after its handle.

use crate::backend::PROCESS;
use nabla_monitor::{ExitStatus, Runtime, Supervision};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

#[test]
fn signal_from_elsewhere_is_killed_by_it() {
    let runtime = Runtime::new();
    for &supervision in PROCESS.supervisions {
        for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::SEGV] {
            let guest = PROCESS.build(&runtime, "spin").supervision(supervision).start().unwrap();
            kill_process(pid(guest.pid()), signal).unwrap();
            let status = guest.wait().unwrap();
            match (supervision, signal) {
                // Without a supervisor, a sent SIGSEGV looks like a fault.
                (Supervision::None, Signal::SEGV) => {
                    assert!(matches!(status, ExitStatus::Faulted(_)), "{status}");
                }
                _ => assert_eq!(status, ExitStatus::Killed(signal.as_raw())),
            }
        }
    }
}

#[test]
fn detached_guest_outlives_its_handle_and_its_runtime() {
    for &supervision in PROCESS.supervisions {
        let runtime = Runtime::new();
        let guest = PROCESS.build(&runtime, "sleeper").supervision(supervision).start().unwrap();
        let number = guest.detach().unwrap();
        drop(runtime);
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
        assert!(status.contains("TracerPid:\t0"), "{status}");
        assert!(!status.contains("State:\tZ"), "{status}");
        kill_process(pid(number), Signal::KILL).unwrap();
    }
}

#[test]
fn paused_guest_can_be_detached() {
    let runtime = Runtime::new();
    let guest = PROCESS.build(&runtime, "spin").start().unwrap();
    guest.pause().unwrap();
    kill_process(pid(guest.detach().unwrap()), Signal::KILL).unwrap();
}
