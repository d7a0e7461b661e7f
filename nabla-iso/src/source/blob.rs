//! Where the bytes of files come from.

use super::text::Text;
use crate::{error::Error, format::Timestamp, host::beneath::open_beneath};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs,
};
use std::{ffi::OsStr, fs::File, os::unix::ffi::OsStrExt, path::PathBuf, sync::Arc};

/// The contents of a file.
#[derive(Debug, Clone, Copy)]
pub struct Blob {
    /// Bytes.
    pub size: u64,
    /// The first block in the image, when that is planned. Zero for empty files.
    pub extent: u32,
    /// The file has holes.
    pub sparse: bool,
    pub source: BlobSource,
}

/// Where contents are. Numbers are places in [`Sources`].
#[derive(Debug, Clone, Copy)]
pub enum BlobSource {
    /// A file in a directory that was walked.
    Walked { directory: u32, name: Text, identity: Identity },
    /// A file by its path.
    Path { path: u32, identity: Identity },
    /// In memory.
    Bytes(u32),
    /// A part of an open file: a tar file, or the file into which streams are spooled.
    Part { file: u32, offset: u64 },
    /// The same as another blob.
    Same(u32),
}

/// Identifies a file and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub inode: u64,
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Identity {
    pub fn of(stat: &fs::Stat) -> Self {
        Self {
            inode: stat.st_ino,
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }
    }

    pub const fn time(&self) -> Timestamp {
        Timestamp { seconds: self.seconds, nanoseconds: self.nanoseconds }
    }
}

/// A directory that was walked.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    /// Number of the directory that it is in, or of the root in [`Sources::roots`].
    pub parent: u32,
    /// Nothing for a root.
    pub name: Option<Text>,
}

/// The root of a walk.
#[derive(Debug)]
pub struct Root {
    pub path: PathBuf,
    pub fd: OwnedFd,
}

/// What blobs refer to.
#[derive(Debug, Default)]
pub struct Sources {
    pub roots: Vec<Root>,
    pub directories: Vec<Directory>,
    pub paths: Vec<PathBuf>,
    pub bytes: Vec<Arc<[u8]>>,
    pub files: Vec<(PathBuf, File)>,
}

impl Sources {
    /// The root of a directory, and its path from there.
    pub fn locate(&self, names: &[u8], directory: u32) -> (&Root, Vec<u8>) {
        let mut parts = Vec::new();
        let mut at = directory;
        let root = loop {
            let Directory { parent, name } = self.directories[at as usize];
            let Some(name) = name else { break parent };
            parts.push(name);
            at = parent;
        };
        let mut path = Vec::new();
        for name in parts.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.of(names));
        }
        (&self.roots[root as usize], path)
    }

    /// Opens a directory that was walked.
    pub fn open_directory(&self, names: &[u8], directory: u32) -> Result<OwnedFd, Error> {
        let (root, path) = self.locate(names, directory);
        open_beneath(root.fd.as_fd(), &path)
            .map_err(|error| Error::io("open", root.path.join(OsStr::from_bytes(&path)), error))
    }

    /// The host's path of a blob, or words for what has none.
    pub fn path(&self, names: &[u8], source: &BlobSource) -> PathBuf {
        match source {
            BlobSource::Walked { directory, name, .. } => {
                let (root, path) = self.locate(names, *directory);
                root.path.join(OsStr::from_bytes(&path)).join(OsStr::from_bytes(name.of(names)))
            }
            BlobSource::Path { path, .. } => self.paths[*path as usize].clone(),
            BlobSource::Part { file, .. } => self.files[*file as usize].0.clone(),
            BlobSource::Bytes(_) | BlobSource::Same(_) => PathBuf::from("memory"),
        }
    }
}
