//! Tests, and parts of them, in a process of their own.
//!
//! Tests of one program share its descriptors, threads, children, identity and signals. One that counts or changes such
//! things would see, or disturb, the others.

use rustix::process::{Pid, WaitOptions, waitpid};
use std::{
    env, fs,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    thread,
};

const ROLE: &str = "NABLA_TEST_ROLE";

/// What this process shall do instead of its one test, if [`command`] started it.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// This test program, with no other test than the calling one, which then finds `role`.
pub fn command(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    // The test harness names each test's thread after it.
    command.arg("--exact").arg(thread::current().name().unwrap()).arg("--nocapture").env(ROLE, role);
    command
}

/// Runs the rest of the calling test, `test`, in a process without other tests. What comes before it runs there, too.
pub fn alone(test: impl FnOnce()) {
    if role().is_some() {
        return test();
    }
    let output = command("alone").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    // The harness shows this with the test that it belongs to.
    eprint!("{stderr}");
    assert!(output.status.success() && stdout.contains(" 1 passed"), "in a process of its own: {stdout}");
}

/// Runs `f` in a forked child. Only for tests that are [`alone`]: a thread of another test could hold a lock, like that
/// of the heap, which nobody would release in the child.
pub fn fork(f: impl FnOnce() -> String) -> String {
    assert!(role().is_some(), "this test has other tests beside it");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    // SAFETY: the other thread of this process waits for the calling one and holds no lock that `f` needs. The child
    // ends by `_exit`, so nothing that belongs to the parent is dropped or written twice.
    let pid = unsafe { linux::fork() };
    let Some(pid) = Pid::from_raw(pid) else {
        let result = catch_unwind(AssertUnwindSafe(f));
        let mut writer = fs::File::from(writer);
        let _ = writer.write_all(result.unwrap_or_else(|_| "panicked".to_owned()).as_bytes());
        linux::exit(0)
    };
    drop(writer);
    let mut text = String::new();
    fs::File::from(reader).read_to_string(&mut text).unwrap();
    waitpid(Some(pid), WaitOptions::empty()).unwrap();
    text
}

/// What neither std nor rustix has.
mod linux {
    unsafe extern "C" {
        pub fn fork() -> i32;
        #[link_name = "_exit"]
        pub safe fn exit(status: i32) -> !;
    }
}
