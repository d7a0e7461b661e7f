//! The entries of directories.

use super::{
    error::{ReadError, broken},
    node::{Kind, Node},
    record::{Link, ParsedRecord, Text},
    volume::{Source, Volume},
};
use crate::format::{
    FormatError, NAME_MAX, SECTOR, SECTOR_SIZE, SYMLINK_MAX,
    directory_record::{DirectoryRecord, FLAG_ASSOCIATED, FLAG_MULTI_EXTENT, PARENT, SELF},
};

/// A name: any 1 to 255 bytes but NUL and the slash.
pub type Name = Text<NAME_MAX>;

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    name: Name,
    node: Node,
    oddity: Option<FormatError>,
}

impl Entry {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// What it is the name of.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// What is against the standard in its record and does no harm.
    #[must_use]
    pub const fn oddity(&self) -> Option<FormatError> {
        self.oddity
    }
}

/// The entries of a directory, in the order of the image, without those for itself and its parent. Ends after an error.
#[derive(Debug)]
pub struct ReadDir<'v, S> {
    volume: &'v Volume<S>,
    sector: [u8; SECTOR],
    /// Where the sector in the buffer is in the image, and where the directory ends.
    at: u64,
    end: u64,
    offset: usize,
    loaded: bool,
}

impl<S: Source> Volume<S> {
    /// Lists a directory.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read_dir(&self, node: &Node) -> Result<ReadDir<'_, S>, ReadError<S::Error>> {
        if !node.is_directory() {
            return Err(ReadError::NotADirectory);
        }
        let at = self.offset(node.extent);
        self.check_extent(node.extent, node.size, at)?;
        Ok(ReadDir { volume: self, sector: [0; SECTOR], at, end: at + node.size, offset: 0, loaded: false })
    }

    /// The directory that begins at a block, as its record of itself describes it.
    pub(crate) fn directory_at(&self, block: u32) -> Result<Node, ReadError<S::Error>> {
        Ok(Node { extent: block, ..self.dot(block, SELF)?.node })
    }

    /// The directory above a directory; the root's is the root.
    pub(crate) fn parent(&self, node: &Node) -> Result<Node, ReadError<S::Error>> {
        if node.extent == self.root().extent {
            return Ok(*self.root());
        }
        let found = self.dot(node.extent, PARENT)?;
        self.directory_at(found.parent.unwrap_or(found.node.extent))
    }

    /// The first or the second record of a directory.
    fn dot(&self, block: u32, which: &[u8]) -> Result<ParsedRecord, ReadError<S::Error>> {
        let at = self.offset(block);
        let mut sector = [0; SECTOR];
        self.read_sector(at, at + SECTOR_SIZE, &mut sector)?;
        let mut offset = 0;
        for expected in [SELF, PARENT] {
            let record = DirectoryRecord::parse(&sector, offset).map_err(|error| broken(at, error))?;
            let record = record.filter(|record| record.identifier == expected && record.is_directory());
            let missing = "there is no directory where one should be";
            let record = record.ok_or(broken(at, FormatError::new(missing)))?;
            if expected == which {
                return self.parse_record(&record, (at, offset), None);
            }
            offset += record.length;
        }
        Err(ReadError::NotFound)
    }

    /// The target of a symbolic link, in `text`.
    pub(crate) fn link_text(
        &self,
        node: &Node,
        text: &mut Text<SYMLINK_MAX>,
    ) -> Result<(), ReadError<S::Error>> {
        let (at, offset) = node.record;
        let mut sector = [0; SECTOR];
        self.read_sector(at, node.record_end, &mut sector)?;
        let record = DirectoryRecord::parse(&sector, offset).map_err(|error| broken(at, error))?;
        let record = record.ok_or(ReadError::NotFound)?;
        text.clear();
        self.parse_record(&record, node.record, Some(Link::new(text)))?;
        if text.as_bytes().is_empty() {
            return Err(broken(at, FormatError::new("a symbolic link leads nowhere")));
        }
        Ok(())
    }

    /// Writes the target of a symbolic link, of up to 4095 bytes, to the start of `buffer`, and returns it.
    ///
    /// # Errors
    ///
    /// It is no symbolic link ([`ReadError::NotAFile`]), is broken, or does not fit ([`ReadError::PathTooLong`]).
    pub fn read_link<'b>(&self, node: &Node, buffer: &'b mut [u8]) -> Result<&'b [u8], ReadError<S::Error>> {
        if node.kind != Kind::Symlink {
            return Err(ReadError::NotAFile);
        }
        let mut text = Text::new();
        self.link_text(node, &mut text)?;
        let target = text.as_bytes();
        let room = buffer.get_mut(..target.len()).ok_or(ReadError::PathTooLong)?;
        room.copy_from_slice(target);
        Ok(room)
    }
}

impl<S: Source> Iterator for ReadDir<'_, S> {
    type Item = Result<Entry, ReadError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance();
        if !matches!(result, Ok(Some(_))) {
            self.at = self.end;
        }
        result.transpose()
    }
}

impl<S: Source> ReadDir<'_, S> {
    fn advance(&mut self) -> Result<Option<Entry>, ReadError<S::Error>> {
        // A file of several sections, of which some have been met.
        let mut whole: Option<ParsedRecord> = None;
        loop {
            if self.at >= self.end {
                if whole.is_some() {
                    let missing = FormatError::new("a file's last section is missing");
                    return Err(broken(self.at.saturating_sub(1), missing));
                }
                return Ok(None);
            }
            if !self.loaded {
                self.volume.read_sector(self.at, self.end, &mut self.sector)?;
                self.loaded = true;
            }
            let record = DirectoryRecord::parse(&self.sector, self.offset);
            let Some(record) = record.map_err(|error| broken(self.at, error))? else {
                (self.at, self.offset, self.loaded) = (self.at + SECTOR_SIZE, 0, false);
                continue;
            };
            let (at, place) = (self.at, (self.at, self.offset));
            self.offset += record.length;
            if record.is_dot() || record.fields.flags & FLAG_ASSOCIATED != 0 {
                continue;
            }
            let mut found = self.volume.parse_record(&record, place, None)?;
            found.node.record_end = self.end;
            let more = record.fields.flags & FLAG_MULTI_EXTENT != 0;
            let found = match whole.take() {
                None => found,
                Some(mut first) => {
                    if first.name.as_bytes() != found.name.as_bytes() || found.node.kind != Kind::File {
                        return Err(broken(at, FormatError::new("a section belongs to another file")));
                    }
                    first.node.size += found.node.size;
                    first.node.sections = first.node.sections.saturating_add(1);
                    first.oddity = first.oddity.or(found.oddity);
                    first
                }
            };
            if more {
                if found.node.kind != Kind::File {
                    return Err(broken(at, FormatError::new("what is no file has several sections")));
                }
                whole = Some(found);
                continue;
            }
            // Relocated directories are shown where they belong.
            if found.relocated {
                continue;
            }
            let node = match found.child {
                None => found.node,
                Some(block) => Node { time: found.node.time, ..self.volume.directory_at(block)? },
            };
            return Ok(Some(Entry { name: found.name, node, oddity: found.oddity }));
        }
    }
}
