//! What can go wrong when an image is planned, written or unpacked.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Planning, writing or unpacking an image failed. What caused it, if something did, is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused something.
    #[error("cannot {action} {}", quoted(path))]
    Io {
        /// What was tried: "open", "read".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not any more what it was when the image was planned.
    #[error("{} changed while the image was being made: {what}", quoted(path))]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        what: &'static str,
    },
    /// Something that an image cannot or shall not hold.
    #[error("cannot put {} into an image: {why}", quoted(path))]
    Unsupported {
        /// What.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// An entry cannot be added.
    #[error("cannot add {} to the image: {why}", quoted(path))]
    Entry {
        /// Its path in the image.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A tar stream is broken.
    #[error("cannot read {name}")]
    Tar {
        /// Which stream, or which entry of it.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A pattern of files to leave out.
    #[error("the pattern '{pattern}' cannot be used: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A volume's name.
    #[error("'{name}' cannot be a volume's name: it takes 1 to 32 printable ASCII characters")]
    VolumeId {
        /// The name.
        name: String,
    },
    /// The image would be larger than block numbers of 32 bits allow, which is 8 TiB.
    #[error("the image would be larger than 8 TiB")]
    TooLarge,
    /// There are more names, or more entries, than the tables in memory can count.
    #[error("there are more than 4 GiB of names, or more than 4 billion entries")]
    TooMany,
    /// The progress callback asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Unpacking would write more than was allowed.
    #[error("the image unpacks to more than {limit} bytes, {size} bytes of image; a limit can be given")]
    Bomb {
        /// What was allowed, in bytes.
        limit: u64,
        /// The image's size in bytes.
        size: u64,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// The file or directory that it is about, if it is about one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. }
            | Self::Changed { path, .. }
            | Self::Unsupported { path, .. }
            | Self::Entry { path, .. } => Some(path),
            _ => None,
        }
    }
}

fn quoted(path: &Path) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "'{}'", path.display()))
}

/// Something that was left out or changed, which is no reason to give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is about: a file of the source, or a path in the image.
    pub path: PathBuf,
    /// What was done, and why.
    pub kind: WarningKind,
}

/// What was left out or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarningKind {
    /// A socket, which means nothing in an image, was left out.
    Socket,
    /// A member of a tar stream has a type that is not known, and was taken for a regular file, as POSIX wants it.
    UnknownTarEntry,
    /// A whiteout in a tar stream has nothing to remove.
    NothingToRemove,
    /// There are more directories than a path table can number; those beyond are in no path table. Rock Ridge readers
    /// do not use it.
    PathTableFull,
    /// A device's minor number is above 255: Linux's driver reads it wrong, programs read it right.
    LargeMinor,
    /// When unpacking: devices need root.
    DeviceWithoutRoot,
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "left out: it is a socket",
            Self::UnknownTarEntry => "taken for a regular file: its type is not known",
            Self::NothingToRemove => "a whiteout that has nothing to remove",
            Self::PathTableFull => "the directories from the 65536th on are in no path table",
            Self::LargeMinor => {
                "a minor device number above 255, which Linux's ISO 9660 driver does not understand"
            }
            Self::DeviceWithoutRoot => "left out: devices need root",
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", quoted(&self.path), self.kind)
    }
}
