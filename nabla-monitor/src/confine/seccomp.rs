//! System call filters: what `seccompiler` makes of rules, after a search for the number of the call.
//!
//! `seccompiler` compares the number with one rule after the other. When a filter is loaded, the kernel (since 5.11)
//! runs it for every system call that there is, to remember which are allowed whatever their arguments, so that a chain
//! of forty comparisons costs 150 us of a guest's start. Nearly all of these calls have no rule. A search tree in front
//! finds that out with six comparisons, and lets the rest through to the chain; loading takes 40 us then.

use linux_raw_sys::ptrace::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_MAXINSNS, BPF_RET, BPF_W,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// Rules by the numbers of system calls: one of them must hold; none means that the call is allowed in any form.
pub type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Instructions of classic BPF.
const LOAD_WORD: u16 = code(BPF_LD | BPF_W | BPF_ABS);
const JUMP_EQUAL: u16 = code(BPF_JMP | BPF_JEQ | BPF_K);
const JUMP_GREATER_OR_EQUAL: u16 = code(BPF_JMP | BPF_JGE | BPF_K);
const RETURN: u16 = code(BPF_RET | BPF_K);

const fn code(bits: u32) -> u16 {
    (bits & 0xffff) as u16
}

/// Offset of the number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// What the kernel takes.
const LONGEST: usize = BPF_MAXINSNS as usize;
/// So many numbers are compared one by one.
const LEAF: usize = 2;

/// Compiles a filter that allows what the rules say, and does `denied` about everything else.
///
/// x32 calls have numbers of their own, and are in no rule; those of 32-bit programs come from another architecture.
///
/// # Errors
///
/// When the program would be longer than the kernel takes, 4096 instructions.
pub fn compile(rules: Rules, denied: SeccompAction) -> Result<BpfProgram, BackendError> {
    let numbers: Vec<u32> = rules.keys().filter_map(|&number| u32::try_from(number).ok()).collect();
    let otherwise = u32::from(denied.clone());
    let chain: BpfProgram =
        SeccompFilter::new(rules, denied, SeccompAction::Allow, TargetArch::x86_64)?.try_into()?;
    let Some(mut program) = search(&numbers, otherwise) else { return Ok(chain) };
    if program.len() + chain.len() > LONGEST {
        return Ok(chain);
    }
    program.extend(chain);
    Ok(program)
}

const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// A program that returns `otherwise` for every number that is not among `numbers` (ascending), and ends after itself
/// for those. `None` when that is farther than a jump goes.
fn search(numbers: &[u32], otherwise: u32) -> Option<BpfProgram> {
    let mut program = vec![statement(LOAD_WORD, NUMBER)];
    // Jumps to the end, whose distance is known at the end.
    let mut found = Vec::new();
    branch(numbers, otherwise, &mut program, &mut found)?;
    let end = program.len();
    for at in found {
        program[at].jt = u8::try_from(end - at - 1).ok()?;
    }
    Some(program)
}

fn branch(numbers: &[u32], otherwise: u32, program: &mut BpfProgram, found: &mut Vec<usize>) -> Option<()> {
    if numbers.len() <= LEAF {
        for &number in numbers {
            found.push(program.len());
            program.push(statement(JUMP_EQUAL, number));
        }
        program.push(statement(RETURN, otherwise));
        return Some(());
    }
    let (low, high) = numbers.split_at(numbers.len() / 2);
    let at = program.len();
    program.push(statement(JUMP_GREATER_OR_EQUAL, high[0]));
    branch(low, otherwise, program, found)?;
    program[at].jt = u8::try_from(program.len() - at - 1).ok()?;
    branch(high, otherwise, program, found)
}

/// Runs filters as the kernel does, for tests.
#[cfg(test)]
pub mod interpreter {
    pub use linux_raw_sys::ptrace::{
        AUDIT_ARCH_I386 as I386, AUDIT_ARCH_X86_64 as X86_64, SECCOMP_RET_ALLOW as ALLOW,
        SECCOMP_RET_KILL_PROCESS as KILL_PROCESS,
    };
    use seccompiler::BpfProgram;

    /// What a filter returns for a call, and after how many instructions: classic BPF, as far as filters use it.
    pub fn run_counted(program: &BpfProgram, arch: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&arch.to_le_bytes());
        data.extend_from_slice(&0_u64.to_le_bytes());
        args.iter().for_each(|arg| data.extend_from_slice(&arg.to_le_bytes()));
        let (mut accumulator, mut pc, mut count) = (0_u32, 0_usize, 0);
        loop {
            let instruction = &program[pc];
            (pc, count) = (pc + 1, count + 1);
            let k = instruction.k;
            let jump = |taken: bool| usize::from(if taken { instruction.jt } else { instruction.jf });
            match instruction.code {
                0x20 => {
                    let at = k as usize;
                    accumulator = u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
                }
                0x15 => pc += jump(accumulator == k),
                0x25 => pc += jump(accumulator > k),
                0x35 => pc += jump(accumulator >= k),
                0x05 => pc += k as usize,
                0x54 => accumulator &= k,
                0x06 => return (k, count),
                code => panic!("instruction {code:#x} is not known to this interpreter"),
            }
        }
    }

    /// What a filter returns for a call.
    pub fn run(program: &BpfProgram, arch: u32, number: u32, args: [u64; 6]) -> u32 {
        run_counted(program, arch, number, args).0
    }
}

#[cfg(test)]
mod tests {
    use super::{interpreter::*, *};
    use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

    fn rules(numbers: impl IntoIterator<Item = i64>) -> Rules {
        let first_is_7 = || SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 7).unwrap();
        let rule = |number: i64| match number % 2 {
            0 => Vec::new(),
            _ => vec![SeccompRule::new(vec![first_is_7()]).unwrap()],
        };
        numbers.into_iter().map(|number| (number, rule(number))).collect()
    }

    #[test]
    fn search_changes_no_answer() {
        for numbers in [vec![], vec![0], vec![5, 6, 7], (0..90).map(|n| n * n % 463).collect::<Vec<_>>()] {
            let rules = rules(numbers);
            let filter = SeccompFilter::new(
                rules.clone(),
                SeccompAction::KillProcess,
                SeccompAction::Allow,
                TargetArch::x86_64,
            );
            let plain: BpfProgram = filter.unwrap().try_into().unwrap();
            let program = compile(rules, SeccompAction::KillProcess).unwrap();
            for number in (0..600).chain([u32::MAX, 1 << 30, 1 << 31, 1 << 30 | 6]) {
                for (arch, first) in [(X86_64, 7), (X86_64, 8), (I386, 7)] {
                    let args = [first, 0, 0, 0, 0, 0];
                    assert_eq!(
                        run(&program, arch, number, args),
                        run(&plain, arch, number, args),
                        "{number} {arch:x} {first}"
                    );
                }
            }
        }
    }

    #[test]
    fn calls_without_a_rule_are_denied_after_few_instructions() {
        let program = compile(rules((0..40).map(|n| n * 11)), SeccompAction::KillProcess).unwrap();
        for number in (0..463).filter(|number| number % 11 != 0) {
            let (action, count) = run_counted(&program, X86_64, number, [0; 6]);
            assert_eq!(action, KILL_PROCESS);
            assert!(count <= 10, "{number}: {count} instructions");
        }
    }

    #[test]
    fn too_many_rules_for_a_search_are_compared_one_by_one() {
        let program = compile(rules((0..400).map(|n| n * 2)), SeccompAction::KillProcess).unwrap();
        assert_eq!(run(&program, X86_64, 798, [0; 6]), ALLOW);
        assert_eq!(run(&program, X86_64, 799, [0; 6]), KILL_PROCESS);
    }
}
