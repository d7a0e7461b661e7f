//! What all verbs that read images need.

use anyhow::Context;
use nabla_iso::reader::{ImageFile, Kind, Volume};
use std::path::Path;

/// Opens an image.
pub fn open(path: &Path) -> anyhow::Result<Volume<ImageFile>> {
    let file = ImageFile::open(path).with_context(|| format!("cannot open '{}'", path.display()))?;
    Volume::open(file).with_context(|| format!("cannot read '{}'", path.display()))
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
