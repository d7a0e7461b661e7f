//! Entries that a program adds.

use super::{
    blob::{Blob, BlobSource, Identity},
    path,
    spool::Spool,
    tree::{Content, Metadata, ROOT, Tree},
};
use crate::{
    error::{Error, Warning, WarningKind},
    format::{SYMLINK_MAX, Timestamp, rock_ridge as rr},
};
use std::{
    fmt, fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Something to put into an image under a path of its own.
///
/// Permissions are 0644 for files, 0755 for directories, the owner is root, and the time is that of the image, unless
/// set; a file of the host brings its own.
#[derive(Debug)]
#[must_use]
pub struct Entry {
    kind: Kind,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    time: Option<Timestamp>,
}

enum Kind {
    File(PathBuf),
    Bytes(Arc<[u8]>),
    Reader(Box<dyn Read + Send>),
    Directory,
    Symlink(PathBuf),
    HardLink(PathBuf),
    Device { kind: u32, major: u32, minor: u32 },
    Fifo,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Reader(_) => f.write_str("Reader(..)"),
            Self::Directory => f.write_str("Directory"),
            Self::Symlink(target) => write!(f, "Symlink({target:?})"),
            Self::HardLink(target) => write!(f, "HardLink({target:?})"),
            Self::Device { kind, major, minor } => write!(f, "Device({kind:o}, {major}:{minor})"),
            Self::Fifo => f.write_str("Fifo"),
        }
    }
}

impl Entry {
    const fn new(kind: Kind) -> Self {
        Self { kind, mode: None, owner: None, time: None }
    }

    /// A regular file of the host, with its permissions, owner and time. A symbolic link is followed.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(Kind::File(path.into()))
    }

    /// A file with these contents.
    pub fn bytes(contents: impl Into<Arc<[u8]>>) -> Self {
        Self::new(Kind::Bytes(contents.into()))
    }

    /// A file with what a stream holds up to its end. It is kept in an unnamed temporary file.
    pub fn reader(stream: impl Read + Send + 'static) -> Self {
        Self::new(Kind::Reader(Box::new(stream)))
    }

    /// A directory. One that is there already keeps what is in it.
    pub const fn directory() -> Self {
        Self::new(Kind::Directory)
    }

    /// A symbolic link to `target`, of 1 to 4095 bytes.
    pub fn symlink(target: impl Into<PathBuf>) -> Self {
        Self::new(Kind::Symlink(target.into()))
    }

    /// Another name for a file that is in the image already, at the path `target`. It has that file's attributes.
    pub fn hard_link(target: impl Into<PathBuf>) -> Self {
        Self::new(Kind::HardLink(target.into()))
    }

    /// A block device.
    pub const fn block_device(major: u32, minor: u32) -> Self {
        Self::new(Kind::Device { kind: rr::S_IFBLK, major, minor })
    }

    /// A character device.
    pub const fn character_device(major: u32, minor: u32) -> Self {
        Self::new(Kind::Device { kind: rr::S_IFCHR, major, minor })
    }

    /// A named pipe.
    pub const fn fifo() -> Self {
        Self::new(Kind::Fifo)
    }

    /// With these permissions: the lower twelve bits of `st_mode`.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode & 0o7777);
        self
    }

    /// With this owner and group.
    pub const fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// With this time of the last modification.
    pub const fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Puts it into the tree at `path`.
    pub(crate) fn add(
        self,
        tree: &mut Tree,
        spool: &mut Option<Spool>,
        path: &Path,
        time: Timestamp,
    ) -> Result<(), Error> {
        let refuse = |why| Error::Entry { path: path.to_owned(), why };
        let mut metadata = Metadata { mode: 0o644, uid: 0, gid: 0, time };
        let (kind, content) = match self.kind {
            Kind::File(file) => {
                let stat = fs::metadata(&file).map_err(|error| Error::io("look at", &file, error))?;
                if !stat.is_file() {
                    return Err(Error::Unsupported { path: file, why: "it is no regular file" });
                }
                let nanoseconds = u32::try_from(stat.mtime_nsec()).unwrap_or(0);
                let identity = Identity { inode: stat.ino(), seconds: stat.mtime(), nanoseconds };
                metadata = Metadata {
                    mode: stat.mode() & 0o7777,
                    uid: stat.uid(),
                    gid: stat.gid(),
                    time: identity.time(),
                };
                let number = u32::try_from(tree.sources.paths.len()).map_err(|_| Error::TooMany)?;
                tree.sources.paths.push(file);
                let source = BlobSource::Path { path: number, identity };
                let sparse = stat.blocks().saturating_mul(512) < stat.len();
                let blob = Blob { size: stat.len(), extent: 0, sparse, source };
                (rr::S_IFREG, Content::File(tree.add_blob(blob)?))
            }
            Kind::Bytes(bytes) => {
                let number = u32::try_from(tree.sources.bytes.len()).map_err(|_| Error::TooMany)?;
                let (size, source) = (bytes.len() as u64, BlobSource::Bytes(number));
                tree.sources.bytes.push(bytes);
                (rr::S_IFREG, Content::File(tree.add_blob(Blob { size, extent: 0, sparse: false, source })?))
            }
            Kind::Reader(mut stream) => {
                let blob = Spool::of(spool, tree)?.add(tree, &mut *stream)?;
                let blob = blob.map_err(|error| Error::io("read the contents of", path, error))?;
                (rr::S_IFREG, Content::File(tree.add_blob(blob)?))
            }
            Kind::Symlink(target) => {
                let target = target.as_os_str().as_bytes();
                if target.is_empty() || target.len() > SYMLINK_MAX || target.contains(&0) {
                    return Err(refuse("the target of a symbolic link has 1 to 4095 bytes and no NUL"));
                }
                metadata.mode = 0o777;
                (rr::S_IFLNK, Content::Symlink(tree.intern(target)?))
            }
            Kind::Device { kind, major, minor } => {
                if minor > 255 {
                    tree.warnings.push(Warning { path: path.to_owned(), kind: WarningKind::LargeMinor });
                }
                (kind, Content::Device(rr::device_number(major, minor)))
            }
            Kind::Fifo => (rr::S_IFIFO, Content::Fifo),
            Kind::Directory => {
                metadata.mode = 0o755;
                self.changed(&mut metadata);
                return add_directory(tree, path, &metadata, time).map(drop);
            }
            Kind::HardLink(target) => {
                let missing = || refuse("there is no file in the image that it could be a link to");
                let (directory, name) = place(tree, &target, time)?.ok_or_else(missing)?;
                let entry = tree.find(directory, name).ok_or_else(missing)?;
                let inode = tree.entries[entry as usize].inode;
                if tree.is_directory(inode) {
                    return Err(refuse("a directory cannot have a second name"));
                }
                let (directory, name) = place(tree, path, time)?.ok_or_else(|| refuse("it is the root"))?;
                return if tree.find(directory, name) == Some(entry) {
                    Ok(())
                } else {
                    tree.put(directory, name, inode).map(drop)
                };
            }
        };
        Self { kind: Kind::Fifo, ..self }.changed(&mut metadata);
        let (directory, name) = place(tree, path, time)?.ok_or_else(|| refuse("the root is a directory"))?;
        let inode = tree.add_inode(kind, &metadata, content)?;
        tree.put(directory, name, inode).map(drop)
    }

    /// Changes what was set.
    fn changed(&self, metadata: &mut Metadata) {
        metadata.mode = self.mode.unwrap_or(metadata.mode);
        (metadata.uid, metadata.gid) = self.owner.unwrap_or((metadata.uid, metadata.gid));
        metadata.time = self.time.unwrap_or(metadata.time);
    }
}

/// The directory and the name of a path in the image.
fn place<'a>(tree: &mut Tree, path: &'a Path, time: Timestamp) -> Result<Option<(u32, &'a [u8])>, Error> {
    path::place(tree, path.as_os_str().as_bytes(), &Metadata::implied(0o755, time))
}

/// Makes a directory, or changes the one that is there, and returns its inode.
pub fn add_directory(
    tree: &mut Tree,
    path: &Path,
    metadata: &Metadata,
    time: Timestamp,
) -> Result<u32, Error> {
    match place(tree, path, time)? {
        Some((directory, name)) => tree.put_directory(directory, name, metadata),
        None => {
            let root = &mut tree.inodes[ROOT as usize];
            root.mode = rr::S_IFDIR | metadata.mode;
            (root.uid, root.gid, root.time) = (metadata.uid, metadata.gid, metadata.time.seconds);
            Ok(ROOT)
        }
    }
}
