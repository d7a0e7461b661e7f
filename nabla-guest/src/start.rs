//! From the entry point to `main`, and the end.

use core::{convert::Infallible, fmt::Debug};

use nabla_core::abi::EXIT_ABORT;

use crate::{
    boot::{self, BootInfo},
    console, sys,
};

/// Ends the guest with this exit status. Hosts keep the low 8 bits.
pub fn exit(status: i32) -> ! {
    sys::exit(status)
}

/// Ends the guest with exit status 255, by which monitors know that it has aborted.
pub fn abort() -> ! {
    sys::exit(EXIT_ABORT)
}

/// The exit status of a guest, as `main` may return it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitCode(u8);

impl ExitCode {
    /// Status 0.
    pub const SUCCESS: Self = Self(0);
    /// Status 1.
    pub const FAILURE: Self = Self(1);
}

impl From<u8> for ExitCode {
    fn from(status: u8) -> Self {
        Self(status)
    }
}

/// What `main` may return: nothing, an [`ExitCode`], a status, or a `Result` of one of these.
pub trait Termination {
    /// The exit status of the guest.
    fn report(self) -> i32;
}

impl Termination for () {
    fn report(self) -> i32 {
        0
    }
}

impl Termination for ExitCode {
    fn report(self) -> i32 {
        i32::from(self.0)
    }
}

impl Termination for i32 {
    fn report(self) -> i32 {
        self
    }
}

impl Termination for Infallible {
    fn report(self) -> i32 {
        match self {}
    }
}

/// Prints the error and is status 1.
impl<T: Termination, E: Debug> Termination for Result<T, E> {
    fn report(self) -> i32 {
        match self {
            Ok(value) => value.report(),
            Err(error) => {
                console::print(format_args!("Error: {error:?}\n"));
                ExitCode::FAILURE.report()
            }
        }
    }
}

/// Runs the guest. Called by the entry point that [`entry!`](crate::entry!) makes.
///
/// # Safety
///
/// This is the first that is called, and `boot_info` is what the entry point got.
pub unsafe fn start<T: Termination>(boot_info: *const BootInfo, main: fn() -> T) -> ! {
    // SAFETY: the caller vouches for the pointer.
    unsafe { boot::init(boot_info) };
    exit(main().report())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_reported() {
        assert_eq!(().report(), 0);
        assert_eq!(42.report(), 42);
        assert_eq!(ExitCode::from(255).report(), 255);
        assert_eq!(Ok::<_, ()>(ExitCode::SUCCESS).report(), 0);
        assert_eq!(Ok::<_, ()>(7).report(), 7);
    }
}
