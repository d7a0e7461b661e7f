//! The launcher's machine code for x86-64.
//!
//! The launcher is a loop over a table of system calls, and the way into the guest. It knows nothing: which calls,
//! with which arguments and which results, is computed by [`super::super::launch`] in safe Rust. It has no stack
//! of its own, no data and no relocation, and is assembled here only to be copied into the file that is executed.

use crate::sys::raw::nr;
use linux_raw_sys::ptrace::SECCOMP_SET_MODE_FILTER;
use std::arch::global_asm;

/// Where the launcher's page lies: below the boot info, in a page that no guest uses.
pub const LAUNCHER_BASE: u64 = nabla_core::abi::spt::MEMORY_BASE;
/// Where [`Header`] and the table lie: above every guest, so that one munmap takes them away with the stack and
/// the vdso.
pub const TABLE_BASE: u64 = 0x6000_0000_0000;
/// End of the address space of a process (without 5-level paging, which has to be asked for).
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// [`Step::expected`] of a call whose result does not matter.
pub const ANY_RESULT: u64 = 1 << 63;
/// Exit status of a launcher that failed and has told so.
pub const LAUNCH_FAILED: u8 = 125;

/// What the launcher needs besides the table, which follows it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Number of [`Step`]s.
    pub steps: u64,
    /// 1: a failure is written to descriptor 2 as text; 0: as two numbers, the step's index and the result.
    pub text: u64,
    /// The last munmap: address.
    pub unmap_address: u64,
    /// The last munmap: length.
    pub unmap_length: u64,
    /// Address of the `sock_fprog` in guest memory.
    pub filter: u64,
    /// Number of 8-byte words from `filter` on that are zeroed once the filter is in force.
    pub filter_words: u64,
    /// The guest's stack pointer.
    pub stack: u64,
    /// What the guest's entry point gets.
    pub argument: u64,
    /// The guest's entry point.
    pub entry: u64,
    /// Exit status of a launcher that failed.
    pub failure_status: u64,
    /// Address of the [`Reason`]s for a failure that is written as text.
    pub reasons: u64,
    /// Number of these.
    pub reason_count: u64,
}

/// What to write after a step's message when it returns this errno; the first that fits counts.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reason {
    /// The errno, or 0 for a result that is none.
    pub errno: u64,
    /// Index of the step, or [`ANY_STEP`].
    pub step: u64,
    /// Address of the text.
    pub text: u64,
    /// Length of the text.
    pub length: u64,
}

/// See [`Reason::step`].
pub const ANY_STEP: u64 = u64::MAX;
/// Size of [`Reason`] in the file.
pub const REASON_SIZE: usize = 4 * 8;

impl Reason {
    /// Its bytes in the file.
    pub fn words(&self) -> [u64; 4] {
        [self.errno, self.step, self.text, self.length]
    }
}

/// One system call.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// What it must return, or [`ANY_RESULT`].
    pub expected: u64,
    /// Address and length of the text to write when it returns something else.
    pub message: u64,
    /// See `message`.
    pub message_length: u64,
}

/// Size of [`Header`] in the file.
pub const HEADER_SIZE: usize = 12 * 8;
/// Size of [`Step`] in the file.
pub const STEP_SIZE: usize = 10 * 8;

impl Header {
    /// Its bytes in the file.
    pub fn words(&self) -> [u64; 12] {
        let h = self;
        [
            h.steps,
            h.text,
            h.unmap_address,
            h.unmap_length,
            h.filter,
            h.filter_words,
            h.stack,
            h.argument,
            h.entry,
            h.failure_status,
            h.reasons,
            h.reason_count,
        ]
    }
}

impl Step {
    /// Its bytes in the file.
    pub fn words(&self) -> [u64; 10] {
        let &Self { number, args: [a, b, c, d, e, f], expected, message, message_length } = self;
        [number, a, b, c, d, e, f, expected, message, message_length]
    }
}

global_asm!(
    ".pushsection .rodata.nabla_launcher, \"a\", @progbits",
    ".balign 16",
    ".globl nabla_monitor_launcher_start",
    ".hidden nabla_monitor_launcher_start",
    "nabla_monitor_launcher_start:",
    // rbx: the current step; r12: steps left; r13: the header.
    "    movabs r13, {table}",
    "    lea rbx, [r13 + {header_size}]",
    "    mov r12, [r13]",
    "    movabs r14, {any}",
    "2:  test r12, r12",
    "    jz 3f",
    "    mov rax, [rbx]",
    "    mov rdi, [rbx + 8]",
    "    mov rsi, [rbx + 16]",
    "    mov rdx, [rbx + 24]",
    "    mov r10, [rbx + 32]",
    "    mov r8, [rbx + 40]",
    "    mov r9, [rbx + 48]",
    "    syscall",
    "    mov rcx, [rbx + 56]",
    "    cmp rax, rcx",
    "    je 8f",
    "    cmp rcx, r14",
    "    jne 4f",
    "8:  add rbx, {step_size}",
    "    dec r12",
    "    jmp 2b",
    // The way in. The header goes away with the munmap, so all of it is loaded first.
    "3:  mov rdi, [r13 + 16]",
    "    mov rsi, [r13 + 24]",
    "    mov r12, [r13 + 32]",
    "    mov rbp, [r13 + 40]",
    "    mov rsp, [r13 + 48]",
    "    mov rbx, [r13 + 56]",
    "    mov r15, [r13 + 64]",
    "    mov eax, {munmap}",
    "    syscall",
    "    test rax, rax",
    "    jnz 9f",
    "    mov eax, {seccomp}",
    "    mov edi, {set_filter}",
    "    xor esi, esi",
    "    mov rdx, r12",
    "    syscall",
    "    test rax, rax",
    "    jnz 9f",
    "    mov rdi, r12",
    "    mov rcx, rbp",
    "    xor eax, eax",
    "    rep stosq",
    "    mov rdi, rbx",
    "    xor ebx, ebx",
    "    xor ecx, ecx",
    "    xor edx, edx",
    "    xor esi, esi",
    "    xor ebp, ebp",
    "    xor r8d, r8d",
    "    xor r9d, r9d",
    "    xor r10d, r10d",
    "    xor r11d, r11d",
    "    xor r12d, r12d",
    "    xor r13d, r13d",
    "    xor r14d, r14d",
    "    push r15",
    "    xor r15d, r15d",
    "    ret",
    // A step failed: the stack that exec made is still there.
    "4:  cmp qword ptr [r13 + 8], 0",
    "    jne 5f",
    "    push rax",
    "    mov rax, [r13]",
    "    sub rax, r12",
    "    push rax",
    "    mov edx, 16",
    "    jmp 7f",
    // As text: the message, then the reason, or the errno in decimal where no text is known.
    "5:  mov r14, rax",
    "    mov eax, {write}",
    "    mov edi, 2",
    "    mov rsi, [rbx + 64]",
    "    mov rdx, [rbx + 72]",
    "    syscall",
    "    xor ecx, ecx",
    "    mov rax, r14",
    "    neg rax",
    "    cmp rax, 4096", // A result that is no errno shows as 0.
    "    cmovae rax, rcx",
    "    mov rcx, [r13]",
    "    sub rcx, r12", // The step's index.
    "    mov r9, [r13 + 80]",
    "    mov r10, [r13 + 88]",
    "22: test r10, r10",
    "    jz 24f",
    "    cmp [r9], rax",
    "    jne 23f",
    "    mov rsi, [r9 + 16]",
    "    mov rdx, [r9 + 24]",
    "    cmp qword ptr [r9 + 8], {any_step}",
    "    je 25f",
    "    cmp [r9 + 8], rcx",
    "    je 25f",
    "23: add r9, {reason_size}",
    "    dec r10",
    "    jmp 22b",
    "24: mov r8, rsp",
    "    mov ecx, 10",
    "    dec r8",
    "    mov byte ptr [r8], 10",
    "6:  xor edx, edx",
    "    div rcx",
    "    add dl, 48",
    "    dec r8",
    "    mov [r8], dl",
    "    test rax, rax",
    "    jnz 6b",
    "    sub r8, 6",
    "    mov dword ptr [r8], 0x6e727265", // errno
    "    mov word ptr [r8 + 4], 0x206f",
    "    mov rdx, rsp",
    "    sub rdx, r8",
    "    mov rsp, r8",
    "7:  mov rsi, rsp",
    "25: mov eax, {write}",
    "    mov edi, 2",
    "    syscall",
    "    mov edi, [r13 + 72]",
    "    mov eax, {exit_group}",
    "    syscall",
    // Nothing can be said any more, and an exit status could be the guest's.
    "9:  ud2",
    ".globl nabla_monitor_launcher_end",
    ".hidden nabla_monitor_launcher_end",
    "nabla_monitor_launcher_end:",
    ".popsection",
    table = const TABLE_BASE,
    any = const ANY_RESULT.cast_signed(),
    header_size = const HEADER_SIZE,
    step_size = const STEP_SIZE,
    reason_size = const REASON_SIZE,
    any_step = const ANY_STEP.cast_signed(),
    munmap = const nr::MUNMAP,
    seccomp = const nr::SECCOMP,
    set_filter = const SECCOMP_SET_MODE_FILTER,
    write = const nr::WRITE,
    exit_group = const 231,
);

unsafe extern "C" {
    static nabla_monitor_launcher_start: u8;
    static nabla_monitor_launcher_end: u8;
}

/// The launcher's machine code.
pub fn launcher_code() -> &'static [u8] {
    let start = &raw const nabla_monitor_launcher_start;
    let length = (&raw const nabla_monitor_launcher_end).addr() - start.addr();
    // SAFETY: the two symbols delimit one piece of read-only data, defined above and never written.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// A process of its own that shares this one's memory; it never returns.
pub type Task = unsafe extern "C" fn(*mut std::ffi::c_void) -> !;

/// Starts a process that shares this one's memory and runs `task(argument)` on a stack and with thread-local
/// storage of its own.
///
/// Returns what clone returned: the pid, or a negative errno.
///
/// # Safety
///
/// `task` must be sound to run while every thread of this program goes on: no thread-local storage, no allocation,
/// no lock, no unwinding. `stack_top` must be the 16-byte aligned end of a stack, `tls` the address of memory that
/// is valid as an empty thread control block; both, and `argument`, must outlive it. Signals must be blocked, so
/// that no handler runs in it.
pub unsafe fn clone_task(
    flags: u32,
    stack_top: *mut std::ffi::c_void,
    tls: *mut std::ffi::c_void,
    task: Task,
    argument: *mut std::ffi::c_void,
) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { clone(flags, stack_top, std::ptr::null_mut(), std::ptr::null_mut(), tls, task, argument) }
}

/// The same from within such a process, whose thread-local storage it keeps. The kernel writes a pidfd to `pidfd`,
/// and clears and wakes `alive` when the new process no longer uses this memory.
///
/// # Safety
///
/// As [`clone_task`], and both pointers must be valid until then.
pub unsafe fn clone_child(
    flags: u32,
    stack_top: *mut std::ffi::c_void,
    pidfd: *mut i32,
    alive: *mut u32,
    task: Task,
    argument: *mut std::ffi::c_void,
) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { clone(flags, stack_top, pidfd, alive, std::ptr::null_mut(), task, argument) }
}

/// # Safety
///
/// See above.
unsafe fn clone(
    flags: u32,
    stack_top: *mut std::ffi::c_void,
    parent_word: *mut i32,
    child_word: *mut u32,
    tls: *mut std::ffi::c_void,
    task: Task,
    argument: *mut std::ffi::c_void,
) -> i64 {
    let result: i64;
    // SAFETY: the new process starts on its own stack and never touches this frame; the rest is the caller's
    // promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") u64::from(nr::CLONE) => result,
            in("rdi") u64::from(flags),
            in("rsi") stack_top,
            in("rdx") parent_word,
            in("r10") child_word,
            in("r8") tls,
            in("r12") argument,
            in("r13") task,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

pub use crate::debug::Registers;
