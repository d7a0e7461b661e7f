//! The system call filter of an `spt` guest.

use crate::{confine::seccomp, device::Access};
use nabla_core::abi::spt::syscall;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp,
    SeccompCondition, SeccompRule,
};

/// The descriptors that the guest may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterConfig {
    pub epollfd: i32,
    pub timerfd: i32,
    /// Those of the devices, and how they are used.
    pub devices: Vec<(i32, Access)>,
}

const EQ: SeccompCmpOp = SeccompCmpOp::Eq;

/// Builds the filter: the calls of the ABI in the ABI's form, and death for everything else. Default-deny also
/// covers x32 (its numbers have bit 30 set, so they are in no table) and 32-bit calls (another architecture).
///
/// Descriptors are compared as 32 bits, since that is what the kernel looks at.
pub fn build(config: &FilterConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    let descriptor = |fd: i32| u64::from(fd.cast_unsigned());
    let is = |index: u8, value: u64| SeccompCondition::new(index, Qword, EQ, value);
    let fd_is = |fd: i32| SeccompCondition::new(0, Dword, EQ, descriptor(fd));

    let mut read = Vec::new();
    let mut write = vec![SeccompRule::new(vec![fd_is(syscall::STDOUT)?])?];
    let mut block_io = Vec::new();
    for &(descriptor, access) in &config.devices {
        match access {
            Access::Frames => {
                read.push(SeccompRule::new(vec![fd_is(descriptor)?])?);
                write.push(SeccompRule::new(vec![fd_is(descriptor)?])?);
            }
            Access::Blocks { block_size, capacity } => {
                let last = capacity.saturating_sub(u64::from(block_size));
                block_io.push(SeccompRule::new(vec![
                    fd_is(descriptor)?,
                    is(2, u64::from(block_size))?,
                    SeccompCondition::new(3, Qword, SeccompCmpOp::Le, last)?,
                ])?);
            }
        }
    }
    let mut rules: Vec<(u32, Vec<SeccompRule>)> = vec![
        (syscall::WRITE, write),
        (syscall::EPOLL_PWAIT, vec![SeccompRule::new(vec![fd_is(config.epollfd)?, is(4, 0)?])?]),
        (syscall::TIMERFD_SETTIME, vec![SeccompRule::new(vec![fd_is(config.timerfd)?, is(3, 0)?])?]),
        (
            syscall::CLOCK_GETTIME,
            vec![
                SeccompRule::new(vec![SeccompCondition::new(0, Dword, EQ, syscall::CLOCK_MONOTONIC)?])?,
                SeccompRule::new(vec![SeccompCondition::new(0, Dword, EQ, syscall::CLOCK_REALTIME)?])?,
            ],
        ),
        (
            syscall::ARCH_PRCTL,
            vec![SeccompRule::new(vec![SeccompCondition::new(0, Dword, EQ, syscall::ARCH_SET_FS)?])?],
        ),
        (syscall::EXIT_GROUP, Vec::new()),
    ];
    // A call without a rule would be allowed with any argument, so it is left out.
    if !read.is_empty() {
        rules.push((syscall::READ, read));
    }
    if !block_io.is_empty() {
        rules.push((syscall::PREAD64, block_io.clone()));
        rules.push((syscall::PWRITE64, block_io));
    }
    let rules = rules.into_iter().map(|(number, rules)| (i64::from(number), rules)).collect();
    seccomp::compile(rules, SeccompAction::KillProcess)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::seccomp::interpreter::{ALLOW, I386, KILL_PROCESS, X86_64, run};

    fn config() -> FilterConfig {
        FilterConfig {
            epollfd: 6,
            timerfd: 7,
            devices: vec![(3, Access::Blocks { block_size: 512, capacity: 4 << 30 }), (4, Access::Frames)],
        }
    }

    #[test]
    fn calls_in_the_tables_form_are_allowed() {
        let program = build(&config()).unwrap();
        let last = (4 << 30) - 512;
        for (number, args) in [
            (syscall::WRITE, [1, 0x1234, 99, 0, 0, 0]),
            (syscall::WRITE, [4, 0x1234, 99, 0, 0, 0]),
            (syscall::READ, [4, 0x1234, 99, 0, 0, 0]),
            (syscall::PREAD64, [3, 0x1234, 512, 0, 0, 0]),
            (syscall::PREAD64, [3, 0x1234, 512, last, 0, 0]),
            (syscall::PWRITE64, [3, 0x1234, 512, last, 0, 0]),
            (syscall::EPOLL_PWAIT, [6, 0x1234, 2, u64::MAX, 0, 0]),
            (syscall::TIMERFD_SETTIME, [7, 1, 0x1234, 0, 0, 0]),
            (syscall::CLOCK_GETTIME, [0, 0x1234, 0, 0, 0, 0]),
            (syscall::CLOCK_GETTIME, [1, 0x1234, 0, 0, 0, 0]),
            (syscall::ARCH_PRCTL, [0x1002, 0x1234, 0, 0, 0, 0]),
            (syscall::EXIT_GROUP, [u64::MAX; 6]),
        ] {
            assert_eq!(run(&program, X86_64, number, args), ALLOW, "{number} {args:x?}");
        }
    }

    #[test]
    fn the_same_calls_in_another_form_kill() {
        let program = build(&config()).unwrap();
        let last = (4_u64 << 30) - 512;
        for (number, args) in [
            (syscall::WRITE, [0, 0, 0, 0, 0, 0]),
            (syscall::WRITE, [2, 0, 0, 0, 0, 0]),
            (syscall::WRITE, [3, 0, 0, 0, 0, 0]),
            (syscall::READ, [0, 0, 0, 0, 0, 0]),
            (syscall::READ, [1, 0, 0, 0, 0, 0]),
            (syscall::READ, [3, 0, 0, 0, 0, 0]),
            (syscall::PREAD64, [4, 0, 512, 0, 0, 0]),
            (syscall::PREAD64, [3, 0, 511, 0, 0, 0]),
            (syscall::PREAD64, [3, 0, 1024, 0, 0, 0]),
            (syscall::PREAD64, [3, 0, 512 | 1 << 32, 0, 0, 0]),
            (syscall::PREAD64, [3, 0, 512, last + 1, 0, 0]),
            (syscall::PWRITE64, [3, 0, 512, 1 << 63, 0, 0]),
            (syscall::PWRITE64, [3, 0, 512, u64::MAX, 0, 0]),
            (syscall::EPOLL_PWAIT, [7, 0, 1, 0, 0, 0]),
            (syscall::EPOLL_PWAIT, [6, 0, 1, 0, 0x1234, 8]),
            (syscall::EPOLL_PWAIT, [6, 0, 1, 0, 1 << 32, 8]),
            (syscall::TIMERFD_SETTIME, [6, 0, 0x1234, 0, 0, 0]),
            (syscall::TIMERFD_SETTIME, [7, 0, 0x1234, 0x1234, 0, 0]),
            (syscall::CLOCK_GETTIME, [2, 0x1234, 0, 0, 0, 0]),
            (syscall::CLOCK_GETTIME, [7, 0x1234, 0, 0, 0, 0]),
            (syscall::ARCH_PRCTL, [0x1001, 0x1234, 0, 0, 0, 0]),
        ] {
            assert_eq!(run(&program, X86_64, number, args), KILL_PROCESS, "{number} {args:x?}");
        }
    }

    #[test]
    fn every_other_number_and_architecture_kills() {
        use syscall::{
            ARCH_PRCTL, CLOCK_GETTIME, EPOLL_PWAIT, EXIT_GROUP, PREAD64, PWRITE64, READ, TIMERFD_SETTIME,
            WRITE,
        };
        let program = build(&config()).unwrap();
        let table = [
            READ,
            WRITE,
            PREAD64,
            PWRITE64,
            ARCH_PRCTL,
            CLOCK_GETTIME,
            EXIT_GROUP,
            EPOLL_PWAIT,
            TIMERFD_SETTIME,
        ];
        for number in (0..2048).chain([u32::MAX, 1 << 31]) {
            for args in [[0; 6], [1; 6], [3, 0, 512, 0, 0, 0], [0x1002; 6]] {
                if !table.contains(&number) {
                    assert_eq!(run(&program, X86_64, number, args), KILL_PROCESS, "{number}");
                }
                assert_eq!(run(&program, X86_64, number | 1 << 30, args), KILL_PROCESS, "x32 {number}");
                assert_eq!(run(&program, I386, number, args), KILL_PROCESS, "i386 {number}");
            }
        }
    }

    #[test]
    fn without_devices_their_calls_kill() {
        let program = build(&FilterConfig { devices: Vec::new(), ..config() }).unwrap();
        for number in [syscall::READ, syscall::PREAD64, syscall::PWRITE64] {
            for fd in 0..8 {
                assert_eq!(run(&program, X86_64, number, [fd, 0, 512, 0, 0, 0]), KILL_PROCESS);
            }
        }
    }

    #[test]
    fn sixty_three_disks_fit_into_a_filter() {
        let devices: Vec<_> =
            (0..63).map(|i| (3 + i, Access::Blocks { block_size: 512, capacity: 4096 })).collect();
        let program = build(&FilterConfig { epollfd: 66, timerfd: 67, devices }).unwrap();
        assert!(program.len() <= 4096, "{}", program.len());
        for fd in 3..66 {
            assert_eq!(run(&program, X86_64, syscall::PREAD64, [fd, 0, 512, 3584, 0, 0]), ALLOW);
            assert_eq!(run(&program, X86_64, syscall::PWRITE64, [fd, 0, 512, 3585, 0, 0]), KILL_PROCESS);
        }
        assert_eq!(run(&program, X86_64, syscall::PREAD64, [66, 0, 512, 0, 0, 0]), KILL_PROCESS);
    }
}
