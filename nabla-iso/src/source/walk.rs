//! Directories of the host: found by several threads, without following a symbolic link and without looking a path
//! up twice.

use super::{
    blob::{Blob, BlobSource, Directory, Identity, Root},
    filter::{Excludes, Overrides},
    tree::{Content, Metadata, Tree},
};
use crate::{
    error::{Error, Warning, WarningKind},
    format::rock_ridge as rr,
    host::{
        beneath::{DIRECTORY, open_beneath},
        threads,
    },
    progress::{Phase, Progress, Reporter},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, Mode, RawDir, Stat},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Bytes of a buffer for names of a directory.
const LISTING: usize = 64 << 10;

/// How to walk.
#[derive(Debug)]
pub struct Walk<'a> {
    pub excludes: &'a Excludes,
    pub overrides: &'a Overrides,
    /// Directories on other file systems stay empty.
    pub one_file_system: bool,
    /// Sockets are errors.
    pub refuse_sockets: bool,
    /// Files that are left out, by device and inode.
    pub skip: &'a [(u64, u64)],
    pub threads: usize,
    pub reporter: &'a Reporter,
}

/// A directory to read.
#[derive(Debug, Clone, Copy)]
struct Task {
    /// In the host.
    directory: u32,
    /// In the image.
    inode: u32,
}

/// What the threads share.
struct WalkState<'t> {
    tree: &'t mut Tree,
    tasks: Vec<Task>,
    /// Threads that may add tasks.
    busy: usize,
    /// Files with several names: device and inode to number in the image.
    links: HashMap<(u64, u64), u32>,
    found: u64,
    error: Option<Error>,
}

/// A name that was found, before the tree knows it.
struct Found {
    /// Place in the listing's heap.
    name: (usize, usize),
    stat: Stat,
    /// The target of a symbolic link, in the same heap.
    target: (usize, usize),
}

impl Walk<'_> {
    /// Adds the directory at `path`, with everything in it, to the directory `inode` of the image.
    pub fn run(&self, tree: &mut Tree, path: &Path, inode: u32) -> Result<(), Error> {
        let failed = |error: Errno| Error::io("open", path, error);
        let fd = fs::open(path, DIRECTORY, Mode::empty()).map_err(failed)?;
        let stat = fs::fstat(&fd).map_err(failed)?;
        let metadata = self.metadata(&stat);
        let root = &mut tree.inodes[inode as usize];
        root.mode = rr::S_IFDIR | metadata.mode;
        (root.uid, root.gid, root.time) = (metadata.uid, metadata.gid, metadata.time.seconds);

        let number = u32::try_from(tree.sources.roots.len()).map_err(|_| Error::TooMany)?;
        let directory = u32::try_from(tree.sources.directories.len()).map_err(|_| Error::TooMany)?;
        let own = fd.try_clone().map_err(|error| Error::io("open", path, error))?;
        tree.sources.roots.push(Root { path: path.to_owned(), fd: own });
        tree.sources.directories.push(Directory { parent: number, name: None });
        let state = Mutex::new(WalkState {
            tree,
            tasks: vec![Task { directory, inode }],
            busy: 0,
            links: HashMap::new(),
            found: 0,
            error: None,
        });
        let changed = Condvar::new();
        threads::run(self.threads, || self.work(&state, &changed, &fd, path, stat.st_dev));
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.error.map_or(Ok(()), Err)
    }

    /// What a thread does until nothing is left to do.
    fn work(
        &self,
        state: &Mutex<WalkState<'_>>,
        changed: &Condvar,
        root: &OwnedFd,
        root_path: &Path,
        device: u64,
    ) {
        let mut heap = Vec::new();
        let mut found = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        let mut guard = lock(state);
        loop {
            if guard.error.is_some() {
                break;
            }
            let Some(task) = guard.tasks.pop() else {
                if guard.busy == 0 {
                    break;
                }
                guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            guard.busy += 1;
            let (_, path) = guard.tree.sources.locate(&guard.tree.names, task.directory);
            drop(guard);

            heap.clear();
            found.clear();
            let result = open_beneath(root, &path)
                .map_err(|error| Error::io("open", join(root_path, &path), error))
                .and_then(|fd| self.list(fd.as_fd(), root_path, &path, &mut buffer, &mut heap, &mut found));

            guard = lock(state);
            let result = result.and_then(|()| {
                let WalkState { tree, tasks, links, .. } = &mut *guard;
                for file in &found {
                    self.add(tree, tasks, links, task, device, &heap, file)?;
                }
                Ok(())
            });
            guard.found += found.len() as u64;
            let files = guard.found;
            let progress =
                Progress { phase: Phase::Scanning, files, files_total: 0, bytes: 0, bytes_total: 0 };
            if let Err(error) = result.and_then(|()| self.reporter.report(progress)) {
                guard.error.get_or_insert(error);
            }
            guard.busy -= 1;
            changed.notify_all();
        }
        drop(guard);
        changed.notify_all();
    }

    /// Reads a directory and what there is to know about its files.
    fn list(
        &self,
        fd: BorrowedFd<'_>,
        root: &Path,
        path: &[u8],
        buffer: &mut [MaybeUninit<u8>],
        heap: &mut Vec<u8>,
        found: &mut Vec<Found>,
    ) -> Result<(), Error> {
        let file_path = |name: &[u8]| join(root, path).join(OsStr::from_bytes(name));
        let mut full = Vec::new();
        let mut entries = RawDir::new(fd, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| Error::io("read", join(root, path), error))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.excludes.wants_paths() {
                full.clear();
                full.extend_from_slice(path);
                if !path.is_empty() {
                    full.push(b'/');
                }
                full.extend_from_slice(name.to_bytes());
            }
            if self.excludes.matches(name.to_bytes(), &full) {
                continue;
            }
            let stat = fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| Error::io("look at", file_path(name.to_bytes()), error))?;
            if self.skip.contains(&(stat.st_dev, stat.st_ino)) {
                continue;
            }
            let start = heap.len();
            heap.extend_from_slice(name.to_bytes());
            let end = heap.len();
            if stat.st_mode & rr::S_IFMT == rr::S_IFLNK {
                read_link(fd, name, heap)
                    .map_err(|error| Error::io("read the link", file_path(name.to_bytes()), error))?;
            }
            found.push(Found { name: (start, end), stat, target: (end, heap.len()) });
        }
        Ok(())
    }

    fn metadata(&self, stat: &Stat) -> Metadata {
        let mut metadata = Metadata {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            time: Identity::of(stat).time(),
        };
        self.overrides.apply(stat.st_mode & rr::S_IFMT, &mut metadata);
        metadata
    }

    /// Adds a file to the tree, and a task if it is a directory.
    #[expect(clippy::too_many_arguments, reason = "they are parts of what the threads share, borrowed apart")]
    fn add(
        &self,
        tree: &mut Tree,
        tasks: &mut Vec<Task>,
        links: &mut HashMap<(u64, u64), u32>,
        task: Task,
        device: u64,
        heap: &[u8],
        Found { name, stat, target }: &Found,
    ) -> Result<(), Error> {
        let name = &heap[name.0..name.1];
        let path = |tree: &Tree| {
            let (root, path) = tree.sources.locate(&tree.names, task.directory);
            join(&root.path, &path).join(OsStr::from_bytes(name))
        };
        let kind = stat.st_mode & rr::S_IFMT;
        let metadata = self.metadata(stat);
        if kind == rr::S_IFDIR {
            let inode = tree.put_directory(task.inode, name, &metadata)?;
            if !self.one_file_system || stat.st_dev == device {
                let directory = u32::try_from(tree.sources.directories.len()).map_err(|_| Error::TooMany)?;
                let name = tree.intern(name)?;
                tree.sources.directories.push(Directory { parent: task.directory, name: Some(name) });
                tasks.push(Task { directory, inode });
            }
            return Ok(());
        }
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(&inode) = links.get(&key)
        {
            tree.put(task.inode, name, inode)?;
            return Ok(());
        }
        let content = match kind {
            rr::S_IFREG => {
                let name = tree.intern(name)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
                let source =
                    BlobSource::Walked { directory: task.directory, name, identity: Identity::of(stat) };
                Content::File(tree.add_blob(Blob { size, extent: 0, sparse, source })?)
            }
            rr::S_IFLNK => Content::Symlink(tree.intern(&heap[target.0..target.1])?),
            rr::S_IFBLK | rr::S_IFCHR => {
                let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
                if minor > 255 {
                    tree.warnings.push(Warning { path: path(tree), kind: WarningKind::LargeMinor });
                }
                Content::Device(rr::device_number(major, minor))
            }
            rr::S_IFIFO => Content::Fifo,
            _ if self.refuse_sockets => {
                return Err(Error::Unsupported { path: path(tree), why: "it is a socket" });
            }
            _ => {
                tree.warnings.push(Warning { path: path(tree), kind: WarningKind::Socket });
                return Ok(());
            }
        };
        let inode = tree.add_inode(kind, &metadata, content)?;
        if stat.st_nlink > 1 {
            links.insert(key, inode);
        }
        tree.put(task.inode, name, inode)?;
        Ok(())
    }
}

/// Appends the target of a symbolic link to `heap`.
fn read_link(directory: BorrowedFd<'_>, name: &CStr, heap: &mut Vec<u8>) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); rr_buffer()];
    let (target, _) = fs::readlinkat_raw(directory, name, &mut buffer)?;
    heap.extend_from_slice(target);
    Ok(())
}

/// Room for any target.
const fn rr_buffer() -> usize {
    crate::format::SYMLINK_MAX + 1
}

fn join(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(path)) }
}

fn lock<'a, 't>(state: &'a Mutex<WalkState<'t>>) -> MutexGuard<'a, WalkState<'t>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
