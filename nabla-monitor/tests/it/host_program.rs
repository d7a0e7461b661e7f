//! A host program with habits of its own neither disturbs guests nor is disturbed by them.

use crate::{
    backend::{Backend, each_backend},
    child::alone,
    common::run,
};
use nabla_monitor::{ExitStatus, Runtime};
use rustix::{
    io::Errno,
    process::{WaitOptions, wait},
};
use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

each_backend! {
    host_program_that_waits_for_any_child_sees_only_its_own,
}

fn host_program_that_waits_for_any_child_sees_only_its_own(backend: &Backend) {
    alone(|| {
        // Cargo, which builds the guests, is a child too.
        assert!((backend.image)("exit").exists());
        let runtime = Runtime::new();
        let done = AtomicBool::new(false);
        let child = OwnChild(Command::new("sleep").arg("1000").spawn().unwrap());
        let own = i32::try_from(child.0.id()).unwrap();
        thread::scope(|scope| {
            // Also ends the waiter when an assertion below fails.
            let child = child;
            let waiter = scope.spawn(|| {
                let mut seen = Vec::new();
                // Blocks until the program's own child ends, at the end of the test.
                while !done.load(Ordering::SeqCst) {
                    match wait(WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
                        Ok(Some((pid, _))) => seen.push(pid.as_raw_nonzero().get()),
                        Ok(None) | Err(Errno::INTR) => {}
                        Err(Errno::CHILD) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                seen
            });
            for &supervision in backend.supervisions {
                for _ in 0..50 {
                    let guest = backend.build(&runtime, "exit").arg("3").supervision(supervision);
                    assert_eq!(guest.start().unwrap().wait().unwrap(), ExitStatus::Exited(3));
                }
                let guest = backend.start_ready(&runtime, "sleeper");
                guest.pause().unwrap();
                guest.resume().unwrap();
                guest.kill().unwrap();
                assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
                let (status, _) = run(backend.build(&runtime, "fault").arg("ud2").supervision(supervision));
                assert!(matches!(status, ExitStatus::Faulted(_)), "{status}");
            }
            done.store(true, Ordering::SeqCst);
            drop(child);
            assert_eq!(waiter.join().unwrap(), [own]);
        });
    });
}

struct OwnChild(std::process::Child);

impl Drop for OwnChild {
    fn drop(&mut self) {
        // Not reaped here: that is for the waiter to do.
        let _ = self.0.kill();
    }
}
