//! The functions that compilers call for copying, filling and comparing memory.
//!
//! The compiler's own library does not have them for this target, where they come from libc. They are
//! assembly, because a compiler recognises what such a loop does and makes it a call of the function that it
//! is in, and they use no vector registers. The linker script gives them their usual names where a guest does
//! not have its own; a host program that has this crate among its dependencies keeps those of its libc.
//!
//! Copies of 32 bytes or less are loads that overlap, then stores that overlap. Longer ones move 16 bytes at a
//! time up to 512 bytes, and from there on the processor's string instructions are faster.

use core::arch::global_asm;

// rdi: to, rsi: from, rdx: length; returns rdi. Every path loads the bytes that its own stores could change
// before it stores them, so that the ranges may overlap and memcpy is the same function.
global_asm!(
    ".pushsection .text.nabla_guest_memmove, \"ax\", @progbits",
    ".globl nabla_guest_memmove",
    ".type nabla_guest_memmove, @function",
    ".p2align 4",
    "nabla_guest_memmove:",
    ".cfi_startproc",
    "    mov rax, rdi",
    "    cmp rdx, 32",
    "    ja 5f",
    "    cmp rdx, 16",
    "    jae 4f",
    "    cmp rdx, 8",
    "    jae 3f",
    "    cmp rdx, 4",
    "    jae 2f",
    "    test rdx, rdx",
    "    jz 1f",
    // 1 to 3 bytes: first, middle, last.
    "    mov rcx, rdx",
    "    shr rcx, 1",
    "    movzx r8d, byte ptr [rsi]",
    "    movzx r9d, byte ptr [rsi + rcx]",
    "    movzx r10d, byte ptr [rsi + rdx - 1]",
    "    mov byte ptr [rdi], r8b",
    "    mov byte ptr [rdi + rcx], r9b",
    "    mov byte ptr [rdi + rdx - 1], r10b",
    "1:  ret",
    // 4 to 7 bytes.
    "2:  mov r8d, dword ptr [rsi]",
    "    mov r9d, dword ptr [rsi + rdx - 4]",
    "    mov dword ptr [rdi], r8d",
    "    mov dword ptr [rdi + rdx - 4], r9d",
    "    ret",
    // 8 to 15 bytes.
    "3:  mov r8, qword ptr [rsi]",
    "    mov r9, qword ptr [rsi + rdx - 8]",
    "    mov qword ptr [rdi], r8",
    "    mov qword ptr [rdi + rdx - 8], r9",
    "    ret",
    // 16 to 32 bytes.
    "4:  mov r8, qword ptr [rsi]",
    "    mov r9, qword ptr [rsi + 8]",
    "    mov r10, qword ptr [rsi + rdx - 16]",
    "    mov r11, qword ptr [rsi + rdx - 8]",
    "    mov qword ptr [rdi], r8",
    "    mov qword ptr [rdi + 8], r9",
    "    mov qword ptr [rdi + rdx - 16], r10",
    "    mov qword ptr [rdi + rdx - 8], r11",
    "    ret",
    // More. If `to` lies within `from`, the end goes first.
    "5:  mov rcx, rdi",
    "    sub rcx, rsi",
    "    cmp rcx, rdx",
    "    jb 8f",
    // Forward: the last 16 bytes are loaded now and stored last.
    "    mov r8, qword ptr [rsi + rdx - 16]",
    "    mov r9, qword ptr [rsi + rdx - 8]",
    "    lea r10, [rdi + rdx - 16]",
    "    cmp rdx, 512",
    "    jae 7f",
    "    xor ecx, ecx",
    "    sub rdx, 16",
    "6:  mov r11, qword ptr [rsi + rcx]",
    "    mov rdi, qword ptr [rsi + rcx + 8]",
    "    mov qword ptr [rax + rcx], r11",
    "    mov qword ptr [rax + rcx + 8], rdi",
    "    add rcx, 16",
    "    cmp rcx, rdx",
    "    jb 6b",
    "    mov qword ptr [r10], r8",
    "    mov qword ptr [r10 + 8], r9",
    "    ret",
    "7:  mov rcx, rdx",
    "    shr rcx, 3",
    "    rep movsq",
    "    mov qword ptr [r10], r8",
    "    mov qword ptr [r10 + 8], r9",
    "    ret",
    // Backward: the first 16 bytes are loaded now and stored last.
    "8:  mov r8, qword ptr [rsi]",
    "    mov r9, qword ptr [rsi + 8]",
    "9:  mov r10, qword ptr [rsi + rdx - 16]",
    "    mov r11, qword ptr [rsi + rdx - 8]",
    "    mov qword ptr [rdi + rdx - 16], r10",
    "    mov qword ptr [rdi + rdx - 8], r11",
    "    sub rdx, 16",
    "    cmp rdx, 16",
    "    ja 9b",
    "    mov qword ptr [rdi], r8",
    "    mov qword ptr [rdi + 8], r9",
    "    ret",
    ".cfi_endproc",
    ".size nabla_guest_memmove, . - nabla_guest_memmove",
    ".popsection",
);

// rdi: to, esi: byte, rdx: length; returns rdi.
global_asm!(
    ".pushsection .text.nabla_guest_memset, \"ax\", @progbits",
    ".globl nabla_guest_memset",
    ".type nabla_guest_memset, @function",
    ".p2align 4",
    "nabla_guest_memset:",
    ".cfi_startproc",
    "    movzx ecx, sil",
    "    movabs r8, 0x0101010101010101",
    "    imul r8, rcx",
    "    mov rax, rdi",
    "    cmp rdx, 16",
    "    jae 4f",
    "    cmp rdx, 8",
    "    jae 3f",
    "    cmp rdx, 4",
    "    jae 2f",
    "    test rdx, rdx",
    "    jz 1f",
    "    mov rcx, rdx",
    "    shr rcx, 1",
    "    mov byte ptr [rdi], r8b",
    "    mov byte ptr [rdi + rcx], r8b",
    "    mov byte ptr [rdi + rdx - 1], r8b",
    "1:  ret",
    "2:  mov dword ptr [rdi], r8d",
    "    mov dword ptr [rdi + rdx - 4], r8d",
    "    ret",
    "3:  mov qword ptr [rdi], r8",
    "    mov qword ptr [rdi + rdx - 8], r8",
    "    ret",
    "4:  mov qword ptr [rdi + rdx - 16], r8",
    "    mov qword ptr [rdi + rdx - 8], r8",
    "    cmp rdx, 512",
    "    jae 6f",
    "    sub rdx, 16",
    "    jz 1b",
    "    xor ecx, ecx",
    "5:  mov qword ptr [rdi + rcx], r8",
    "    mov qword ptr [rdi + rcx + 8], r8",
    "    add rcx, 16",
    "    cmp rcx, rdx",
    "    jb 5b",
    "    ret",
    "6:  mov r9, rax",
    "    mov rcx, rdx",
    "    shr rcx, 3",
    "    mov rax, r8",
    "    rep stosq",
    "    mov rax, r9",
    "    ret",
    ".cfi_endproc",
    ".size nabla_guest_memset, . - nabla_guest_memset",
    ".popsection",
);

// rdi: left, rsi: right, rdx: length; returns the order of the first bytes that differ, or 0.
global_asm!(
    ".pushsection .text.nabla_guest_memcmp, \"ax\", @progbits",
    ".globl nabla_guest_memcmp",
    ".type nabla_guest_memcmp, @function",
    ".p2align 4",
    "nabla_guest_memcmp:",
    ".cfi_startproc",
    "    cmp rdx, 8",
    "    jb 3f",
    "2:  mov rax, qword ptr [rdi]",
    "    mov rcx, qword ptr [rsi]",
    "    cmp rax, rcx",
    "    jne 6f",
    "    add rdi, 8",
    "    add rsi, 8",
    "    sub rdx, 8",
    "    cmp rdx, 8",
    "    jae 2b",
    "3:  test rdx, rdx",
    "    jz 5f",
    "4:  movzx eax, byte ptr [rdi]",
    "    movzx ecx, byte ptr [rsi]",
    "    sub eax, ecx",
    "    jne 7f",
    "    inc rdi",
    "    inc rsi",
    "    dec rdx",
    "    jnz 4b",
    "5:  xor eax, eax",
    "    ret",
    // The first byte of eight decides first.
    "6:  bswap rax",
    "    bswap rcx",
    "    cmp rax, rcx",
    "    sbb eax, eax",
    "    or eax, 1",
    "7:  ret",
    ".cfi_endproc",
    ".size nabla_guest_memcmp, . - nabla_guest_memcmp",
    ".popsection",
);

// rdi: string; returns the number of bytes before its NUL.
global_asm!(
    ".pushsection .text.nabla_guest_strlen, \"ax\", @progbits",
    ".globl nabla_guest_strlen",
    ".type nabla_guest_strlen, @function",
    ".p2align 4",
    "nabla_guest_strlen:",
    ".cfi_startproc",
    "    xor eax, eax",
    "    cmp byte ptr [rdi], 0",
    "    je 3f",
    "2:  inc rax",
    "    cmp byte ptr [rdi + rax], 0",
    "    jne 2b",
    "3:  ret",
    ".cfi_endproc",
    ".size nabla_guest_strlen, . - nabla_guest_strlen",
    ".popsection",
);

#[cfg(test)]
mod tests {
    use core::ffi::{c_char, c_int};

    unsafe extern "C" {
        fn nabla_guest_memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8;
        fn nabla_guest_memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8;
        fn nabla_guest_memcmp(left: *const u8, right: *const u8, len: usize) -> c_int;
        fn nabla_guest_strlen(string: *const c_char) -> usize;
    }

    /// Lengths around every border in the code.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..130).chain(500..530).chain([1000, 4095, 4096, 4097])
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251).to_le_bytes()[0]).collect()
    }

    #[test]
    fn memmove_moves_every_length_and_overlap() {
        for len in lengths() {
            let distances = (0..40).chain([63, 64, 65, 511, 512, 513]);
            for distance in distances {
                for (from, to) in [(0, distance), (distance, 0)] {
                    let mut memory = pattern(len + distance + 32);
                    let mut expected = memory.clone();
                    expected.copy_within(from..from + len, to);
                    let base = memory.as_mut_ptr();
                    // SAFETY: both ranges lie in `memory`.
                    let result = unsafe { nabla_guest_memmove(base.add(to), base.add(from), len) };
                    assert_eq!(result, base.wrapping_add(to));
                    assert!(memory == expected, "{len} bytes from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn memset_fills_every_length_and_nothing_else() {
        for len in lengths() {
            for offset in 0..9 {
                let mut memory = pattern(len + 32);
                let mut expected = memory.clone();
                expected[offset..offset + len].fill(0xa5);
                let start = memory[offset..].as_mut_ptr();
                // SAFETY: the range lies in `memory`. Only the low byte of the value counts.
                let result = unsafe { nabla_guest_memset(start, 0x7a5, len) };
                assert_eq!(result, start);
                assert!(memory == expected, "{len} bytes at {offset}");
            }
        }
    }

    #[test]
    fn memcmp_orders_like_slices() {
        for len in lengths().filter(|&len| len < 200) {
            let left = pattern(len);
            for at in 0..=len {
                let mut right = left.clone();
                if let Some(byte) = right.get_mut(at) {
                    *byte = byte.wrapping_add(100);
                }
                // SAFETY: both have `len` bytes.
                let result = unsafe { nabla_guest_memcmp(left.as_ptr(), right.as_ptr(), len) };
                assert_eq!(result.cmp(&0), left.cmp(&right), "{len} bytes that differ at {at}");
            }
        }
    }

    #[test]
    fn strlen_counts_to_the_nul() {
        for len in 0..40 {
            let mut string = vec![b'x'; len];
            string.extend_from_slice(b"\0more\0");
            // SAFETY: there is a NUL.
            assert_eq!(unsafe { nabla_guest_strlen(string.as_ptr().cast()) }, len);
        }
    }
}
