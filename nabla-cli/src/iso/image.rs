//! What all verbs that read images need.

use anyhow::Context;
use nabla_iso::reader::{ImageFile, Kind, Volume};
use std::{
    io::{self, ErrorKind, Write},
    path::Path,
};

/// The longest path that is shown: no longer one can be opened. All paths of a deep tree together would be much larger
/// than an image.
pub const PATH_MAX: usize = 4095;

/// Opens an image.
pub fn open(path: &Path) -> anyhow::Result<Volume<ImageFile>> {
    Volume::open(open_file(path)?).with_context(|| format!("cannot read '{}'", path.display()))
}

/// Opens the file with an image.
pub fn open_file(path: &Path) -> anyhow::Result<ImageFile> {
    ImageFile::open(path).with_context(|| format!("cannot open '{}'", path.display()))
}

/// What a file is, in JSON and in messages.
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::CharacterDevice => "character-device",
        Kind::BlockDevice => "block-device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// Standard output, written in pieces.
pub struct Stdout(io::BufWriter<io::StdoutLock<'static>>);

impl Stdout {
    pub fn new() -> Self {
        Self(io::BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes all of it; false when nobody reads any more, who has seen enough.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        Self::checked(self.0.write_all(bytes))
    }

    /// Writes what is still in memory.
    pub fn finish(mut self) -> anyhow::Result<bool> {
        Self::checked(self.0.flush())
    }

    fn checked(result: io::Result<()>) -> anyhow::Result<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }
}
