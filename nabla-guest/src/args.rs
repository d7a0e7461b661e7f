//! What the guest was started with.

use core::{fmt, iter::FusedIterator, str};

use crate::boot;

/// The command line as the monitor passed it: the arguments joined by spaces, at most 8191 bytes.
///
/// Monitors do not escape spaces within an argument. Guests that need more structure read it from here.
#[must_use]
pub fn command_line() -> &'static [u8] {
    boot::command_line()
}

/// The words of the command line, split at spaces. Unlike on other systems the first is not a program name.
///
/// # Panics
///
/// The iterator panics at a word that is not UTF-8. [`command_line`] has the bytes.
#[must_use]
pub fn args() -> Args {
    Args { rest: command_line() }
}

/// An iterator over the words of the command line; made by [`args()`].
#[derive(Clone)]
pub struct Args {
    rest: &'static [u8],
}

impl Iterator for Args {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        let start = self.rest.iter().position(|&byte| byte != b' ')?;
        let rest = &self.rest[start..];
        let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        match str::from_utf8(word) {
            Ok(word) => Some(word),
            Err(error) => panic!("an argument of the guest is not UTF-8: {error}"),
        }
    }
}

impl FusedIterator for Args {}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rest: &'static [u8]) -> Vec<&'static str> {
        Args { rest }.collect()
    }

    #[test]
    fn words_are_split_at_any_number_of_spaces() {
        assert_eq!(words(b"one two"), ["one", "two"]);
        assert_eq!(words(b"  one   two  "), ["one", "two"]);
        assert_eq!(words(b"one\ttwo\n"), ["one\ttwo\n"]);
    }

    #[test]
    fn empty_lines_have_no_words() {
        assert!(words(b"").is_empty());
        assert!(words(b"   ").is_empty());
    }

    #[test]
    fn words_are_utf8() {
        assert_eq!(words("größe 10".as_bytes()), ["größe", "10"]);
    }

    #[test]
    #[should_panic(expected = "an argument of the guest is not UTF-8")]
    fn other_bytes_panic() {
        words(b"good b\xffd");
    }

    #[test]
    fn iterator_stays_at_its_end() {
        let mut args = Args { rest: b"x" };
        assert_eq!(args.next(), Some("x"));
        assert_eq!((args.next(), args.next()), (None, None));
    }
}
