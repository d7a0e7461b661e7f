//! Where output goes.

use crate::{
    backend::{Backend, each_backend},
    common::{Sink, run},
};
use nabla_monitor::{Console, ExitStatus, Runtime};
use std::{
    fs,
    io::{self, Read, Write},
    sync::mpsc,
    time::Duration,
};

each_backend! {
    pipe_gives_all_output_then_ends,
    console_can_be_taken_once,
    file_is_created_and_appended_to,
    writer_has_everything_when_wait_returns,
    reader_that_goes_away_does_not_hurt_the_guest_or_the_host,
    reader_that_stalls_stops_only_its_guest,
    writer_that_fails_or_panics_hurts_nobody,
    guest_that_writes_more_than_a_pipe_holds_waits_for_its_reader,
}

/// What `chatty LINES` writes.
fn lines(count: usize) -> String {
    (0..count).map(|i| format!("{i:.<63}\n")).chain(["end\n".to_owned()]).collect()
}

fn pipe_gives_all_output_then_ends(backend: &Backend) {
    let runtime = Runtime::new();
    let (status, output) = run(backend.build(&runtime, "chatty").arg("20000"));
    assert_eq!(status, ExitStatus::Exited(0));
    assert!(output == lines(20000));
}

fn console_can_be_taken_once(backend: &Backend) {
    let runtime = Runtime::new();
    let guest = backend.build(&runtime, "hello").console(Console::pipe()).start().unwrap();
    assert!(guest.take_console().is_some());
    assert!(guest.take_console().is_none());
    assert!(backend.build(&runtime, "hello").start().unwrap().take_console().is_none());
}

fn file_is_created_and_appended_to(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    for _ in 0..2 {
        let guest = backend.build(&runtime, "hello").arg("x").console(Console::file(&path)).start().unwrap();
        assert!(guest.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "Hello, World x\n".repeat(2));
    let error =
        backend.build(&runtime, "hello").console(Console::file("/nonexistent/log")).start().unwrap_err();
    assert!(error.to_string().contains("/nonexistent/log"), "{error}");
}

fn writer_has_everything_when_wait_returns(backend: &Backend) {
    let runtime = Runtime::new();
    let sinks: Vec<Sink> = (0..20).map(|_| Sink::default()).collect();
    let guests: Vec<_> = sinks
        .iter()
        .map(|sink| {
            backend
                .build(&runtime, "chatty")
                .arg("3000")
                .console(Console::writer(sink.clone()))
                .start()
                .unwrap()
        })
        .collect();
    for (guest, sink) in guests.iter().zip(&sinks) {
        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
        assert!(sink.content() == lines(3000).into_bytes());
    }
    // The thread that served them has ended; another one is started for the next.
    let sink = Sink::default();
    let guest = backend.build(&runtime, "hello").console(Console::writer(sink.clone())).start().unwrap();
    guest.wait().unwrap();
    assert_eq!(sink.content(), b"Hello, World\n");
}

fn reader_that_goes_away_does_not_hurt_the_guest_or_the_host(backend: &Backend) {
    let runtime = Runtime::new();
    let guest = backend.build(&runtime, "chatty").arg("20000").console(Console::pipe()).start().unwrap();
    drop(guest.take_console());
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
}

fn reader_that_stalls_stops_only_its_guest(backend: &Backend) {
    let runtime = Runtime::new();
    let stalled = backend.build(&runtime, "chatty").arg("20000").console(Console::pipe()).start().unwrap();
    let mut console = stalled.take_console().unwrap();
    let (status, _) = run(backend.build(&runtime, "chatty").arg("20000"));
    assert_eq!(status, ExitStatus::Exited(0));
    assert_eq!(stalled.try_wait().unwrap(), None);
    let mut output = String::new();
    console.read_to_string(&mut output).unwrap();
    assert!(output == lines(20000));
    assert_eq!(stalled.wait().unwrap(), ExitStatus::Exited(0));
}

fn writer_that_fails_or_panics_hurts_nobody(backend: &Backend) {
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
        let guest = backend
            .build(&runtime, "chatty")
            .arg("20000")
            .console(Console::writer(Failing(panics, sender)))
            .start()
            .unwrap();
        let sink = Sink::default();
        let other = backend
            .build(&runtime, "chatty")
            .arg("100")
            .console(Console::writer(sink.clone()))
            .start()
            .unwrap();
        assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
        assert_eq!(other.wait().unwrap(), ExitStatus::Exited(0));
        assert!(sink.content() == lines(100).into_bytes());
        // Called once: afterwards it is gone, and with it the sender.
        assert_eq!(receiver.iter().count(), 1);
    }
}

fn guest_that_writes_more_than_a_pipe_holds_waits_for_its_reader(backend: &Backend) {
    let runtime = Runtime::new();
    let guest = backend.build(&runtime, "chatty").arg("100000").console(Console::pipe()).start().unwrap();
    assert_eq!(guest.wait_timeout(Duration::from_millis(100)).unwrap(), None);
    // A guest that waits for its reader can be held and killed all the same.
    guest.pause().unwrap();
    guest.resume().unwrap();
    guest.kill().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Killed(9));
    let guest = backend.build(&runtime, "chatty").arg("10000").console(Console::pipe()).start().unwrap();
    let mut output = Vec::new();
    guest.take_console().unwrap().read_to_end(&mut output).unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
    assert!(output.len() > 64 << 10, "{}", output.len());
    // A reader that goes away does not end it.
    let guest = backend.build(&runtime, "chatty").arg("10000").console(Console::pipe()).start().unwrap();
    drop(guest.take_console());
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
}
