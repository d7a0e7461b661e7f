//! Registers, in the kernel's layouts.

/// The registers of a guest, as `user_regs_struct` of the kernel and `NT_PRSTATUS` of a core have them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, zerocopy::IntoBytes, zerocopy::Immutable)]
#[allow(missing_docs, reason = "they are the registers")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

/// x87 and SSE registers, as `fxsave` stores them and `NT_FPREGSET` of a core has them.
#[repr(C, align(16))]
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
)]
#[allow(missing_docs, reason = "they are the processor's names")]
pub struct FloatRegisters {
    pub fcw: u16,
    pub fsw: u16,
    /// Abridged: a bit for each register that is in use.
    pub ftw: u8,
    pub reserved: u8,
    pub fop: u16,
    pub fip: u64,
    pub fdp: u64,
    pub mxcsr: u32,
    pub mxcsr_mask: u32,
    /// Ten bytes of each are used.
    pub st: [[u8; 16]; 8],
    pub xmm: [[u8; 16]; 16],
    pub rest: [u8; 96],
}

const _: () = assert!(size_of::<Registers>() == 27 * 8 && size_of::<FloatRegisters>() == 512);

impl Default for FloatRegisters {
    /// As a processor has them after `fninit` and at reset.
    fn default() -> Self {
        Self { fcw: 0x37f, mxcsr: 0x1f80, ..zerocopy::FromZeros::new_zeroed() }
    }
}
