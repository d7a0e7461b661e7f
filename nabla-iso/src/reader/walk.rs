//! Walking a whole tree.

use super::{
    directory::ReadDir,
    error::{ReadError, broken},
    node::Node,
    volume::{Source, Volume},
};
use crate::format::{FormatError, SECTOR_SIZE};
use std::{collections::HashSet, ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

/// Everything in a tree, directories before what is in them. Ends after an error.
///
/// No directory is entered twice, and all of them together are not longer than the image.
#[derive(Debug)]
pub struct Walk<'v, S> {
    volume: &'v Volume<S>,
    open: Vec<(ReadDir<'v, S>, usize)>,
    path: Vec<u8>,
    entered: HashSet<u32>,
    sectors: u64,
}

/// A file that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// Its path from where the walk began, without a slash in front.
    pub path: PathBuf,
    /// How many directories it is in below the one where the walk began.
    pub depth: usize,
    /// What it is.
    pub node: Node,
}

impl WalkEntry {
    /// Its own name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

impl<S: Source> Volume<S> {
    /// Walks a directory, without the directory itself.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn walk(&self, directory: &Node) -> Result<Walk<'_, S>, ReadError<S::Error>> {
        let mut walk =
            Walk { volume: self, open: Vec::new(), path: Vec::new(), entered: HashSet::new(), sectors: 0 };
        walk.enter(directory)?;
        Ok(walk)
    }
}

impl<S: Source> Walk<'_, S> {
    fn enter(&mut self, directory: &Node) -> Result<(), ReadError<S::Error>> {
        let refuse = |what| Err(broken(directory.extent, FormatError::new(what)));
        if !self.entered.insert(directory.extent) {
            return refuse("a directory is in the tree twice");
        }
        self.sectors += directory.size.div_ceil(SECTOR_SIZE);
        if self.sectors > self.volume.blocks().into() {
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
            let path = PathBuf::from(OsStr::from_bytes(&self.path));
            return Ok(Some(WalkEntry { path, depth, node: *entry.node() }));
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
