//! How a guest ended.

use crate::sys::signals::{SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP};
use nabla_core::abi::hvt::RING_KICK_PORT;
use std::fmt;

/// How a guest ended.
///
/// What is known depends on [`Supervision`](crate::Supervision): without it, a fault has no address and a denied
/// call no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitStatus {
    /// The guest exited with this status, 0 to 254.
    Exited(u8),
    /// The guest gave up: it exited with status 255, as `solo5_abort` does.
    Aborted,
    /// The guest did something that its memory or processor does not allow.
    Faulted(Fault),
    /// The guest made a system call that its ABI does not have; it was killed before the call had any effect.
    Denied(Denied),
    /// This signal was sent to it, by the host program or another process.
    Killed(i32),
    /// The host ran out of memory and killed the guest.
    OutOfMemory,
    /// The guest made a hypercall that its ABI does not have, or passed memory that it may not use that way; it was
    /// ended before the call had any effect.
    BadHypercall(BadHypercall),
    /// The guest executed an instruction for the processor's most privileged ring that is not emulated.
    Unsupported(UnsupportedInstruction),
}

/// A hypercall that no guest may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHypercall {
    /// The port that it was made on.
    pub port: u16,
    /// What is wrong with it.
    pub mistake: HypercallMistake,
    /// Address of the instruction. Of mistakes in the network ring (port 0x600), where the guest was when it was ended.
    pub instruction_pointer: u64,
}

/// What is wrong with a [`BadHypercall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HypercallMistake {
    /// There is no hypercall on that port.
    NoSuchPort,
    /// There is one, and it is a write of 32 bits, once: not a read, not of another size, not repeated.
    WrongAccess,
    /// The call's structure, or what that points to, is not memory that the guest itself could use that way.
    Memory {
        /// The first address that is not all right.
        address: u64,
    },
    /// The network ring's index says that the guest has submitted more than the ring has places for.
    Ring {
        /// How much it says to have submitted.
        submitted: u32,
    },
}

/// An instruction that a guest may not execute, and the monitor does not emulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsupportedInstruction {
    /// Its address.
    pub instruction_pointer: u64,
    bytes: [u8; 15],
    length: u8,
}

impl UnsupportedInstruction {
    /// Takes at most the first 15 bytes, the longest that an instruction can be.
    pub(crate) fn new(instruction_pointer: u64, found: &[u8]) -> Self {
        let mut bytes = [0; 15];
        let length = found.len().min(bytes.len());
        bytes[..length].copy_from_slice(&found[..length]);
        Self { instruction_pointer, bytes, length: u8::try_from(length).unwrap_or(15) }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A fault of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The signal: `SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE` or `SIGTRAP`. `SIGBUS` is what a guest gets that touches
    /// a part of its image file which was truncated while it ran.
    pub signal: i32,
    /// The address that could not be accessed, where the fault was about memory and the guest was supervised.
    pub address: Option<u64>,
    /// Address of the instruction, where the guest was supervised.
    pub instruction_pointer: Option<u64>,
    /// The guest has a handler for this, which the processor could not enter: a triple fault. Only in virtual machines.
    pub handler_failed: bool,
}

/// A denied system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// What is known of the call, where the guest was supervised.
    pub call: Option<DeniedCall>,
}

/// The system call that was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedCall {
    /// How it was made.
    pub entry: SyscallEntry,
    /// Its number in that form's table; without the x32 bit.
    pub number: u32,
    /// Its six arguments.
    pub arguments: [u64; 6],
    /// Address of the instruction after it.
    pub instruction_pointer: u64,
}

impl DeniedCall {
    /// The name of the call, where it is an x86-64 one that Linux has.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        match self.entry {
            SyscallEntry::X86_64 => crate::syscall_names::name(self.number),
            SyscallEntry::X32 | SyscallEntry::I386 => None,
        }
    }
}

/// The three ways into an x86-64 kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyscallEntry {
    /// `syscall` with an x86-64 number.
    X86_64,
    /// `syscall` with an x32 number (bit 30 set).
    X32,
    /// `int 0x80` or `sysenter`: 32-bit.
    I386,
}

impl fmt::Display for SyscallEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86-64",
            Self::X32 => "x32",
            Self::I386 => "i386",
        })
    }
}

impl ExitStatus {
    /// Whether the guest exited with status 0.
    ///
    /// ```
    /// assert!(nabla_monitor::ExitStatus::Exited(0).success());
    /// ```
    #[must_use]
    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// The status that a shell would report: the guest's, or 128 + the signal.
    ///
    /// ```
    /// use nabla_monitor::ExitStatus;
    ///
    /// assert_eq!(ExitStatus::Exited(3).shell_code(), 3);
    /// assert_eq!(ExitStatus::Killed(9).shell_code(), 137);
    /// ```
    #[must_use]
    pub fn shell_code(&self) -> u8 {
        let of_signal = |signal: i32| u8::try_from(128 + signal).unwrap_or(255);
        match *self {
            Self::Exited(code) => code,
            Self::Aborted => 255,
            Self::Faulted(Fault { signal, .. }) | Self::Killed(signal) => of_signal(signal),
            Self::Denied(_) => of_signal(SIGSYS),
            Self::BadHypercall(BadHypercall { mistake, .. }) => of_signal(match mistake {
                HypercallMistake::NoSuchPort | HypercallMistake::WrongAccess => SIGSYS,
                HypercallMistake::Memory { .. } | HypercallMistake::Ring { .. } => SIGSEGV,
            }),
            Self::Unsupported(_) => of_signal(SIGILL),
            Self::OutOfMemory => of_signal(SIGKILL),
        }
    }
}

/// The name of a signal, without `SIG`; `None` for real-time signals.
///
/// ```
/// assert_eq!(nabla_monitor::signal_name(11), Some("SEGV"));
/// ```
#[must_use]
pub fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: [&str; 32] = [
        "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU",
        "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    usize::try_from(signal).ok().filter(|&n| n > 0).and_then(|n| NAMES.get(n).copied())
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = |number: i32| match signal_name(number) {
            Some(name) => format!("SIG{name}"),
            None => format!("signal {number}"),
        };
        match *self {
            Self::Exited(code) => write!(f, "exited with status {code}"),
            Self::Aborted => f.write_str("aborted (exit status 255)"),
            Self::Killed(number) => write!(f, "killed by {}", signal(number)),
            Self::OutOfMemory => f.write_str("killed because the host ran out of memory"),
            Self::Faulted(Fault { signal: number, address, instruction_pointer, handler_failed }) => {
                let what = match number {
                    SIGSEGV if address.is_none() && instruction_pointer.is_some() => "protection fault",
                    SIGSEGV => "memory fault",
                    SIGBUS if address.is_some() => "bus error (was the image truncated while it ran?)",
                    SIGBUS => "bus error",
                    SIGILL => "illegal instruction",
                    SIGFPE => "arithmetic fault",
                    SIGTRAP => "trap",
                    _ => "fault",
                };
                write!(f, "{what} ({})", signal(number))?;
                if let Some(address) = address {
                    write!(f, " at address {address:#x}")?;
                }
                if let Some(ip) = instruction_pointer {
                    write!(f, " by the instruction at {ip:#x}")?;
                }
                if handler_failed {
                    f.write_str(", for which the guest's own handler could not be entered (triple fault)")?;
                }
                Ok(())
            }
            Self::BadHypercall(BadHypercall { port, mistake, instruction_pointer }) => match mistake {
                HypercallMistake::NoSuchPort => write!(
                    f,
                    "ended for an access to port {port:#x}, where there is no hypercall, by the instruction at {instruction_pointer:#x}"
                ),
                HypercallMistake::WrongAccess => write!(
                    f,
                    "ended for an access to port {port:#x} that is no write of 32 bits, as the hypercall there is, by the instruction at {instruction_pointer:#x}"
                ),
                // Found by another thread, so the instruction is none that did it.
                HypercallMistake::Memory { address } if port == RING_KICK_PORT => write!(
                    f,
                    "ended for a submission to its network ring (port {port:#x}) with memory at {address:#x} that it may not use"
                ),
                HypercallMistake::Memory { address } => write!(
                    f,
                    "ended for a hypercall (port {port:#x}) with memory at {address:#x} that it may not use, by the instruction at {instruction_pointer:#x}"
                ),
                HypercallMistake::Ring { submitted } => write!(
                    f,
                    "ended for {submitted} submissions at once to its network ring (port {port:#x}), which has fewer places"
                ),
            },
            Self::Unsupported(instruction) => {
                write!(f, "ended for a privileged instruction that is not emulated (")?;
                for (index, byte) in instruction.bytes().iter().enumerate() {
                    write!(f, "{}{byte:02x}", if index > 0 { " " } else { "" })?;
                }
                write!(f, ") at {:#x}", instruction.instruction_pointer)
            }
            Self::Denied(Denied { call: None }) => f.write_str("killed for a denied system call"),
            Self::Denied(Denied { call: Some(call) }) => {
                let DeniedCall { entry, number, arguments: a, instruction_pointer } = call;
                write!(f, "killed for the denied {entry} system call {number}")?;
                if let Some(name) = call.name() {
                    write!(f, " ({name})")?;
                }
                write!(
                    f,
                    " with arguments {:#x}, {:#x}, {:#x}, {:#x}, {:#x}, {:#x} at {instruction_pointer:#x}",
                    a[0], a[1], a[2], a[3], a[4], a[5]
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hypercall(mistake: HypercallMistake) -> ExitStatus {
        ExitStatus::BadHypercall(BadHypercall { port: 0x502, mistake, instruction_pointer: 0x10_0007 })
    }

    #[test]
    fn display_names_port_memory_and_instruction() {
        assert_eq!(
            hypercall(HypercallMistake::NoSuchPort).to_string(),
            "ended for an access to port 0x502, where there is no hypercall, by the instruction at 0x100007"
        );
        assert_eq!(
            hypercall(HypercallMistake::Memory { address: 0xfff }).to_string(),
            "ended for a hypercall (port 0x502) with memory at 0xfff that it may not use, by the instruction at 0x100007"
        );
        let instruction = UnsupportedInstruction::new(0x10_0000, &[0x0f, 0x22, 0xd8]);
        assert_eq!(
            ExitStatus::Unsupported(instruction).to_string(),
            "ended for a privileged instruction that is not emulated (0f 22 d8) at 0x100000"
        );
        assert_eq!(UnsupportedInstruction::new(0, &[0x66; 40]).bytes(), [0x66; 15]);
    }

    #[test]
    fn shell_code_is_the_guests_or_128_plus_the_signal() {
        let fault =
            Fault { signal: SIGSEGV, address: None, instruction_pointer: None, handler_failed: false };
        for (status, code) in [
            (ExitStatus::Exited(0), 0),
            (ExitStatus::Exited(7), 7),
            (ExitStatus::Aborted, 255),
            (ExitStatus::Faulted(fault), 139),
            (ExitStatus::Denied(Denied { call: None }), 159),
            (ExitStatus::Killed(15), 143),
            (ExitStatus::OutOfMemory, 137),
            (hypercall(HypercallMistake::NoSuchPort), 159),
            (hypercall(HypercallMistake::WrongAccess), 159),
            (hypercall(HypercallMistake::Memory { address: 7 }), 139),
            (ExitStatus::Unsupported(UnsupportedInstruction::new(0x10_0000, &[0xf4])), 132),
        ] {
            assert_eq!(status.shell_code(), code, "{status}");
        }
    }

    #[test]
    fn display_names_signal_call_and_addresses() {
        let call = DeniedCall {
            entry: SyscallEntry::X86_64,
            number: 32,
            arguments: [1, 0, 0, 0, 0, 0],
            instruction_pointer: 0x10_0042,
        };
        assert_eq!(
            ExitStatus::Denied(Denied { call: Some(call) }).to_string(),
            "killed for the denied x86-64 system call 32 (dup) with arguments 0x1, 0x0, 0x0, 0x0, 0x0, 0x0 at 0x100042"
        );
        let fault = Fault {
            signal: SIGSEGV,
            address: Some(0),
            instruction_pointer: Some(0x10_0000),
            handler_failed: false,
        };
        assert_eq!(
            ExitStatus::Faulted(fault).to_string(),
            "memory fault (SIGSEGV) at address 0x0 by the instruction at 0x100000"
        );
        let fault = Fault { address: None, handler_failed: true, ..fault };
        assert_eq!(
            ExitStatus::Faulted(fault).to_string(),
            "protection fault (SIGSEGV) by the instruction at 0x100000, for which the guest's own handler could not be entered (triple fault)"
        );
        assert_eq!(ExitStatus::Killed(64).to_string(), "killed by signal 64");
    }
}
