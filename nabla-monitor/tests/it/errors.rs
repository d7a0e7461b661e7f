//! What is wrong is told in one sentence.

use crate::{
    backend::{Backend, PROCESS, each_backend},
    child::{alone, fork},
    common::{exists, message},
};
use nabla_monitor::{Abi, ByteSize, Console, Error, ErrorKind, ExitStatus, Runtime};
use nabla_testkit::need;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

each_backend! {
    unusable_images_are_refused_by_kind_and_reason,
    image_without_permission_is_not_runnable,
    arguments_that_do_not_fit_are_refused,
    writable_and_executable_segment_is_refused_unless_allowed,
    image_on_a_noexec_mount_runs,
}

fn start(runtime: &Runtime, image: impl Into<PathBuf>) -> Error {
    runtime.guest(image).memory(ByteSize::mib(16)).console(Console::null()).start().unwrap_err()
}

/// A copy of the guest `hello`, changed.
fn changed(
    backend: &Backend,
    directory: &tempfile::TempDir,
    name: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> PathBuf {
    let mut bytes = fs::read((backend.image)("hello")).unwrap();
    change(&mut bytes);
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Offset of the ABI note's content.
fn abi_note(bytes: &[u8]) -> usize {
    let header = [6_u32, 16, 0x3149_4241].map(u32::to_le_bytes).concat();
    bytes.windows(12).position(|window| window == header).unwrap() + 20
}

fn unusable_images_are_refused_by_kind_and_reason(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    fs::write(&text, "#!/bin/sh\n").unwrap();
    let empty = directory.path().join("empty");
    fs::write(&empty, "").unwrap();
    let set_abi = |target: u32, version: u32| {
        move |bytes: &mut Vec<u8>| {
            let at = abi_note(bytes);
            bytes[at..at + 8].copy_from_slice(&[target, version].map(u32::to_le_bytes).concat());
        }
    };
    use ErrorKind::{NotFound, NotRunnable};
    for (image, kind, reason) in [
        (directory.path().join("none"), NotFound, "No such file or directory"),
        (directory.path().to_owned(), NotRunnable, "is not a regular file"),
        ("/dev/null".into(), NotRunnable, "is not a regular file"),
        (text, NotRunnable, "it is not an ELF file"),
        (empty, NotRunnable, "it is not an ELF file"),
        ("/bin/true".into(), NotRunnable, "ET_DYN"),
        (changed(backend, &directory, "virtio", set_abi(3, 1)), NotRunnable, "virtio"),
        (changed(backend, &directory, "future", set_abi(2, 3)), NotRunnable, "version 3"),
        (
            changed(backend, &directory, "short", |bytes| bytes.truncate(3000)),
            NotRunnable,
            "past the end of the file",
        ),
    ] {
        let error = start(&runtime, &image);
        assert_eq!(error.kind(), kind, "{error}");
        let text = message(&error);
        assert!(text.contains(reason) && text.contains(image.to_str().unwrap()), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

fn image_without_permission_is_not_runnable(backend: &Backend) {
    if !need::root() {
        return;
    }
    alone(|| {
        // Root may read everything, so somebody else has to try: a program that runs as nobody.
        let directory = tempfile::tempdir().unwrap();
        let image = changed(backend, &directory, "secret", |_| {});
        let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&image, mode).unwrap();
        let error = fork(|| {
            become_nobody();
            let error = start(&Runtime::new(), &image);
            format!("{:?} {}", error.kind(), message(&error))
        });
        assert!(error.starts_with("NotRunnable") && error.contains("Permission denied"), "{error}");
    });
}

#[test]
fn program_that_gives_up_root_ends_its_guests_and_starts_others_as_nobody() {
    use std::os::unix::fs::MetadataExt;
    if !need::root() {
        return;
    }
    alone(|| {
        let _ = (PROCESS.image)("sleeper");
        // A guest's image must be readable for nobody.
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let image = changed(&PROCESS, &directory, "image", |_| {});
        for path in [directory.path(), &image] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let text = fork(|| {
            let runtime = Runtime::new();
            let start = || PROCESS.build(&runtime, "sleeper").dumpable(true).start().unwrap();
            let (killed, dropped) = (start(), start());
            let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/maps")).unwrap().uid();
            let before = owner(killed.pid());
            become_nobody();
            killed.kill().unwrap();
            let status = killed.wait().unwrap();
            let pid = dropped.pid();
            drop(dropped);
            let gone = !exists(pid);
            let other =
                runtime.guest(&image).memory(ByteSize::mib(16)).console(Console::null()).start().unwrap();
            format!("{before} {status} {gone} {}", other.wait().unwrap())
        });
        assert_eq!(text, "0 killed by SIGKILL true exited with status 0");
    });
}

fn become_nobody() {
    let id = rustix::process::Uid::from_raw(65534);
    let gid = rustix::process::Gid::from_raw(65534);
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(id, id, id).unwrap();
}

#[test]
fn memory_that_does_not_suit_is_refused() {
    let runtime = Runtime::new();
    for (size, reason) in [
        (ByteSize::bytes(0), "too little"),
        (ByteSize::mib(1), "too little"),
        (ByteSize::bytes((16 << 20) + 1), "not a multiple of 4 KiB"),
        (ByteSize::gib(1 << 20), "more than the 64 TiB"),
        (ByteSize::bytes(u64::MAX), "not a multiple"),
    ] {
        let error = PROCESS.build(&runtime, "hello").memory(size).start().unwrap_err();
        assert!(message(&error).contains(reason), "{size}: {error}");
    }
    let error = PROCESS.build(&runtime, "bigbss").memory(ByteSize::mib(16)).start().unwrap_err();
    assert!(message(&error).contains("needs at least"), "{error}");
    let guest = PROCESS.build(&runtime, "bigbss").memory(ByteSize::mib(128)).start().unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Exited(0));
}

fn arguments_that_do_not_fit_are_refused(backend: &Backend) {
    let runtime = Runtime::new();
    let error = backend.build(&runtime, "hello").arg("x".repeat(8192)).start().unwrap_err();
    assert!(message(&error).contains("8191"), "{error}");
    assert!(
        backend.build(&runtime, "hello").arg("x".repeat(8191)).start().unwrap().wait().unwrap().success()
    );
    let error = backend.build(&runtime, "hello").arg("a\0b").start().unwrap_err();
    assert!(message(&error).contains("NUL"), "{error}");
}

#[test]
fn forced_abi_that_contradicts_the_note_is_refused() {
    let runtime = Runtime::new();
    assert!(PROCESS.build(&runtime, "hello").abi(Abi::SptV2).start().unwrap().wait().unwrap().success());
    let error = PROCESS.build(&runtime, "hello").abi(Abi::SptV1).start().unwrap_err();
    assert!(message(&error).contains("its ABI note says spt-v2, and spt-v1 was asked for"), "{error}");
}

#[test]
fn spt_v1_runs_like_v2() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let image = changed(&PROCESS, &directory, "v1", |bytes| {
        let at = abi_note(bytes) + 4;
        bytes[at] = 1;
    });
    let guest = runtime.guest(image).console(Console::null()).start().unwrap();
    assert!(guest.wait().unwrap().success());
}

fn writable_and_executable_segment_is_refused_unless_allowed(backend: &Backend) {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let image = changed(backend, &directory, "rwx", |bytes| {
        let (offset, size) = (64, 56);
        let header =
            (0..).map(|i| offset + i * size).find(|&at| bytes[at..at + 8] == [1, 0, 0, 0, 5, 0, 0, 0]);
        bytes[header.unwrap() + 4] = 7;
    });
    let error = start(&runtime, &image);
    assert!(message(&error).contains("writable and executable"), "{error}");
    let guest = runtime.guest(&image).console(Console::null()).exec_heap(true).start().unwrap();
    assert!(guest.wait().unwrap().success());
}

#[test]
fn cgroup_that_does_not_exist_is_refused() {
    let mut isolation = nabla_monitor::Isolation::default();
    isolation.cgroup = Some("/nonexistent/cgroup".into());
    let error = PROCESS.build(&Runtime::new(), "hello").isolation(isolation).start().unwrap_err();
    assert!(message(&error).contains("/nonexistent/cgroup"), "{error}");
}

fn image_on_a_noexec_mount_runs(backend: &Backend) {
    if !need::root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(directory.path(), "noexec");
    let image = mount.0.join("hello");
    fs::copy((backend.image)("hello"), &image).unwrap();
    let running = Runtime::new().guest(&image).console(Console::null()).start().unwrap();
    assert!(running.wait().unwrap().success());
}

struct Mount(PathBuf);

impl Mount {
    fn tmpfs(path: &Path, options: &str) -> Self {
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn image_truncated_under_a_running_guest_is_a_bus_error() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    // The file must hold pages that the guest has not touched when it is truncated: padded text does.
    let image = directory.path().join("image");
    fs::copy((PROCESS.image)("sleeper"), &image).unwrap();
    let running =
        runtime.guest(&image).memory(ByteSize::mib(16)).arg("200").console(Console::pipe()).start().unwrap();
    let mut console = running.take_console().unwrap();
    std::io::Read::read_exact(&mut console, &mut [0; 6]).unwrap();
    fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(0).unwrap();
    let status = running.wait().unwrap();
    let ExitStatus::Faulted(fault) = status else { panic!("{status}") };
    assert_eq!(fault.signal, 7, "{status}");
    assert!(status.to_string().contains("truncated"), "{status}");
}
