//! Layers of container images: tar streams with whiteouts (OCI image specification, "Image Layer Filesystem Changeset").

use super::{
    blob::{Blob, BlobSource},
    filter::{Excludes, Overrides},
    path,
    spool::Spool,
    tree::{Content, Metadata, ROOT, Tree},
};
use crate::{
    error::{Error, Warning, WarningKind},
    format::{SYMLINK_MAX, Timestamp, rock_ridge as rr},
    progress::{Phase, Progress, Reporter},
    tar::{Archive, Broken, Input, Kind, Member, Sparse},
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A file of this name in a layer removes what lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// A file whose name starts so removes the file of the rest of the name, which is in a lower layer.
const WHITEOUT: &[u8] = b".wh.";
/// What aufs keeps for itself has names that start so: never files of the image, but some are targets of hard links.
const AUFS: &[u8] = b".wh..wh.";

/// How to read a layer.
#[derive(Debug)]
pub struct Layer<'a> {
    /// What to call it in errors.
    pub name: String,
    pub excludes: &'a Excludes,
    pub overrides: &'a Overrides,
    /// The time of directories that are not in the stream.
    pub time: Timestamp,
    /// The number of the open file that it is read from, if that is so and its bytes can be taken from there later.
    pub file: Option<u32>,
    pub reporter: &'a Reporter,
}

/// Inodes of files that are not in the image, by their paths.
type Hidden = HashMap<Vec<u8>, u32>;

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

impl Layer<'_> {
    fn failed(&self, Broken { path, error }: Broken) -> Error {
        let name = match path {
            Some(path) => format!("'{}' in {}", Path::new(OsStr::from_bytes(&path)).display(), self.name),
            None => self.name.clone(),
        };
        Error::Tar { name, source: error }
    }

    fn broken(&self, path: &[u8], why: &str) -> Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, why);
        self.failed(Broken { path: Some(path.to_vec()), error })
    }

    /// Adds everything in the stream to the tree, on top of what is there.
    pub fn add(&self, tree: &mut Tree, spool: &mut Option<Spool>, input: Input) -> Result<(), Error> {
        let mut archive = Archive::new(input);
        let mut hidden = Hidden::new();
        let mut files = 0;
        while let Some(member) = archive.next().map_err(|error| self.failed(error))? {
            self.add_member(tree, spool, &mut hidden, &mut archive, &member)?;
            files += 1;
            self.reporter.report(Progress {
                phase: Phase::Scanning,
                files,
                files_total: 0,
                bytes: 0,
                bytes_total: 0,
            })?;
        }
        Ok(())
    }

    fn add_member(
        &self,
        tree: &mut Tree,
        spool: &mut Option<Spool>,
        hidden: &mut Hidden,
        archive: &mut Archive,
        member: &Member,
    ) -> Result<(), Error> {
        let mut metadata =
            Metadata { mode: member.mode, uid: member.uid, gid: member.gid, time: member.time };
        let names = path::names(&member.path)?;
        let implied = Metadata::implied(0o755, self.time);
        let Some((&name, parents)) = names.split_last() else {
            if member.kind == Kind::Directory {
                self.overrides.apply(rr::S_IFDIR, &mut metadata);
                let root = &mut tree.inodes[ROOT as usize];
                root.mode = rr::S_IFDIR | metadata.mode;
                (root.uid, root.gid, root.time) = (metadata.uid, metadata.gid, metadata.time.seconds);
            }
            return Ok(());
        };
        if self.left_out(&names) {
            return Ok(());
        }
        let is_hidden = name != OPAQUE && names.iter().any(|name| name.starts_with(AUFS));
        if is_hidden && member.kind == Kind::Directory {
            return Ok(());
        }
        let directory = if is_hidden { ROOT } else { path::directory(tree, parents, &implied)? };
        if !is_hidden && name.starts_with(WHITEOUT) {
            whiteout(tree, directory, name, &member.path);
            return Ok(());
        }
        if member.kind == Kind::Directory {
            self.overrides.apply(rr::S_IFDIR, &mut metadata);
            tree.put_directory(directory, name, &metadata)?;
            return Ok(());
        }
        let inode = if member.kind == Kind::HardLink {
            self.link_target(tree, hidden, member)?
        } else {
            let (kind, content) = self.content(tree, spool, archive, member)?;
            self.overrides.apply(kind, &mut metadata);
            tree.add_inode(kind, &metadata, content)?
        };
        if is_hidden {
            hidden.insert(names.join(&b'/'), inode);
            return Ok(());
        }
        // A link to itself changes nothing.
        let there = tree.find(directory, name).map(|entry| tree.entries[entry as usize].inode);
        if there != Some(inode) {
            tree.put(directory, name, inode)?;
        }
        Ok(())
    }

    /// The kind and the content of what is no directory and no hard link.
    fn content(
        &self,
        tree: &mut Tree,
        spool: &mut Option<Spool>,
        archive: &mut Archive,
        member: &Member,
    ) -> Result<(u32, Content), Error> {
        let warning = |kind| Warning { path: path_of(&member.path), kind };
        match member.kind {
            Kind::Symlink => {
                if member.link.is_empty() || member.link.len() > SYMLINK_MAX || member.link.contains(&0) {
                    let why = "the target of a symbolic link has 1 to 4095 bytes and no NUL";
                    return Err(self.broken(&member.path, why));
                }
                Ok((rr::S_IFLNK, Content::Symlink(tree.intern(&member.link)?)))
            }
            Kind::CharacterDevice | Kind::BlockDevice => {
                let (major, minor) = member.device;
                if minor > 255 {
                    tree.warnings.push(warning(WarningKind::LargeMinor));
                }
                let kind = if member.kind == Kind::BlockDevice { rr::S_IFBLK } else { rr::S_IFCHR };
                Ok((kind, Content::Device(rr::device_number(major, minor))))
            }
            Kind::Fifo => Ok((rr::S_IFIFO, Content::Fifo)),
            Kind::File | Kind::Unknown | Kind::Directory | Kind::HardLink => {
                if member.kind == Kind::Unknown {
                    tree.warnings.push(warning(WarningKind::UnknownTarEntry));
                }
                let blob = self.contents(tree, spool, archive, member)?;
                let blob =
                    blob.map_err(|error| self.failed(Broken { path: Some(member.path.clone()), error }))?;
                Ok((rr::S_IFREG, Content::File(tree.add_blob(blob)?)))
            }
        }
    }

    /// Where the contents of a regular file are, now or from now on. The inner result is the stream's.
    fn contents(
        &self,
        tree: &mut Tree,
        spool: &mut Option<Spool>,
        archive: &mut Archive,
        member: &Member,
    ) -> Result<io::Result<Blob>, Error> {
        let size = member.stored;
        if let Some(sparse) = &member.sparse {
            let spool = Spool::of(spool, tree)?;
            return add_sparse(spool, tree, archive, sparse);
        }
        if let Some(file) = self.file {
            let source = BlobSource::Part { file, offset: archive.position() };
            return Ok(Ok(Blob { size, extent: 0, sparse: false, source }));
        }
        if size == 0 {
            return Ok(Ok(Blob { size, extent: 0, sparse: false, source: BlobSource::Bytes(0) }));
        }
        Spool::of(spool, tree)?.add(tree, &mut archive.take(size))
    }

    /// Whether the file or a directory that it is in is excluded.
    fn left_out(&self, names: &[&[u8]]) -> bool {
        if self.excludes.is_empty() {
            return false;
        }
        let path = names.join(&b'/');
        let mut end = 0;
        names.iter().any(|name| {
            end += usize::from(end > 0) + name.len();
            self.excludes.matches(name, &path[..end])
        })
    }

    /// The inode that a hard link is another name for.
    fn link_target(&self, tree: &mut Tree, hidden: &Hidden, member: &Member) -> Result<u32, Error> {
        let missing = || self.broken(&member.path, "it is a link to a file that is not there");
        let names = path::names(&member.link)?;
        if self.left_out(&names) {
            return Err(self.broken(&member.path, "it is a link to a file that is left out"));
        }
        if names.iter().any(|name| name.starts_with(AUFS)) {
            return hidden.get(&names.join(&b'/')).copied().ok_or_else(missing);
        }
        let implied = Metadata::implied(0o755, self.time);
        let (directory, name) = path::place(tree, &member.link, &implied)?.ok_or_else(missing)?;
        let entry = tree.find(directory, name).ok_or_else(missing)?;
        let inode = tree.entries[entry as usize].inode;
        if tree.is_directory(inode) {
            return Err(self.broken(&member.path, "it is a link to a directory"));
        }
        Ok(inode)
    }
}

/// Puts the parts of a sparse file where they belong. The inner result is the stream's.
fn add_sparse(
    spool: &mut Spool,
    tree: &Tree,
    stream: &mut dyn Read,
    sparse: &Sparse,
) -> Result<io::Result<Blob>, Error> {
    let mut writer = spool.start();
    let mut buffer = vec![0; 64 << 10];
    for &(offset, length) in &sparse.parts {
        writer.skip(offset - writer.length());
        let mut left = length;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            if let Err(error) = stream.read_exact(&mut buffer[..part]) {
                return Ok(Err(error));
            }
            writer.write(spool, tree, &buffer[..part])?;
            left -= part as u64;
        }
    }
    writer.skip(sparse.size - writer.length());
    spool.finish(tree, &writer).map(Ok)
}

/// Does what a whiteout in a directory says.
fn whiteout(tree: &mut Tree, directory: u32, name: &[u8], path: &[u8]) {
    if name == OPAQUE {
        return remove_lower(tree, directory);
    }
    match tree.find(directory, &name[WHITEOUT.len()..]) {
        Some(old) if tree.entries[old as usize].layer < tree.layer => tree.remove(old),
        Some(_) => {}
        None => tree.warnings.push(Warning { path: path_of(path), kind: WarningKind::NothingToRemove }),
    }
}

/// Removes what is in a directory and comes from lower layers, but not what this layer has put between.
fn remove_lower(tree: &mut Tree, directory: u32) {
    let mut rest = vec![directory];
    while let Some(directory) = rest.pop() {
        let entries: Vec<u32> = tree.children(directory).collect();
        for number in entries {
            let entry = tree.entries[number as usize];
            if entry.layer < tree.layer {
                tree.remove(number);
            } else if tree.is_directory(entry.inode) {
                rest.push(entry.inode);
            }
        }
    }
}
