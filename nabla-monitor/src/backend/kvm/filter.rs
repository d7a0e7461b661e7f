//! The confinement of the thread that runs a guest: no new privileges, a Landlock domain without any right, and a
//! system call filter with pinned descriptors. The host program's other threads are untouched.

use super::devices::DeviceDescriptors;
use crate::{
    confine::{
        landlock,
        seccomp::{self, Rules},
    },
    sys::{
        own_pid,
        raw::{check, nr, syscall},
    },
};
use kvm_bindings::{KVMIO, kvm_debugregs, kvm_regs, kvm_sregs, kvm_xsave};
use linux_raw_sys::general::PROT_EXEC;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompRule,
};
use std::{io, os::fd::RawFd};
use vmm_sys_util::{ioctl_io_nr, ioctl_ior_nr, ioctl_iow_nr};

ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);
ioctl_ior_nr!(KVM_GET_REGS, KVMIO, 0x81, kvm_regs);
ioctl_ior_nr!(KVM_GET_SREGS, KVMIO, 0x83, kvm_sregs);
ioctl_ior_nr!(KVM_GET_XSAVE, KVMIO, 0xa4, kvm_xsave);
ioctl_iow_nr!(KVM_SET_XSAVE, KVMIO, 0xa5, kvm_xsave);
ioctl_ior_nr!(KVM_GET_DEBUGREGS, KVMIO, 0xa1, kvm_debugregs);
ioctl_iow_nr!(KVM_SET_DEBUGREGS, KVMIO, 0xa2, kvm_debugregs);

/// What the thread asks of its processor; all but the first three for debuggers.
fn requests() -> [u64; 7] {
    [
        KVM_RUN(),
        KVM_GET_REGS(),
        KVM_GET_SREGS(),
        KVM_GET_XSAVE(),
        KVM_SET_XSAVE(),
        KVM_GET_DEBUGREGS(),
        KVM_SET_DEBUGREGS(),
    ]
}

/// By which every thread takes over a changed identity; and `getpid`, by which the signal's handler makes sure of its
/// sender.
const SET_IDENTITY: [u32; 8] = [
    nr::SETUID,
    nr::SETGID,
    nr::SETREUID,
    nr::SETREGID,
    nr::SETGROUPS,
    nr::SETRESUID,
    nr::SETRESGID,
    nr::GETPID,
];

/// The descriptors that the thread uses.
#[derive(Debug, Clone)]
pub struct FilterConfig {
    pub vcpu: RawFd,
    pub vm: RawFd,
    /// Readable when the guest has ended.
    pub exit: RawFd,
    /// Readable when the thread is to be killed, paused, resumed or debugged.
    pub wake: RawFd,
    /// Readable when the thread has stopped for a debugger.
    pub debug: RawFd,
    /// Readable when the guest has submitted something to its network ring, if it has one.
    pub doorbell: Option<RawFd>,
    pub devices: DeviceDescriptors,
}

/// What every thread needs: to wait, to give memory back, to end.
pub fn always_allowed() -> Rules {
    let numbers = [
        nr::MUNMAP,
        nr::MADVISE,
        nr::FUTEX,
        nr::EXIT,
        nr::RT_SIGPROCMASK,
        nr::PPOLL,
        nr::POLL,
        nr::BRK,
        nr::SCHED_YIELD,
        nr::MINCORE,
        nr::GETRUSAGE,
        nr::RT_SIGRETURN,
        nr::RT_SIGTIMEDWAIT,
        nr::SIGALTSTACK,
        nr::CLOCK_GETTIME,
    ];
    // When the host program changes its user, the C library makes every thread do so, and aborts the program if one
    // cannot. The thread has no new privileges to gain by it.
    numbers.into_iter().chain(SET_IDENTITY).map(|number| (number.into(), Vec::new())).collect()
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
    let masked = SeccompCondition::new(2, Qword, SeccompCmpOp::MaskedEq(PROT_EXEC.into()), 0)?;
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
    let requests = requests()
        .into_iter()
        .map(|request| SeccompRule::new(vec![is(0, vcpu)?, is(1, request)?]))
        .collect::<Result<_, _>>()?;
    let doorbell = config.doorbell.as_slice();
    let used =
        [&[config.vcpu, config.vm, config.wake, *console, *waitset][..], blocks, nets, doorbell].concat();
    let mut rules = always_allowed();
    for (number, rule) in [
        (nr::IOCTL, requests),
        (nr::READ, on(&joined(&[nets, &[config.wake]]))?),
        (nr::WRITE, on(&joined(&[nets, doorbell, &[*console, config.exit, config.debug]]))?),
        (nr::EPOLL_PWAIT, on(&[*waitset])?),
        (nr::EPOLL_PWAIT2, on(&[*waitset])?),
        (nr::CLOSE, on(&used)?),
        (nr::MMAP, not_executable()?),
        (nr::MPROTECT, not_executable()?),
    ] {
        rules.insert(number.into(), rule);
    }
    // A call without a rule would be allowed with any descriptor, so it is left out.
    if !blocks.is_empty() {
        rules.insert(nr::PREAD64.into(), on(blocks)?);
        rules.insert(nr::PWRITE64.into(), on(blocks)?);
    }
    finish(rules)
}

/// For the thread that serves the network ring: it moves frames, waits for the doorbell, and ends the guest.
pub fn build_for_network(config: &FilterConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    let nets = &config.devices.nets[..];
    let doorbell = config.doorbell.as_slice();
    let mut rules = always_allowed();
    for (number, rule) in [
        (nr::READ, on(&[nets, doorbell].concat())?),
        (nr::WRITE, on(&[nets, &[config.wake, config.debug]].concat())?),
        (nr::CLOSE, on(&[nets, doorbell].concat())?),
        (nr::MMAP, not_executable()?),
        (nr::MPROTECT, not_executable()?),
        (nr::TGKILL, vec![own_kick()?]),
    ] {
        rules.insert(number.into(), rule);
    }
    finish(rules)
}

/// The signal by which threads of this program are woken.
fn own_kick() -> Result<SeccompRule, seccompiler::BackendError> {
    let number = |value: i32| u64::from(value.cast_unsigned());
    SeccompRule::new(vec![is(0, number(own_pid()))?, is(2, number(super::control::KICK))?])
}

/// For the thread that waits for the guest in a program that is there for nothing else: it waits, ends the guest,
/// prints and exits.
pub fn build_for_owner(config: &FilterConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    const STANDARD: [RawFd; 3] = [0, 1, 2];
    let mut rules = always_allowed();
    for (number, rule) in [
        (nr::WRITE, on(&[&STANDARD[..], &[config.exit, config.wake, config.debug]].concat())?),
        (nr::MMAP, not_executable()?),
        (nr::MPROTECT, not_executable()?),
        (nr::TGKILL, vec![own_kick()?]),
        // Everything that it closes is its own, and nothing can be opened any more.
        (nr::CLOSE, Vec::new()),
        (nr::EXIT_GROUP, Vec::new()),
    ] {
        rules.insert(number.into(), rule);
    }
    finish(rules)
}

/// Every descriptor of it, but for the standard ones, and what the guest's owner needs.
pub fn descriptors(config: &FilterConfig) -> Vec<RawFd> {
    let DeviceDescriptors { console, waitset, blocks, nets } = &config.devices;
    let own = [config.vcpu, config.vm, config.exit, config.wake, config.debug, *console, *waitset];
    [&own[..], blocks, nets, config.doorbell.as_slice()].concat()
}

/// Takes the calling thread's rights away, for good.
pub fn confine_thread(program: &BpfProgram, landlock_abi: Option<u32>) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    if let Some(abi) = landlock_abi {
        let attributes = landlock::deny_all(abi);
        let (address, size) = (attributes.as_ptr(), attributes.len() as u64);
        // SAFETY: the attributes are as many bytes as is said, and are only read.
        let ruleset = check(unsafe { syscall!(nr::LANDLOCK_CREATE_RULESET, address, size, 0) })?;
        // SAFETY: restricts the calling thread, which has no more files to open.
        let result = unsafe { syscall!(nr::LANDLOCK_RESTRICT_SELF, ruleset, 0) };
        // SAFETY: the descriptor was made above and is used by nobody else.
        unsafe { syscall!(nr::CLOSE, ruleset) };
        check(result)?;
    }
    seccompiler::apply_filter(program).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::seccomp::interpreter::{ALLOW, X86_64, run};
    use linux_raw_sys::ptrace::SECCOMP_RET_ERRNO;
    use rustix::io::Errno;

    fn config() -> FilterConfig {
        let devices = DeviceDescriptors { console: 1, waitset: 9, blocks: vec![20, 21], nets: vec![30] };
        FilterConfig { vcpu: 7, vm: 6, exit: 5, wake: 8, debug: 11, doorbell: Some(12), devices }
    }

    /// Whether the filter allows a call; otherwise it fails with EPERM.
    fn allows(program: &BpfProgram, number: u32, args: [u64; 6]) -> bool {
        let eperm = SECCOMP_RET_ERRNO | Errno::PERM.raw_os_error().cast_unsigned();
        let action = run(program, X86_64, number, args);
        assert!(action == ALLOW || action == eperm, "{action:#x}");
        action == ALLOW
    }

    #[test]
    fn descriptors_are_pinned_to_what_is_done_with_them() {
        let program = build(&config()).unwrap();
        for (number, allowed) in [
            (nr::READ, &[8, 30][..]),
            (nr::WRITE, &[1, 5, 11, 12, 30]),
            (nr::PREAD64, &[20, 21]),
            (nr::PWRITE64, &[20, 21]),
            (nr::EPOLL_PWAIT, &[9]),
            (nr::EPOLL_PWAIT2, &[9]),
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
        // As a kernel's header has them.
        let known = [0xae80, 0x8090_ae81, 0x8138_ae83, 0x9000_aea4, 0x5000_aea5, 0x8080_aea1, 0x4080_aea2];
        assert_eq!(requests(), known);
        for request in known {
            assert!(allows(&program, nr::IOCTL, [7, request, 0, 0, 0, 0]));
        }
        for (fd, request) in [
            (6, KVM_RUN()),
            (7, 0x4020_ae46),
            (7, 0x4090_ae82),
            (7, 0x4138_ae84),
            (30, 0x4004_54ca),
            (1, 0x5412),
        ] {
            assert!(!allows(&program, nr::IOCTL, [fd, request, 0, 0, 0, 0]), "{fd} {request:#x}");
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
