//! Small files are kept in memory: the disk does not change.

use crate::files::{Entry, File, Files};
use alloc::{collections::BTreeMap, rc::Rc, string::String, vec};

/// The largest file that is kept, in bytes.
const FILE_MAX: u64 = 256 << 10;

/// What is sent as the body of a response.
#[derive(Debug, Clone)]
pub enum Body<F> {
    /// A text.
    Text(&'static str),
    /// A file in memory.
    Memory(Rc<[u8]>),
    /// A file on the disk.
    File(F),
}

impl<F: File> Body<F> {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.size(),
        }
    }

    /// Fills `buffer` from `offset` on, all of which is in the body.
    ///
    /// # Errors
    ///
    /// When the disk cannot be read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), F::Error> {
        let bytes = match self {
            Self::Text(text) => text.as_bytes(),
            Self::Memory(bytes) => bytes,
            Self::File(file) => return file.read_at(offset, buffer),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let length = buffer.len().min(bytes.len() - start);
        buffer[..length].copy_from_slice(&bytes[start..start + length]);
        Ok(())
    }
}

/// A file system with a memory for small files, which are looked for and read once.
#[derive(Debug)]
pub struct Cache<F> {
    files: F,
    kept: BTreeMap<String, Rc<[u8]>>,
    left: usize,
}

impl<F: Files> Cache<F> {
    /// Keeps up to `capacity` bytes.
    #[must_use]
    pub const fn new(files: F, capacity: usize) -> Self {
        Self { files, kept: BTreeMap::new(), left: capacity }
    }

    /// What is at a path.
    ///
    /// # Errors
    ///
    /// When the file system cannot be read.
    pub fn open(&mut self, path: &str) -> Result<Entry<Body<F::File>>, F::Error> {
        if let Some(bytes) = self.kept.get(path) {
            return Ok(Entry::File(Body::Memory(Rc::clone(bytes))));
        }
        Ok(match self.files.open(path)? {
            Entry::Directory => Entry::Directory,
            Entry::Missing => Entry::Missing,
            Entry::File(file) => match usize::try_from(file.size()) {
                Ok(size) if file.size() <= FILE_MAX && size <= self.left => {
                    let mut bytes = vec![0; size];
                    file.read_at(0, &mut bytes)?;
                    let bytes: Rc<[u8]> = bytes.into();
                    self.left -= size;
                    self.kept.insert(path.into(), Rc::clone(&bytes));
                    Entry::File(Body::Memory(bytes))
                }
                _ => Entry::File(Body::File(file)),
            },
        })
    }
}
