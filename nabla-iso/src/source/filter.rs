//! Which files of a source are left out, and what is changed about the others.

use super::tree::Metadata;
use crate::{error::Error, format::Timestamp};
use fast_glob::glob_match;

/// Patterns of files to leave out.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    /// Without a slash: match names, wherever they are.
    names: Vec<String>,
    /// Match paths from the source's root.
    paths: Vec<String>,
}

impl Excludes {
    /// Adds a pattern: `*` and `?` do not match slashes, `**` does, `[a-z]` is a set, `{a,b}` a choice.
    pub fn add(&mut self, pattern: &str) -> Result<(), Error> {
        let why = if pattern.trim_matches('/').is_empty() {
            Some("it is empty")
        } else if pattern.matches('[').count() > pattern.matches(']').count() {
            Some("a '[' is not closed")
        } else if pattern.matches('{').count() != pattern.matches('}').count() {
            Some("a '{' is not closed")
        } else {
            None
        };
        if let Some(why) = why {
            return Err(Error::Pattern { pattern: pattern.to_owned(), why });
        }
        let path = pattern.trim_end_matches('/');
        if path.contains('/') {
            self.paths.push(path.trim_start_matches('/').to_owned());
        } else {
            self.names.push(path.to_owned());
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty()
    }

    /// Whether paths are looked at, so that a caller can save making them.
    pub fn wants_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether a file is left out. `path` is that from the source's root, without a slash in front.
    pub fn matches(&self, name: &[u8], path: &[u8]) -> bool {
        self.names.iter().any(|pattern| glob_match(pattern, name))
            || self.paths.iter().any(|pattern| glob_match(pattern, path))
    }
}

/// What all files of directories and tar streams get instead of what they have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The owner's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
    /// Permissions of everything but directories and symbolic links.
    pub file_mode: Option<u32>,
    /// Permissions of directories.
    pub directory_mode: Option<u32>,
    /// The time of the last modification.
    pub time: Option<Timestamp>,
    /// Times that are later become this one.
    pub latest: Option<Timestamp>,
}

impl Overrides {
    /// Changes what is to be changed about a file of this kind.
    pub fn apply(&self, kind: u32, metadata: &mut Metadata) {
        use crate::format::rock_ridge::{S_IFDIR, S_IFLNK};
        metadata.uid = self.uid.unwrap_or(metadata.uid);
        metadata.gid = self.gid.unwrap_or(metadata.gid);
        metadata.time = self.time.unwrap_or(metadata.time);
        metadata.time = self.latest.map_or(metadata.time, |latest| metadata.time.min(latest));
        let mode = match kind {
            S_IFDIR => self.directory_mode,
            S_IFLNK => None,
            _ => self.file_mode,
        };
        metadata.mode = mode.unwrap_or(metadata.mode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(patterns: &[&str]) -> Excludes {
        let mut excludes = Excludes::default();
        for pattern in patterns {
            excludes.add(pattern).unwrap();
        }
        excludes
    }

    #[test]
    fn patterns_without_slash_match_names_anywhere() {
        let excludes = excludes(&["*.pyc", "cache/"]);
        assert!(excludes.matches(b"x.pyc", b"a/b/x.pyc"));
        assert!(excludes.matches(b"cache", b"a/cache"));
        assert!(!excludes.matches(b"x.py", b"a/b/x.py"));
        assert!(excludes.matches(b"\xff.pyc", b"\xff.pyc"));
    }

    #[test]
    fn patterns_with_slash_match_paths_from_the_root() {
        let excludes = excludes(&["/usr/share/doc", "var/*/tmp", "**/.git", "/boot"]);
        assert!(excludes.matches(b"doc", b"usr/share/doc"));
        assert!(excludes.matches(b"tmp", b"var/x/tmp"));
        assert!(!excludes.matches(b"tmp", b"var/x/y/tmp"));
        assert!(excludes.matches(b".git", b"a/b/.git"));
        assert!(excludes.matches(b"boot", b"boot"));
        assert!(!excludes.matches(b"boot", b"x/boot"));
        assert!(!excludes.matches(b"doc", b"x/usr/share/doc"));
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for pattern in ["", "/", "[a", "{a"] {
            assert!(Excludes::default().add(pattern).is_err(), "{pattern}");
        }
    }
}
