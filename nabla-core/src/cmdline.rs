//! The command line of a guest.

use crate::abi::CMDLINE_SIZE;
use alloc::vec::Vec;
use thiserror::Error;

/// A guest's command line: arguments joined by single spaces, as every tender does it, at most 8191 bytes.
///
/// Guests split it again at spaces. An argument that contains a space therefore arrives as two; that is a
/// limit of the ABI, not of this type.
///
/// ```
/// use nabla_core::CommandLine;
///
/// let line = CommandLine::from_args(["--port", "80"])?;
/// assert_eq!(line.as_bytes(), b"--port 80");
/// # Ok::<(), nabla_core::CommandLineError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine(Vec<u8>);

/// Why arguments make no command line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandLineError {
    /// The ABI has room for 8192 bytes with the terminating NUL.
    #[error("the guest's command line has {length} bytes, and at most {max} fit", max = CMDLINE_SIZE - 1)]
    TooLong {
        /// Bytes of all arguments and the spaces between them.
        length: usize,
    },
    /// The ABI ends the command line at the first NUL.
    #[error("argument {index} of the guest contains a NUL byte")]
    Nul {
        /// Position of the argument, from 0.
        index: usize,
    },
}

impl CommandLine {
    /// Joins `args` with spaces.
    ///
    /// # Errors
    ///
    /// [`CommandLineError::TooLong`] over 8191 bytes, [`CommandLineError::Nul`] for an argument with a NUL byte.
    pub fn from_args<I>(args: I) -> Result<Self, CommandLineError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut line = Vec::new();
        let mut length = 0_usize;
        for (index, arg) in args.into_iter().enumerate() {
            let arg = arg.as_ref();
            if arg.contains(&0) {
                return Err(CommandLineError::Nul { index });
            }
            length = length.saturating_add(arg.len()).saturating_add(usize::from(index > 0));
            // Past the limit only the length still matters, for the error.
            if length < CMDLINE_SIZE {
                if index > 0 {
                    line.push(b' ');
                }
                line.extend_from_slice(arg);
            }
        }
        if length < CMDLINE_SIZE { Ok(Self(line)) } else { Err(CommandLineError::TooLong { length }) }
    }

    /// The bytes without the terminating NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::String, vec};

    #[test]
    fn args_are_joined_by_single_spaces() {
        for (args, line) in [
            (vec![], ""),
            (vec![""], ""),
            (vec!["a"], "a"),
            (vec!["a", "", "b"], "a  b"),
            (vec!["a b", "c"], "a b c"),
        ] {
            assert_eq!(CommandLine::from_args(args).unwrap().as_bytes(), line.as_bytes());
        }
    }

    #[test]
    fn longest_line_fits_and_one_more_byte_does_not() {
        let longest = "x".repeat(CMDLINE_SIZE - 1);
        assert_eq!(CommandLine::from_args([&longest]).unwrap().as_bytes().len(), 8191);
        let over: String = longest + "x";
        assert_eq!(CommandLine::from_args([&over]), Err(CommandLineError::TooLong { length: 8192 }));
        let two = "x".repeat(4095);
        assert!(CommandLine::from_args([&two, &two]).is_ok());
        let args = vec!["x".repeat(8000); 3];
        assert_eq!(CommandLine::from_args(&args), Err(CommandLineError::TooLong { length: 24002 }));
    }

    #[test]
    fn nul_is_refused_with_its_position() {
        assert_eq!(CommandLine::from_args(["a", "b\0c"]), Err(CommandLineError::Nul { index: 1 }));
    }
}
