//! What the tests of the monitor share.
#![allow(dead_code, reason = "each test program uses its part of this")]

use nabla_monitor::{ByteSize, Console, ExitStatus, Guest, GuestBuilder, Runtime};
use nabla_testkit::{guest, need};
use std::{fs, io::Read, path::PathBuf};

/// A builder for the test guest `name` with little memory and no output.
pub fn build(runtime: &Runtime, name: &str) -> GuestBuilder {
    runtime.guest(guest(name)).memory(ByteSize::mib(16)).console(Console::null())
}

/// Runs a guest to its end. Returns how it ended and what it wrote.
pub fn run(builder: GuestBuilder) -> (ExitStatus, String) {
    let guest = builder.console(Console::pipe()).start().unwrap();
    let mut output = String::new();
    guest.take_console().unwrap().read_to_string(&mut output).unwrap();
    (guest.wait().unwrap(), output)
}

/// Starts the guest that waits for ever, and returns once it runs.
pub fn start_sleeper(runtime: &Runtime) -> Guest {
    let guest = build(runtime, "sleeper").console(Console::pipe()).start().unwrap();
    let mut ready = [0; 6];
    let mut console = guest.take_console().unwrap();
    console.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    guest
}

/// A disk image with this content, padded to blocks of 512.
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

/// The numbers of this process's open descriptors.
pub fn open_descriptors() -> Vec<u32> {
    let mut numbers: Vec<u32> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Whether a process exists.
pub fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

/// A builder for the test guest `name` in a virtual machine, with little memory and no output.
pub fn build_hvt(runtime: &Runtime, name: &str) -> GuestBuilder {
    runtime.guest(nabla_testkit::guest_hvt(name)).memory(ByteSize::mib(16)).console(Console::null())
}

/// What builds a guest by the name of its image.
pub type Build = fn(&Runtime, &str) -> GuestBuilder;

/// How to build guests for each backend that is there.
pub fn backends() -> Vec<Build> {
    let mut backends: Vec<Build> = vec![build];
    if need::kvm() {
        backends.push(build_hvt);
    }
    backends
}

/// Runs `f` in a forked child.
pub fn in_child(f: impl FnOnce() -> String) -> String {
    use std::io::{Read, Write};
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    // SAFETY: the test program has other threads, but `f` needs no lock of theirs; the child ends by _exit.
    let pid = unsafe { libc_free::fork() };
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        let mut writer = fs::File::from(writer);
        let _ = writer.write_all(result.unwrap_or_else(|_| "panicked".to_owned()).as_bytes());
        libc_free::exit();
    }
    drop(writer);
    let mut text = String::new();
    fs::File::from(reader).read_to_string(&mut text).unwrap();
    libc_free::wait(pid);
    text
}

/// fork, _exit and waitpid by number: std has none of them.
mod libc_free {
    use std::arch::asm;

    pub unsafe fn fork() -> i64 {
        syscall(57, 0)
    }

    pub fn exit() -> ! {
        syscall(231, 0);
        unreachable!("exit_group does not return")
    }

    pub fn wait(pid: i64) {
        syscall(61, pid);
    }

    fn syscall(number: i64, argument: i64) -> i64 {
        let result;
        // SAFETY: fork and exit_group take no pointers, and wait4 gets null ones.
        unsafe {
            asm!("syscall", inlateout("rax") number => result, in("rdi") argument, in("rsi") 0, in("rdx") 0,
                 in("r10") 0, lateout("rcx") _, lateout("r11") _);
        }
        result
    }
}
