//! What a guest that is a process can see and do.

use crate::{
    backend::PROCESS,
    common::{disk_file, run},
};
use nabla_monitor::{
    ByteSize, Console, Denied, ExitStatus, Fault, Identity, Isolation, Runtime, Supervision, SyscallEntry,
};
use nabla_testkit::{TestTap, guest, need};
use std::{fs, io::Read, os::unix::fs::MetadataExt};

/// Numbers of the x86-64 calls that the filter lets through in their proper form.
const TABLE: [u32; 9] = [0, 1, 17, 18, 158, 228, 231, 281, 286];

/// `uretprobe` (Linux 6.11) and `uprobe` (6.18): the kernel keeps them from every filter, since it calls them itself
/// from code that it puts into traced programs; called from elsewhere, they do nothing.
const UPROBES: [u32; 2] = [335, 336];
const SIGILL: i32 = 4;

/// A running guest with a disk (and a tap, where that can be had), and the path of the disk.
fn sleeper_with_disk(runtime: &Runtime) -> (nabla_monitor::Guest, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let disk = disk_file(&directory, "disk.img", b"x");
    let guest = runtime
        .guest(guest("sleeper-disk"))
        .memory(ByteSize::mib(16))
        .block(disk)
        .console(Console::pipe())
        .start()
        .unwrap();
    let mut console = guest.take_console().unwrap();
    console.read_exact(&mut [0; 6]).unwrap();
    (guest, directory)
}

#[test]
fn address_space_holds_the_guest_and_nothing_else() {
    let runtime = Runtime::new();
    let (running, _directory) = sleeper_with_disk(&runtime);
    let image = fs::canonicalize(guest("sleeper-disk")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
    let mut launcher_pages = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next().unwrap().split_once('-').unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (number(start), number(end));
        let permissions = fields.next().unwrap();
        let what = fields.nth(3).unwrap_or("");
        assert!(!(permissions.contains('w') && permissions.contains('x')), "{line}");
        match what {
            "[vsyscall]" => {}
            "/memfd:nabla-launcher" => launcher_pages += (end - start) / 4096,
            "" => assert!(start >= 0x1_1000 && end <= 16 << 20, "{line}"),
            file => {
                assert_eq!(std::path::Path::new(file), image, "{line}");
                assert!(start >= 0x10_0000 && end <= 16 << 20, "{line}");
            }
        }
    }
    assert_eq!(launcher_pages, 1, "{maps}");
}

#[test]
fn descriptors_are_its_devices_and_nothing_else() {
    let runtime = Runtime::new();
    // Descriptors that a careless host program leaves open across exec.
    let leaked = rustix::io::dup(std::io::stdin()).unwrap();
    let (running, _directory) = sleeper_with_disk(&runtime);
    drop(leaked);
    let mut descriptors: Vec<(u32, String)> = fs::read_dir(format!("/proc/{}/fd", running.pid()))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
            (entry.file_name().to_str().unwrap().parse().unwrap(), target)
        })
        .collect();
    descriptors.sort();
    let numbers: Vec<u32> = descriptors.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 3, 5, 6], "{descriptors:?}");
    assert!(descriptors[0].1.starts_with("pipe:"), "{descriptors:?}");
    assert!(descriptors[1].1.ends_with("disk.img"), "{descriptors:?}");
    assert_eq!(descriptors[2].1, "anon_inode:[eventpoll]");
    assert_eq!(descriptors[3].1, "anon_inode:[timerfd]");
}

#[test]
fn arguments_and_environment_are_empty_and_the_name_is_the_images() {
    let runtime = Runtime::new();
    let guest = PROCESS.start_ready(&runtime, "sleeper");
    let read = |name: &str| fs::read(format!("/proc/{}/{name}", guest.pid())).unwrap();
    assert!(read("environ").is_empty());
    assert!(read("cmdline").is_empty());
    assert_eq!(read("comm"), b"sleeper\n");
    let named = PROCESS.build(&runtime, "sleeper").name("web-7").start().unwrap();
    assert_eq!(fs::read(format!("/proc/{}/comm", named.pid())).unwrap(), b"web-7\n");
}

#[test]
fn process_is_locked_down() {
    let runtime = Runtime::new();
    let guest = PROCESS.start_ready(&runtime, "sleeper");
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Seccomp_filters:\t1",
        "SigBlk:\t0000000000001000",
        "CapEff:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line} is missing in:\n{status}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", guest.pid())).unwrap();
    for name in ["Max core file size", "Max processes", "Max open files", "Max locked memory"] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line[name.len()..].split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{line}");
    }
    if need::root() {
        // A process that cannot be dumped belongs to root in /proc, whoever runs it.
        let identity = Identity { uid: 65534, gid: 65534 };
        let mut isolation = Isolation::default();
        isolation.identity = Some(identity);
        let owner = |dumpable| {
            let guest = PROCESS
                .build(&runtime, "spin")
                .dumpable(dumpable)
                .isolation(isolation.clone())
                .start()
                .unwrap();
            fs::metadata(format!("/proc/{}/maps", guest.pid())).unwrap().uid()
        };
        assert_eq!((owner(false), owner(true)), (0, 65534));
    }
}

#[test]
fn every_system_call_in_every_form_is_denied_but_the_tables() {
    let runtime = Runtime::new();
    let mut allowed = 0;
    for (mode, entry) in
        [("64", SyscallEntry::X86_64), ("x32", SyscallEntry::X32), ("32", SyscallEntry::I386)]
    {
        for number in 0..1024_u32 {
            let arguments = [mode.to_owned(), number.to_string(), (number % 7).to_string()];
            let guest =
                PROCESS.build(&runtime, "syscalls").memory(ByteSize::mib(2)).args(arguments).start().unwrap();
            let status = guest.wait().unwrap();
            if mode == "64" && TABLE.contains(&number) && !matches!(status, ExitStatus::Denied(_)) {
                allowed += 1;
                continue;
            }
            match status {
                ExitStatus::Denied(Denied { call: Some(call) }) => {
                    assert_eq!((call.entry, call.number), (entry, number));
                }
                ExitStatus::Faulted(Fault { signal: SIGILL, .. }) | ExitStatus::Exited(0)
                    if mode == "64" && UPROBES.contains(&number) => {}
                _ => panic!("{mode} {number}: {status}"),
            }
        }
    }
    // At least exit_group, whose arguments are free.
    assert!(allowed >= 1);
}

#[test]
fn calls_of_the_table_in_another_form_are_denied() {
    let runtime = Runtime::new();
    let directory = tempfile::tempdir().unwrap();
    let disk = |name: &str| disk_file(&directory, name, b"x");
    let (_, list) = run(PROCESS.build(&runtime, "allowed").block(disk("list")).arg("list"));
    let forms: Vec<&str> = list.lines().collect();
    assert!(forms.len() >= 10, "{list}");
    for form in forms {
        let guest = PROCESS.build(&runtime, "allowed").block(disk(form)).arg(form).start().unwrap();
        let status = guest.wait().unwrap();
        if form.starts_with("ok-") {
            assert_eq!(status, ExitStatus::Exited(0), "{form}");
            continue;
        }
        assert!(matches!(status, ExitStatus::Denied(Denied { call: Some(_) })), "{form}: {status}");
    }
}

#[test]
fn without_supervision_a_denied_call_still_kills() {
    let runtime = Runtime::new();
    let guest = PROCESS
        .build(&runtime, "syscalls")
        .args(["64", "39", "0"])
        .supervision(Supervision::None)
        .start()
        .unwrap();
    assert_eq!(guest.wait().unwrap(), ExitStatus::Denied(Denied { call: None }));
}

#[test]
fn isolated_guest_shares_no_namespace() {
    if !need::root() {
        return;
    }
    let runtime = Runtime::new();
    let mut isolation = Isolation::default();
    isolation.namespaces = true;
    let guest = PROCESS.build(&runtime, "spin").isolation(isolation).dumpable(true).start().unwrap();
    for name in ["mnt", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(of("self"), of(&guest.pid().to_string()), "{name}");
    }
    let (status, output) = run(PROCESS.build(&runtime, "hello"));
    assert!(status.success(), "{output}");
}

#[test]
fn guest_with_a_tap_and_another_identity_runs() {
    if !need::tap() {
        return;
    }
    let tap = TestTap::up("10.201.7.1/24");
    let runtime = Runtime::new();
    let mut isolation = Isolation::default();
    isolation.identity = Some(Identity { uid: 65534, gid: 65534 });
    let guest = PROCESS.build(&runtime, "net-echo").net(tap.name()).isolation(isolation).start().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    assert!(status.contains("Groups:\t \n"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn guest_killed_for_want_of_memory_says_so() {
    if !need::root() {
        return;
    }
    let cgroup = MemoryCgroup::with_limit(32 << 20);
    need::there("memory-cgroup", cgroup.is_some(), "needs a memory cgroup that root can make");
    let Some(cgroup) = cgroup else { return };
    let runtime = Runtime::new();
    let mut isolation = Isolation::default();
    isolation.cgroup = Some(cgroup.0.clone());
    let start = |isolation: &Isolation, mib: &str| {
        PROCESS
            .build(&runtime, "memory")
            .memory(ByteSize::mib(256))
            .arg(mib)
            .isolation(isolation.clone())
            .start()
            .unwrap()
    };
    assert_eq!(start(&isolation, "200").wait().unwrap(), ExitStatus::OutOfMemory);
    assert_eq!(start(&isolation, "4").wait().unwrap(), ExitStatus::Exited(0));
    let killed = start(&isolation, "4");
    killed.kill().unwrap();
    assert_ne!(killed.wait().unwrap(), ExitStatus::OutOfMemory);
}

/// A cgroup with a limit on memory, v1 or v2.
struct MemoryCgroup(std::path::PathBuf);

impl MemoryCgroup {
    fn with_limit(bytes: u64) -> Option<Self> {
        for (root, limit, swap) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
        ] {
            let cgroup = Self(std::path::Path::new(root).join(format!("nabla-test-{}", std::process::id())));
            if fs::create_dir(&cgroup.0).is_err() {
                continue;
            }
            if fs::write(cgroup.0.join(limit), bytes.to_string()).is_ok() {
                let _ = fs::write(
                    cgroup.0.join(swap),
                    if limit.starts_with("memory.max") { "0".into() } else { bytes.to_string() },
                );
                return Some(cgroup);
            }
        }
        None
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
