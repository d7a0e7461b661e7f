//! Where files come from.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// A file system that is only read.
pub trait Files {
    /// A file that has been found.
    type File: File<Error = Self::Error>;
    /// Why it cannot be read.
    type Error: fmt::Display;

    /// What is at a path: names with single slashes between them, none of which is `.` or `..`; the root is empty.
    ///
    /// # Errors
    ///
    /// When the file system cannot be read.
    fn open(&self, path: &str) -> Result<Entry<Self::File>, Self::Error>;
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry<F> {
    /// A file.
    File(F),
    /// A directory.
    Directory,
    /// Nothing.
    Missing,
}

/// A file.
pub trait File: Clone {
    /// Why it cannot be read.
    type Error: fmt::Display;

    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset` on, all of which is in the file.
    ///
    /// # Errors
    ///
    /// When the file system cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// The path in the file system that the path of a request means: without its query, decoded (RFC 3986, section 2.1), and
/// without `.` and empty names. `None` if it would lead out of the root, or is none.
///
/// ```
/// assert_eq!(httpd::lookup("/a//b%20c/./d?x=1").as_deref(), Some("a/b c/d"));
/// assert_eq!(httpd::lookup("/a/../../etc"), None);
/// ```
#[must_use]
pub fn lookup(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next()?;
    let path = decode(path.strip_prefix('/')?)?;
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name if name.contains('\0') => return None,
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (target, path) in [
            ("/", Some("")),
            ("/index.html", Some("index.html")),
            ("/a/b/", Some("a/b")),
            ("/a/../b", Some("b")),
            ("/%2e%2e/etc", None),
            ("/a/%2e%2e/%2e%2e/etc", None),
            ("/..", None),
            ("index.html", None),
            ("*", None),
            ("http://host/", None),
            ("/%", None),
            ("/%2", None),
            ("/%zz", None),
            ("/%ff", None),
            ("/a%00b", None),
            ("/gr%C3%B6%C3%9Fe?", Some("größe")),
        ] {
            assert_eq!(lookup(target).as_deref(), path, "{target}");
        }
    }
}
