//! Finding files by path.

use super::{
    error::ReadError,
    node::{Kind, Node},
    record::Text,
    volume::{Source, Volume},
};
use crate::format::SYMLINK_MAX;

/// How many symbolic links are followed; Linux follows as many.
const MAX_LINKS: u32 = 40;

impl<S: Source> Volume<S> {
    /// Finds a file by its path from the root. Symbolic links are followed within the image, the last one too.
    ///
    /// # Errors
    ///
    /// There is no such file, or the image cannot be read.
    pub fn lookup(&self, path: &[u8]) -> Result<Node, ReadError<S::Error>> {
        self.find(path, true)
    }

    /// The same without following a symbolic link that the whole path is the name of.
    ///
    /// # Errors
    ///
    /// As [`Self::lookup`].
    pub fn lookup_link(&self, path: &[u8]) -> Result<Node, ReadError<S::Error>> {
        self.find(path, false)
    }

    /// The entry of this name in a directory.
    ///
    /// # Errors
    ///
    /// There is none, or it is no directory, or it cannot be read.
    pub fn child(&self, directory: &Node, name: &[u8]) -> Result<Node, ReadError<S::Error>> {
        for entry in self.read_dir(directory)? {
            let entry = entry?;
            if entry.name() == name {
                return Ok(*entry.node());
            }
        }
        Err(ReadError::NotFound)
    }

    fn find(&self, path: &[u8], follow_last: bool) -> Result<Node, ReadError<S::Error>> {
        // What is left of the path.
        let mut rest = Text::<SYMLINK_MAX>::new();
        if !rest.push(path) {
            return Err(ReadError::PathTooLong);
        }
        let mut at = *self.root();
        let mut links = 0;
        loop {
            let mut left = rest.as_bytes();
            while let [b'/', more @ ..] = left {
                left = more;
            }
            if left.is_empty() {
                return Ok(at);
            }
            let end = left.iter().position(|&byte| byte == b'/').unwrap_or(left.len());
            let (name, after) = left.split_at(end);
            let last = after.iter().all(|&byte| byte == b'/');
            if !at.is_directory() {
                return Err(ReadError::NotADirectory);
            }
            let next = match name {
                b"." => at,
                b".." => self.parent(&at)?,
                name => self.child(&at, name)?,
            };
            // A slash after a link asks for what it leads to.
            if next.kind == Kind::Symlink && (follow_last || !last || !after.is_empty()) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(ReadError::TooManyLinks);
                }
                let mut target = Text::<SYMLINK_MAX>::new();
                self.link_text(&next, &mut target)?;
                if target.as_bytes().starts_with(b"/") {
                    at = *self.root();
                }
                if !target.push(after) {
                    return Err(ReadError::PathTooLong);
                }
                rest = target;
                continue;
            }
            if !after.is_empty() && !next.is_directory() {
                return Err(ReadError::NotADirectory);
            }
            at = next;
            let mut shorter = Text::new();
            // It is a part of what there was room for.
            let _ = shorter.push(after);
            rest = shorter;
        }
    }
}
