//! Walking a whole tree.

use super::{
    directory::ReadDir,
    error::{ReadError, broken},
    node::Node,
    volume::{Source, Volume},
};
use crate::format::FormatError;
use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Everything in a tree, directories before what is in them. Ends after an error.
///
/// No directory is entered twice, and all of them together are not longer than the image. The path of the entry that
/// came last is kept here, because whole paths of all entries can be much larger than the image:
///
/// ```
/// # use nabla_iso::{Entry, ImageBuilder, reader::Volume};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let volume = Volume::open(ImageBuilder::new().entry("/a/b", Entry::bytes(*b"x")).plan()?)?;
/// let mut walk = volume.walk(volume.root())?;
/// while let Some(entry) = walk.next() {
///     let entry = entry?;
///     println!("{} has {} bytes", walk.path().display(), entry.node.size);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Walk<'v, S> {
    volume: &'v Volume<S>,
    /// The directories on the way, with the length of the path of each.
    open: Vec<(ReadDir<'v, S>, usize)>,
    path: Vec<u8>,
    entered: HashSet<u32>,
    bytes: u64,
}

/// A file that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// Its own name.
    pub name: OsString,
    /// How many directories it is in below the one where the walk began.
    pub depth: usize,
    /// What it is.
    pub node: Node,
    /// What is against the standard in its record and does no harm.
    pub oddity: Option<FormatError>,
}

impl<S: Source> Volume<S> {
    /// Walks a directory, without the directory itself.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn walk(&self, directory: &Node) -> Result<Walk<'_, S>, ReadError<S::Error>> {
        let mut walk =
            Walk { volume: self, open: Vec::new(), path: Vec::new(), entered: HashSet::new(), bytes: 0 };
        walk.enter(directory)?;
        Ok(walk)
    }
}

impl<S: Source> Walk<'_, S> {
    /// The path of the entry that came last, from where the walk began, without a slash in front.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    fn enter(&mut self, directory: &Node) -> Result<(), ReadError<S::Error>> {
        let refuse = |what| Err(broken(self.volume.offset(directory.extent), FormatError::new(what)));
        // An empty one may share its place with others.
        if directory.size > 0 && !self.entered.insert(directory.extent) {
            return refuse("a directory is in the tree twice");
        }
        self.bytes = self.bytes.saturating_add(directory.size);
        if self.bytes > self.volume.source().size() {
            return refuse("directories overlap");
        }
        self.open.push((self.volume.read_dir(directory)?, self.path.len()));
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<WalkEntry>, ReadError<S::Error>> {
        while let Some((entries, length)) = self.open.last_mut() {
            self.path.truncate(*length);
            let Some(entry) = entries.next() else {
                self.open.pop();
                continue;
            };
            let entry = entry?;
            let depth = self.open.len() - 1;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(entry.name());
            if entry.node().is_directory() {
                self.enter(entry.node())?;
            }
            let name = OsStr::from_bytes(entry.name()).to_owned();
            return Ok(Some(WalkEntry { name, depth, node: *entry.node(), oddity: entry.oddity() }));
        }
        Ok(None)
    }
}

impl<S: Source> Iterator for Walk<'_, S> {
    type Item = Result<WalkEntry, ReadError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance();
        if result.is_err() {
            self.open.clear();
        }
        result.transpose()
    }
}
