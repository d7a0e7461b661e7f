//! The walls around the thread that runs a guest: no new privileges, a Landlock domain without any right, and a
//! system call filter with pinned descriptors. The host program's other threads are untouched.

use super::devices::{DeviceDescriptors, EPOLL_PWAIT, EPOLL_PWAIT2};
use crate::{
    confine::landlock,
    sys::{self, nr},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::{collections::BTreeMap, io, os::fd::RawFd};

const KVM_RUN: u64 = 0xae80;

/// The descriptors that the thread uses.
#[derive(Debug, Clone)]
pub struct FilterConfig {
    pub vcpu: RawFd,
    pub vm: RawFd,
    /// Becomes readable when the guest has ended.
    pub exit: RawFd,
    /// Becomes readable when somebody wants something of the thread.
    pub wake: RawFd,
    pub devices: DeviceDescriptors,
}

/// Numbers of system calls that have none in [`nr`].
mod extra {
    pub const POLL: u64 = 7;
    pub const IOCTL: u64 = 16;
    pub const BRK: u64 = 12;
    pub const PWRITE64: u64 = 18;
    pub const SCHED_YIELD: u64 = 24;
    pub const MINCORE: u64 = 27;
    pub const GETRUSAGE: u64 = 98;
    pub const RT_SIGTIMEDWAIT: u64 = 128;
    pub const SIGALTSTACK: u64 = 131;
    pub const CLOCK_GETTIME: u64 = 228;
    pub const RT_SIGRETURN: u64 = 15;
    /// `setuid`, `setgid`, `setreuid`, `setregid`, `setgroups`, `setresuid`, `setresgid`; and `getpid`, by which the
    /// signal's handler makes sure of its sender.
    pub const SET_IDENTITY: [u64; 8] = [105, 106, 113, 114, 116, 117, 119, 39];
}

/// The signal by which the C library has every thread of a program change its identity, when one does.
pub const SETXID: u32 = 33;

/// Allows what the thread does while the guest runs and when it ends. Everything else fails with EPERM: a thread
/// that was killed would leave the host program waiting for it.
pub fn build(config: &FilterConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    use extra::{
        BRK, CLOCK_GETTIME, GETRUSAGE, IOCTL, MINCORE, POLL, PWRITE64, RT_SIGRETURN, RT_SIGTIMEDWAIT,
        SCHED_YIELD, SIGALTSTACK,
    };
    const EQ: SeccompCmpOp = SeccompCmpOp::Eq;
    const PROT_EXEC: u64 = 4;
    let DeviceDescriptors { console, waitset, disks, nets } = &config.devices;
    let is = |index, value| SeccompCondition::new(index, Dword, EQ, value);
    let on = |descriptors: &[RawFd]| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        descriptors.iter().map(|fd| SeccompRule::new(vec![is(0, u64::from(fd.cast_unsigned()))?])).collect()
    };
    let joined = |parts: &[&[RawFd]]| parts.concat();
    let vcpu = u64::from(config.vcpu.cast_unsigned());
    let not_executable = || -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let masked = SeccompCondition::new(2, Qword, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)?;
        Ok(vec![SeccompRule::new(vec![masked])?])
    };
    let used = [&[config.vcpu, config.vm, config.wake, *console, *waitset][..], disks, nets].concat();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (number, rule) in [
        (IOCTL, vec![SeccompRule::new(vec![is(0, vcpu)?, SeccompCondition::new(1, Dword, EQ, KVM_RUN)?])?]),
        (nr::READ, on(&joined(&[nets, &[config.wake]]))?),
        (nr::WRITE, on(&joined(&[nets, &[*console, config.exit]]))?),
        (EPOLL_PWAIT, on(&[*waitset])?),
        (EPOLL_PWAIT2, on(&[*waitset])?),
        (nr::CLOSE, on(&used)?),
        (nr::MMAP, not_executable()?),
        (nr::MPROTECT, not_executable()?),
    ] {
        rules.insert(number.cast_signed(), rule);
    }
    // A call without a rule would be allowed with any descriptor, so it is left out.
    if !disks.is_empty() {
        rules.insert(nr::PREAD64.cast_signed(), on(disks)?);
        rules.insert(PWRITE64.cast_signed(), on(disks)?);
    }
    for number in [
        nr::MUNMAP,
        nr::MADVISE,
        nr::FUTEX,
        nr::EXIT,
        nr::RT_SIGPROCMASK,
        nr::PPOLL,
        POLL,
        BRK,
        SCHED_YIELD,
        MINCORE,
        GETRUSAGE,
        RT_SIGRETURN,
        RT_SIGTIMEDWAIT,
        SIGALTSTACK,
        CLOCK_GETTIME,
    ] {
        rules.insert(number.cast_signed(), Vec::new());
    }
    // When the host program changes its user, the C library makes every thread do so, and aborts the program if one
    // cannot. The thread has no new privileges to gain by it.
    for number in extra::SET_IDENTITY {
        rules.insert(number.cast_signed(), Vec::new());
    }
    let denied = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error().cast_unsigned());
    SeccompFilter::new(rules, denied, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// Takes the calling thread's rights away, for good.
pub fn confine_thread(program: &BpfProgram, landlock_abi: Option<u32>) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    if let Some(abi) = landlock_abi {
        let attributes = landlock::deny_all(abi);
        let (address, size) = (attributes.as_ptr() as u64, attributes.len() as u64);
        // SAFETY: the attributes are as many bytes as is said, and are only read.
        let ruleset = unsafe { sys::syscall(nr::LANDLOCK_CREATE_RULESET, [address, size, 0, 0, 0, 0]) };
        let ruleset = sys::check(ruleset)?;
        // SAFETY: restricts the calling thread, which has no more files to open.
        let result = unsafe { sys::syscall(nr::LANDLOCK_RESTRICT_SELF, [ruleset, 0, 0, 0, 0, 0]) };
        // SAFETY: the descriptor was made above and is used by nobody else.
        unsafe { sys::syscall(nr::CLOSE, [ruleset, 0, 0, 0, 0, 0]) };
        sys::check(result)?;
    }
    seccompiler::apply_filter(program).map_err(io::Error::other)
}
