//! What this host can do for guests, and what to do about what it cannot.

use crate::sys::procfs::sysctl;
use std::{fs, io, path::Path};

/// How well something that guests need works here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    /// It works.
    Ok,
    /// Guests run, with something less.
    Limited,
    /// Guests (or those that need it) cannot run.
    Missing,
}

/// One thing that guests need of the host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Check {
    /// What it is: stable, one word.
    pub name: &'static str,
    /// Whether it works.
    pub status: CheckStatus,
    /// What was found, as one sentence.
    pub detail: String,
    /// What to do about it: a command where there is one.
    pub fix: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: CheckStatus, detail: impl Into<String>) -> Self {
        Self { name, status, detail: detail.into(), fix: None }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Looks at everything that guests need. Takes a few milliseconds; leaves nothing behind.
///
/// ```no_run
/// for check in nabla_monitor::host::checks() {
///     println!("{}: {}", check.name, check.detail);
///     if let Some(fix) = check.fix {
///         println!("  {fix}");
///     }
/// }
/// ```
#[must_use]
pub fn checks() -> Vec<Check> {
    vec![
        kernel(),
        proc(),
        process(),
        supervision(),
        landlock(),
        mmap_min_addr(),
        memfd(),
        overcommit(),
        temporary_directory(),
        tap(),
        cgroups(),
        kvm(),
    ]
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    // Nothing older has been tried.
    if version >= (5, 9) {
        Check::new("kernel", CheckStatus::Ok, format!("Linux {release}"))
    } else {
        Check::new(
            "kernel",
            CheckStatus::Missing,
            format!("Linux {release} is too old: 5.9 or later is needed"),
        )
        .fix("upgrade the kernel")
    }
}

/// Guests run without it; what is looked at below, and networks, need it.
fn proc() -> Check {
    if Path::new("/proc/self").exists() {
        Check::new("proc", CheckStatus::Ok, "/proc is mounted")
    } else {
        let detail = "no /proc is mounted: guests run without, but not their networks, and settings of the kernel are not seen";
        Check::new("proc", CheckStatus::Limited, detail).fix("mount -t proc proc /proc")
    }
}

/// Whether a process can be started at all: runs a guest of eight bytes that exits.
fn process() -> Check {
    match probe_guest(crate::Supervision::None) {
        Ok(()) => Check::new("process", CheckStatus::Ok, "guests run as confined processes"),
        Err(error) => {
            Check::new("process", CheckStatus::Missing, format!("guests cannot run as processes: {error}"))
        }
    }
}

fn supervision() -> Check {
    match probe_guest(crate::Supervision::Full) {
        Ok(()) => Check::new("supervision", CheckStatus::Ok, "faults and denied calls are told in detail"),
        Err(error) => Check::new(
            "supervision",
            CheckStatus::Limited,
            format!("faults and denied calls lack details: {error}"),
        )
        .fix("sysctl kernel.yama.ptrace_scope=1"),
    }
}

/// Starts a guest that does nothing but exit.
fn probe_guest(supervision: crate::Supervision) -> Result<(), String> {
    probe(&crate::probe::image(), supervision)
}

fn probe(image: &[u8], supervision: crate::Supervision) -> Result<(), String> {
    use std::io::Write;
    let mut file = fs::File::from(
        rustix::fs::memfd_create("nabla-probe", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|errno| format!("memfd_create fails: {errno}"))?,
    );
    file.write_all(image).map_err(|e| sentence(&e))?;
    let guest = crate::Runtime::new()
        .guest(crate::ImageFile::from_file(file, "probe"))
        .name("nabla-probe")
        .memory(crate::ByteSize::mib(2))
        .console(crate::Console::null())
        .supervision(supervision)
        .start()
        .map_err(|error| match error.advice() {
            Some(advice) => format!("{} ({advice})", sentence(&error)),
            None => sentence(&error),
        })?;
    match guest.wait().map_err(|e| sentence(&e))? {
        crate::ExitStatus::Exited(crate::probe::EXIT_STATUS) => Ok(()),
        other => Err(format!("a guest that should have exited was {other}")),
    }
}

/// An error and what caused it.
fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn landlock() -> Check {
    match crate::confine::landlock::abi() {
        Some(abi) => Check::new(
            "landlock",
            CheckStatus::Ok,
            format!("Landlock ABI {abi} denies all files and network"),
        ),
        None => Check::new(
            "landlock",
            CheckStatus::Limited,
            "this kernel has no Landlock, or it is off; the system call filter denies everything without it",
        )
        .fix("add landlock to the kernel's lsm= parameter (Linux 5.13 or later)"),
    }
}

fn mmap_min_addr() -> Check {
    let base = nabla_core::abi::spt::MEMORY_BASE;
    match sysctl("vm/mmap_min_addr") {
        Some(min) if min > base => Check::new(
            "mmap_min_addr",
            CheckStatus::Missing,
            format!("vm.mmap_min_addr is {min}, and guests are loaded at {base}"),
        )
        .fix(format!("sysctl vm.mmap_min_addr={base}")),
        _ => Check::new("mmap_min_addr", CheckStatus::Ok, format!("guests may be loaded at {base}")),
    }
}

fn memfd() -> Check {
    match sysctl("vm/memfd_noexec") {
        Some(2..) => Check::new(
            "memfd",
            CheckStatus::Limited,
            "vm.memfd_noexec forbids executing from memory; a temporary file without a name is used",
        )
        .fix("sysctl vm.memfd_noexec=1"),
        _ => Check::new("memfd", CheckStatus::Ok, "the launcher can be executed from memory"),
    }
}

fn overcommit() -> Check {
    match sysctl("vm/overcommit_memory") {
        Some(2) => Check::new(
            "overcommit",
            CheckStatus::Limited,
            "vm.overcommit_memory is 2: the whole memory of every guest is set aside at its start",
        )
        .fix("sysctl vm.overcommit_memory=0"),
        _ => Check::new("overcommit", CheckStatus::Ok, "guests use only the memory that they touch"),
    }
}

fn temporary_directory() -> Check {
    let directory = std::env::temp_dir();
    let path = directory.display();
    match rustix::fs::statvfs(&directory) {
        Ok(fs) if fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) => Check::new(
            "noexec",
            CheckStatus::Limited,
            format!("{path} is mounted noexec: images there are copied into each guest instead of shared"),
        )
        .fix("keep images on another file system"),
        Ok(_) => Check::new("noexec", CheckStatus::Ok, format!("images in {path} are shared between guests")),
        Err(error) => {
            Check::new("noexec", CheckStatus::Limited, format!("{path} cannot be looked at: {error}"))
        }
    }
}

fn tap() -> Check {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Check::new("tap", CheckStatus::Ok, "taps can be attached (/dev/net/tun)"),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::PermissionDenied => "chmod 666 /dev/net/tun",
                _ => "modprobe tun",
            };
            let detail = format!("guests cannot have network devices: /dev/net/tun: {error}");
            Check::new("tap", CheckStatus::Limited, detail).fix(fix)
        }
    }
}

fn cgroups() -> Check {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Check::new("cgroup", CheckStatus::Ok, "cgroup v2")
    } else if Path::new("/sys/fs/cgroup/memory").exists() {
        Check::new("cgroup", CheckStatus::Ok, "cgroup v1")
    } else {
        Check::new(
            "cgroup",
            CheckStatus::Limited,
            "no cgroups are mounted: guests' resources cannot be limited",
        )
        .fix("mount -t cgroup2 none /sys/fs/cgroup")
    }
}

/// Whether a virtual machine can be had: runs a guest of eight bytes in one.
fn kvm() -> Check {
    match probe_kvm() {
        Ok(()) => Check::new("kvm", CheckStatus::Ok, "hvt guests run in virtual machines"),
        Err(error) => Check::new(
            "kvm",
            CheckStatus::Limited,
            format!("hvt guests cannot run, spt guests do without: {error}"),
        ),
    }
}

fn probe_kvm() -> Result<(), String> {
    probe(&crate::probe::hvt_image(), crate::Supervision::Full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_that_is_not_ok_says_why() {
        for check in checks() {
            assert!(!check.detail.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn probe_guest_runs_here() {
        probe_guest(crate::Supervision::None).unwrap();
        probe_guest(crate::Supervision::Full).unwrap();
    }

    #[test]
    fn probe_guest_runs_in_a_virtual_machine() {
        if nabla_testkit::need::kvm() {
            probe_kvm().unwrap();
        }
    }
}
