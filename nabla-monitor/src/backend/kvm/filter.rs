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
use linux_raw_sys::general::{
    MADV_DODUMP, MADV_DONTDUMP, MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MAP_ANONYMOUS,
    MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE,
};
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

/// Memory that can be read and written at most, as third argument.
fn not_executable() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    Ok(vec![SeccompRule::new(vec![within(2, PROT_READ | PROT_WRITE)?])?])
}

/// `mmap` of what an allocator asks for: private, of no file, not executable. A mapping of a descriptor would be a way to
/// its file past the rules for `read` and `write`. The address is free: the thread can unmap all of its program's memory.
fn new_memory() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    const NO_DESCRIPTOR: u64 = u32::MAX as u64;
    let flags = SeccompCmpOp::MaskedEq((!(MAP_FIXED | MAP_NORESERVE)).into());
    let flags = SeccompCondition::new(3, Dword, flags, (MAP_PRIVATE | MAP_ANONYMOUS).into())?;
    Ok(vec![SeccompRule::new(vec![within(2, PROT_READ | PROT_WRITE)?, flags, is(4, NO_DESCRIPTOR)?])?])
}

/// `madvise` as allocators use it. The others concern files, other processes or the hardware.
fn unused_memory() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let advices = [MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP];
    advices.into_iter().map(|advice| SeccompRule::new(vec![is(2, advice.into())?])).collect()
}

/// An argument without any bit but these.
fn within(index: u8, bits: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, Qword, SeccompCmpOp::MaskedEq(!u64::from(bits)), 0)
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
        (nr::MMAP, new_memory()?),
        (nr::MPROTECT, not_executable()?),
        (nr::MADVISE, unused_memory()?),
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
        (nr::MMAP, new_memory()?),
        (nr::MPROTECT, not_executable()?),
        (nr::MADVISE, unused_memory()?),
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
        (nr::MMAP, new_memory()?),
        (nr::MPROTECT, not_executable()?),
        (nr::MADVISE, unused_memory()?),
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
    use linux_raw_sys::{
        general::{MAP_SHARED, MAP_SHARED_VALIDATE},
        ptrace::SECCOMP_RET_ERRNO,
    };
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

    /// The filters of all threads.
    fn programs() -> [BpfProgram; 3] {
        let config = config();
        [build(&config).unwrap(), build_for_network(&config).unwrap(), build_for_owner(&config).unwrap()]
    }

    const ALLOCATED: u32 = MAP_PRIVATE | MAP_ANONYMOUS;
    /// As libraries pass it: an int, whose upper half may be anything.
    const NO_FILE: [u64; 2] = [u64::MAX, u32::MAX as u64];

    #[test]
    fn only_private_memory_of_no_file_is_mapped() {
        for program in programs() {
            let maps = |flags: u32, fd| allows(&program, nr::MMAP, [0, 4096, 3, flags.into(), fd, 0]);
            for extra in [0, MAP_NORESERVE, MAP_FIXED] {
                assert!(NO_FILE.iter().all(|&fd| maps(ALLOCATED | extra, fd)), "{extra:#x}");
            }
            for flags in [MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE, MAP_SHARED | MAP_ANONYMOUS, 0]
                .into_iter()
                // Growing down, executable, locked, populated, huge, and what is not known yet.
                .chain([8, 12, 13, 15, 18, 31].map(|bit| ALLOCATED | 1 << bit))
            {
                assert!([u64::MAX, 7, 20, 30].iter().all(|&fd| !maps(flags, fd)), "{flags:#x}");
            }
            assert!((0..64).chain([i32::MAX as u64]).all(|fd| !maps(ALLOCATED, fd)));
        }
    }

    #[test]
    fn advices_are_those_of_allocators() {
        for program in programs() {
            let allowed: Vec<u64> = (0..256)
                .filter(|&advice| allows(&program, nr::MADVISE, [0, 4096, advice, 0, 0, 0]))
                .collect();
            assert_eq!(allowed, [4, 8, 14, 15, 16, 17]);
        }
    }

    /// The filter as the kernel runs it, around a thread that has files open and uses the allocator.
    #[test]
    fn confined_thread_allocates_and_maps_no_file() {
        use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mut config = config();
        config.devices.blocks = vec![std::os::fd::AsRawFd::as_raw_fd(&file)];
        let program = build(&config).unwrap();
        let work = move || {
            confine_thread(&program, landlock::abi()).unwrap();
            // More than an allocator keeps, a little of it, and all of it back.
            let mut memory: Vec<Vec<u8>> = (0..64).map(|n| vec![1; 1 << (n % 24)]).collect();
            memory.iter_mut().for_each(|part| part.shrink_to(1));
            let total: usize = memory.iter().map(Vec::len).sum();
            drop(memory);
            let read_write = ProtFlags::READ | ProtFlags::WRITE;
            let mut errors = Vec::new();
            for flags in [MapFlags::SHARED, MapFlags::PRIVATE] {
                // SAFETY: a new mapping at an address of the kernel's choice.
                let mapped = unsafe { mmap(std::ptr::null_mut(), 4096, read_write, flags, &file, 0) };
                errors.push(mapped.err());
            }
            for (flags, protection) in
                [(MapFlags::SHARED, read_write), (MapFlags::PRIVATE, ProtFlags::READ | ProtFlags::EXEC)]
            {
                // SAFETY: as above.
                let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, protection, flags) };
                errors.push(mapped.err());
            }
            // SAFETY: as above, and it is unmapped before it is used.
            let allocated = unsafe {
                mmap_anonymous(std::ptr::null_mut(), 4096, read_write, MapFlags::PRIVATE)
                    .and_then(|address| munmap(address, 4096))
            };
            (total, errors, allocated)
        };
        let (total, errors, allocated) = std::thread::spawn(work).join().unwrap();
        assert!(total > 1 << 24);
        assert_eq!(errors, [Some(Errno::PERM); 4]);
        assert_eq!(allocated, Ok(()));
    }

    #[test]
    fn no_memory_becomes_executable_and_no_file_is_opened() {
        let program = build(&config()).unwrap();
        for number in [nr::MMAP, nr::MPROTECT] {
            assert!(allows(&program, number, [0, 4096, 3, 0x22, u64::MAX, 0]));
            for protection in [4, 5, 7, 1 << 24 | 3, 1 << 32 | 3] {
                assert!(!allows(&program, number, [0, 4096, protection, 0x22, u64::MAX, 0]));
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
