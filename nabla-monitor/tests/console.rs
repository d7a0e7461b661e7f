//! Where output goes.

mod common;

use common::{build, run};
use nabla_monitor::{Console, ExitStatus, Runtime};
use std::{
    fs,
    io::{self, Read, Write},
    sync::{Arc, Mutex, mpsc},
};

/// What `chatty LINES` writes.
fn lines(count: usize) -> String {
    (0..count).map(|i| format!("{i:.<63}\n")).chain(["end\n".to_owned()]).collect()
}

/// A writer whose content can be looked at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn pipe_gives_all_output_then_ends() {
    let runtime = Runtime::new();
    let (status, output) = run(build(&runtime, "chatty").arg("20000"));
    assert_eq!(status, ExitStatus::Exited(0));
    assert!(output == lines(20000));
}

#[test]
fn console_can_be_taken_once() {
    let runtime = Runtime::new();
    let guest = build(&runtime, "hello").console(Console::pipe()).start().unwrap();
    assert!(guest.take_console().is_some());
    assert!(guest.take_console().is_none());
    assert!(build(&runtime, "hello").start().unwrap().take_console().is_none());
}

#[test]
fn file_is_created_and_appended_to() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    for _ in 0..2 {
        let guest = build(&runtime, "hello").arg("x").console(Console::file(&path)).start().unwrap();
        assert!(guest.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "Hello, World x\n".repeat(2));
    let error = build(&runtime, "hello").console(Console::file("/nonexistent/log")).start().unwrap_err();
    assert!(error.to_string().contains("/nonexistent/log"), "{error}");
}

#[test]
fn writer_has_everything_when_wait_returns() {
    let runtime = Runtime::new();
    let sinks: Vec<Shared> = (0..20).map(|_| Shared::default()).collect();
    let guests: Vec<_> = sinks
        .iter()
        .map(|sink| {
            build(&runtime, "chatty").arg("3000").console(Console::writer(sink.clone())).start().unwrap()
        })
        .collect();
    for (guest, sink) in guests.iter().zip(&sinks) {
        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
        assert!(*sink.0.lock().unwrap() == lines(3000).into_bytes());
    }
    // The thread that served them has ended; another one is started for the next.
    let sink = Shared::default();
    let guest = build(&runtime, "hello").console(Console::writer(sink.clone())).start().unwrap();
    guest.wait().unwrap();
    assert_eq!(*sink.0.lock().unwrap(), b"Hello, World\n");
}

#[test]
fn reader_that_goes_away_does_not_hurt_the_guest_or_the_host() {
    let runtime = Runtime::new();
    let guest = build(&runtime, "chatty").arg("20000").console(Console::pipe()).start().unwrap();
    drop(guest.take_console());
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
}

#[test]
fn reader_that_stalls_stops_only_its_guest() {
    let runtime = Runtime::new();
    let stalled = build(&runtime, "chatty").arg("20000").console(Console::pipe()).start().unwrap();
    let mut console = stalled.take_console().unwrap();
    let (status, _) = run(build(&runtime, "chatty").arg("20000"));
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(stalled.try_wait().unwrap(), None);
    let mut output = String::new();
    console.read_to_string(&mut output).unwrap();
    assert!(output == lines(20000));
    assert_eq!(stalled.wait().unwrap(), ExitStatus::Exited(0));
}

#[test]
fn writer_that_fails_or_panics_hurts_nobody() {
    struct Failing(bool, mpsc::Sender<()>);
    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.1.send(());
            assert!(!self.0, "this writer panics, as the test wants it");
            Err(io::Error::other("no"))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let runtime = Runtime::new();
    for panics in [false, true] {
        let (sender, receiver) = mpsc::channel();
        let guest = build(&runtime, "chatty")
            .arg("20000")
            .console(Console::writer(Failing(panics, sender)))
            .start()
            .unwrap();
        let sink = Shared::default();
        let other =
            build(&runtime, "chatty").arg("100").console(Console::writer(sink.clone())).start().unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
        assert_eq!(other.wait().unwrap(), ExitStatus::Exited(0));
        assert!(*sink.0.lock().unwrap() == lines(100).into_bytes());
        // Called once: afterwards it is gone, and with it the sender.
        assert_eq!(receiver.iter().count(), 1);
    }
}
