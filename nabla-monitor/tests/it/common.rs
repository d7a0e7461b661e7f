//! What several modules use.

use nabla_monitor::{Console, ExitStatus, GuestBuilder};
use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// Runs a guest to its end. Returns how it ended and what it wrote.
pub fn run(builder: GuestBuilder) -> (ExitStatus, String) {
    let guest = builder.console(Console::pipe()).start().unwrap();
    let mut output = String::new();
    guest.take_console().unwrap().read_to_string(&mut output).unwrap();
    (guest.wait().unwrap(), output)
}

/// A disk image with this content, padded to blocks of 512.
///
/// A test attaches each file to one guest only, unless it is [`crate::child::alone`]: a program that another test starts
/// has all descriptors of this one until it executes, and with them the disk's lock.
pub fn disk_file(directory: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    let mut bytes = content.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512).max(512), 0);
    fs::write(&path, bytes).unwrap();
    path
}

/// An error with everything that caused it, as tools print it.
pub fn message(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A writer whose content can be looked at.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    /// What was written so far.
    pub fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a process holds: nothing of a guest may be left in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// The numbers of open descriptors.
    pub descriptors: Vec<u32>,
    threads: usize,
    /// Processes, of which supervisors share this program's memory.
    children: Vec<u32>,
}

impl Held {
    /// What this process holds now. Only of use in a test that is [`crate::child::alone`].
    pub fn now() -> Self {
        Self { descriptors: numbers("/proc/self/fd"), threads: threads(), children: children() }
    }
}

/// The entries of a directory that are numbers.
fn numbers(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).unwrap();
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// The fields of a `stat` file in `/proc` from the third on, the state. None when the thread has ended.
pub fn stat(path: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// How many threads this process has. The kernel wakes whoever joins a thread before it removes the thread from `/proc`,
/// where it shows as exiting until then: such a one has ended.
fn threads() -> usize {
    const PF_EXITING: u32 = 4;
    let flags = |thread: u32| stat(&format!("/proc/self/task/{thread}/stat"))?.get(6)?.parse::<u32>().ok();
    let threads = numbers("/proc/self/task");
    threads.into_iter().filter(|&thread| flags(thread).is_some_and(|flags| flags & PF_EXITING == 0)).count()
}

fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let parent = |pid: u32| stat(&format!("/proc/{pid}/stat"))?.get(1).cloned();
    numbers("/proc").into_iter().filter(|&pid| parent(pid).as_ref() == Some(&own)).collect()
}

/// Whether a process exists.
pub fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}
