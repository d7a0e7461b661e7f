//! The walls around the thread that runs a guest: no new privileges, a Landlock domain without any right, and a
//! system call filter with pinned descriptors. The host program's other threads are untouched.

use super::devices::{DeviceDescriptors, EPOLL_PWAIT, EPOLL_PWAIT2};
use crate::{
    confine::{
        landlock,
        seccomp::{self, Rules},
    },
    sys::{self, nr},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompRule,
};
use std::{io, os::fd::RawFd};

const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
/// For those who look into the guest.
const KVM_GET_XSAVE: u64 = 0x9000_aea4;
const KVM_SET_XSAVE: u64 = 0x5000_aea5;
const KVM_GET_DEBUGREGS: u64 = 0x8080_aea1;
const KVM_SET_DEBUGREGS: u64 = 0x4080_aea2;
const TGKILL: u64 = 234;
const LOOK: [u64; 4] = [KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS];

/// The descriptors that the thread uses.
#[derive(Debug, Clone)]
pub struct FilterConfig {
    pub vcpu: RawFd,
    pub vm: RawFd,
    /// Becomes readable when the guest has ended.
    pub exit: RawFd,
    /// Becomes readable when somebody wants something of the thread.
    pub wake: RawFd,
    /// Becomes readable when the thread stands still for somebody who looks into the guest.
    pub look: RawFd,
    /// Becomes readable when the guest wants something of its network ring, if it has one.
    pub kick: Option<RawFd>,
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

/// What every thread needs: to wait, to give memory back, to end.
pub fn always_allowed() -> Rules {
    use extra::{
        BRK, CLOCK_GETTIME, GETRUSAGE, MINCORE, POLL, RT_SIGRETURN, RT_SIGTIMEDWAIT, SCHED_YIELD, SIGALTSTACK,
    };
    let numbers = [
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
    ];
    // When the host program changes its user, the C library makes every thread do so, and aborts the program if one
    // cannot. The thread has no new privileges to gain by it.
    numbers.into_iter().chain(extra::SET_IDENTITY).map(|number| (number.cast_signed(), Vec::new())).collect()
}

/// Any of these descriptors as first argument.
pub fn on(descriptors: &[RawFd]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    descriptors.iter().map(|&fd| SeccompRule::new(vec![is(0, u64::from(fd.cast_unsigned()))?])).collect()
}

/// An argument of 32 bits with this value.
pub fn is(index: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, Dword, SeccompCmpOp::Eq, value)
}

/// Memory that is not to be executed as third argument.
pub fn not_executable() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    const PROT_EXEC: u64 = 4;
    let masked = SeccompCondition::new(2, Qword, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)?;
    Ok(vec![SeccompRule::new(vec![masked])?])
}

/// Everything without a rule fails with EPERM: a thread that was killed would leave the host program waiting for it.
pub fn finish(rules: Rules) -> Result<BpfProgram, seccompiler::BackendError> {
    let denied = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error().cast_unsigned());
    seccomp::compile(rules, denied)
}

/// Allows what the thread does while the guest runs and when it ends.
pub fn build(config: &FilterConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    let DeviceDescriptors { console, waitset, blocks, nets } = &config.devices;
    let joined = |parts: &[&[RawFd]]| parts.concat();
    let vcpu = u64::from(config.vcpu.cast_unsigned());
    let requests = [KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS]
        .into_iter()
        .chain(LOOK)
        .map(|request| SeccompRule::new(vec![is(0, vcpu)?, is(1, request)?]))
        .collect::<Result<_, _>>()?;
    let kick = config.kick.as_slice();
    let used = [&[config.vcpu, config.vm, config.wake, *console, *waitset][..], blocks, nets, kick].concat();
    let mut rules = always_allowed();
    for (number, rule) in [
        (extra::IOCTL, requests),
        (nr::READ, on(&joined(&[nets, &[config.wake]]))?),
        (nr::WRITE, on(&joined(&[nets, kick, &[*console, config.exit, config.look]]))?),
        (EPOLL_PWAIT, on(&[*waitset])?),
        (EPOLL_PWAIT2, on(&[*waitset])?),
        (nr::CLOSE, on(&used)?),
        (nr::MMAP, not_executable()?),
        (nr::MPROTECT, not_executable()?),
    ] {
        rules.insert(number.cast_signed(), rule);
    }
    // A call without a rule would be allowed with any descriptor, so it is left out.
    if !blocks.is_empty() {
        rules.insert(nr::PREAD64.cast_signed(), on(blocks)?);
        rules.insert(extra::PWRITE64.cast_signed(), on(blocks)?);
    }
    finish(rules)
}

/// For the thread that serves the network ring: it moves frames, waits for kicks, and ends the guest.
pub fn build_for_network(config: &FilterConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    let nets = &config.devices.nets[..];
    let kick = config.kick.as_slice();
    let mut rules = always_allowed();
    for (number, rule) in [
        (nr::READ, on(&[nets, kick].concat())?),
        (nr::WRITE, on(&[nets, &[config.wake, config.look]].concat())?),
        (nr::CLOSE, on(&[nets, kick].concat())?),
        (nr::MMAP, not_executable()?),
        (nr::MPROTECT, not_executable()?),
        (TGKILL, vec![own_kick()?]),
    ] {
        rules.insert(number.cast_signed(), rule);
    }
    finish(rules)
}

/// The signal by which threads of this program are woken.
fn own_kick() -> Result<SeccompRule, seccompiler::BackendError> {
    let process = u64::from(rustix::process::getpid().as_raw_nonzero().get().cast_unsigned());
    SeccompRule::new(vec![is(0, process)?, is(2, u64::from(super::control::KICK))?])
}

/// For the thread that waits for the guest in a program that is there for nothing else: it waits, ends the guest, prints
/// and exits.
pub fn build_for_owner(config: &FilterConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    const STANDARD: [RawFd; 3] = [0, 1, 2];
    const EXIT_GROUP: u64 = 231;
    let mut rules = always_allowed();
    for (number, rule) in [
        (nr::WRITE, on(&[&STANDARD[..], &[config.exit, config.wake, config.look]].concat())?),
        (nr::MMAP, not_executable()?),
        (nr::MPROTECT, not_executable()?),
        (TGKILL, vec![own_kick()?]),
        // Everything that it closes is its own, and nothing can be opened any more.
        (nr::CLOSE, Vec::new()),
        (EXIT_GROUP, Vec::new()),
    ] {
        rules.insert(number.cast_signed(), rule);
    }
    finish(rules)
}

/// Every descriptor of it, but for the standard ones, and what the guest's owner needs.
pub fn descriptors(config: &FilterConfig) -> Vec<RawFd> {
    let DeviceDescriptors { console, waitset, blocks, nets } = &config.devices;
    let own = [config.vcpu, config.vm, config.exit, config.wake, config.look, *console, *waitset];
    [&own[..], blocks, nets, config.kick.as_slice()].concat()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::seccomp::interpreter::{ALLOW, X86_64, run};

    fn config() -> FilterConfig {
        let devices = DeviceDescriptors { console: 1, waitset: 9, blocks: vec![20, 21], nets: vec![30] };
        FilterConfig { vcpu: 7, vm: 6, exit: 5, wake: 8, look: 11, kick: Some(12), devices }
    }

    /// Whether the filter allows a call; otherwise it fails with EPERM.
    fn allows(program: &BpfProgram, number: u64, args: [u64; 6]) -> bool {
        const EPERM: u32 = 0x0005_0001;
        let action = run(program, X86_64, u32::try_from(number).unwrap(), args);
        assert!(action == ALLOW || action == EPERM, "{action:#x}");
        action == ALLOW
    }

    #[test]
    fn descriptors_are_pinned_to_what_is_done_with_them() {
        let program = build(&config()).unwrap();
        for (number, allowed) in [
            (nr::READ, &[8, 30][..]),
            (nr::WRITE, &[1, 5, 11, 12, 30]),
            (nr::PREAD64, &[20, 21]),
            (extra::PWRITE64, &[20, 21]),
            (EPOLL_PWAIT, &[9]),
            (EPOLL_PWAIT2, &[9]),
            (nr::CLOSE, &[1, 6, 7, 8, 9, 12, 20, 21, 30]),
        ] {
            let found: Vec<u64> =
                (0..64).filter(|&fd| allows(&program, number, [fd, 0, 512, 0, 0, 0])).collect();
            assert_eq!(found, allowed, "{number}");
        }
    }

    #[test]
    fn the_processor_can_be_run_and_looked_at_and_no_more() {
        let program = build(&config()).unwrap();
        for request in [KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS].into_iter().chain(LOOK) {
            assert!(allows(&program, extra::IOCTL, [7, request, 0, 0, 0, 0]));
        }
        for (fd, request) in [
            (6, KVM_RUN),
            (7, 0x4020_ae46),
            (7, 0x4090_ae82),
            (7, 0x4138_ae84),
            (30, 0x4004_54ca),
            (1, 0x5412),
        ] {
            assert!(!allows(&program, extra::IOCTL, [fd, request, 0, 0, 0, 0]), "{fd} {request:#x}");
        }
    }

    #[test]
    fn no_memory_becomes_executable_and_no_file_is_opened() {
        let program = build(&config()).unwrap();
        for number in [nr::MMAP, nr::MPROTECT] {
            assert!(allows(&program, number, [0, 4096, 3, 0x22, 0, 0]));
            for protection in [4, 5, 7] {
                assert!(!allows(&program, number, [0, 4096, protection, 0x22, 0, 0]));
            }
        }
        // open, openat, socket, connect, clone, clone3, fork, execve, execveat, kill, tgkill, ptrace, exit_group, bpf.
        for number in [2, 257, 41, 42, 56, 435, 57, 59, 322, 62, 234, 101, 231, 321, nr::SECCOMP, nr::PRCTL] {
            assert!(!allows(&program, number, [0; 6]), "{number}");
        }
    }

    #[test]
    fn without_disks_nothing_is_read_at_an_offset() {
        let mut config = config();
        config.devices.blocks.clear();
        let program = build(&config).unwrap();
        assert!((0..64).all(|fd| !allows(&program, nr::PREAD64, [fd, 0, 512, 0, 0, 0])));
    }
}
