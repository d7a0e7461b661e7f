//! Unpacks images.

use crate::{
    error::{Error, Warning, WarningKind},
    format::Timestamp,
    host::{
        beneath::open_beneath,
        partial::{directory_of, free_name, remove_stale},
    },
    progress::{Phase, Progress, Reporter},
    reader::{Kind, Node, ReadError, Source, Volume, WalkEntry},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, Timespec, Timestamps, Uid},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Bytes that are copied at a time.
const BUFFER: usize = 256 << 10;
/// Zeros of this size and alignment become holes.
const HOLE: usize = 4096;
/// Unless another limit is set, an image may unpack to this many times its size and [`SPARE`].
const TIMES: u64 = 16;
const SPARE: u64 = 64 << 20;

/// How to unpack an image.
///
/// ```
/// # fn main() -> Result<(), nabla_iso::Error> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let target = directory.path().join("rootfs");
/// use nabla_iso::{Entry, Extractor, ImageBuilder, reader::Volume};
///
/// let plan = ImageBuilder::new().entry("/etc/motd", Entry::bytes(*b"hello\n")).plan()?;
/// let volume = Volume::open(plan).unwrap();
/// let summary = Extractor::new().extract(&volume, &target)?;
/// assert_eq!(summary.entries, 2);
/// assert_eq!(std::fs::read(target.join("etc/motd")).unwrap(), b"hello\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Extractor {
    limit: Option<u64>,
    owners: Option<bool>,
    reporter: Reporter,
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExtractSummary {
    /// Names: files, directories and others.
    pub entries: u64,
    /// Bytes of files, each file counted once.
    pub bytes: u64,
    /// What was left out or changed.
    pub warnings: Vec<Warning>,
}

impl Extractor {
    /// With owners and devices if this program is root's.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails before more than this many bytes of files are written. Default: 16 times the image's size, and 64 MiB.
    pub const fn limit(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// Whether files get the owners that the image says, which takes root. Default: as root, yes.
    pub const fn owners(mut self, yes: bool) -> Self {
        self.owners = Some(yes);
        self
    }

    /// Reports progress, as with [`ImageBuilder::progress`](crate::ImageBuilder::progress).
    pub fn progress(
        mut self,
        callback: impl Fn(Progress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        self.reporter = Reporter::new(callback);
        self
    }

    /// Unpacks everything into the directory `target`, which must not exist or be empty.
    ///
    /// It appears when it is complete; until then what is unpacked is beside it, under a name that starts with a dot and
    /// ends in `.partial`, readable by nobody else, which the next call for that directory removes should this program be
    /// killed. Nothing outside is touched, whatever the image contains.
    ///
    /// # Errors
    ///
    /// The target is not empty or cannot be written, the image is broken, or it is larger than the limit. Nothing is
    /// left then.
    pub fn extract<S: Source<Error = io::Error>>(
        &self,
        volume: &Volume<S>,
        target: impl AsRef<Path>,
    ) -> Result<ExtractSummary, Error> {
        let target = target.as_ref();
        let partial = Partial::new(target)?;
        let is_root = rustix::process::geteuid().is_root();
        let size = volume.source().size();
        let mut job = Job {
            volume,
            root: partial.fd.as_fd(),
            shown: target,
            limit: self.limit.unwrap_or_else(|| size.saturating_mul(TIMES).saturating_add(SPARE)),
            image_size: size,
            owners: self.owners.unwrap_or(is_root),
            devices: is_root,
            reporter: &self.reporter,
            made: Vec::new(),
            links: HashMap::new(),
            summary: ExtractSummary::default(),
            buffer: vec![0; BUFFER],
        };
        job.files()?;
        job.directories()?;
        let summary = job.summary;
        partial.finish(target)?;
        Ok(summary)
    }
}

/// A directory that is removed unless it is finished.
struct Partial {
    path: PathBuf,
    /// Open, and locked so that it is not taken for a stale one.
    fd: OwnedFd,
    finished: bool,
}

impl Partial {
    fn new(target: &Path) -> Result<Self, Error> {
        if let Ok(entries) = std::fs::read_dir(target) {
            if entries.into_iter().next().is_some() {
                return Err(Error::io("unpack into", target, Errno::NOTEMPTY));
            }
        } else if std::fs::symlink_metadata(target).is_ok() {
            return Err(Error::io("unpack into", target, Errno::EXIST));
        }
        let name = target.file_name().ok_or_else(|| Error::io("unpack into", target, Errno::INVAL))?;
        let parent = directory_of(target);
        remove_stale(parent, name);
        let ((), path) = free_name(parent, name, |path| fs::mkdirat(CWD, path, Mode::RWXU))
            .map_err(|error| Error::io("make a directory for", target, error))?;
        let fd = fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::io("open", &path, error))?;
        // So that it is not taken for a stale one. No other program has it open.
        let _ = fs::flock(&fd, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { path, fd, finished: false })
    }

    fn finish(mut self, target: &Path) -> Result<(), Error> {
        fs::rename(&self.path, target).map_err(|error| Error::io("make the directory", target, error))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A directory that was made: its name and its parent, whole paths of deep trees being large, and what it is to be like
/// at the end.
struct Made {
    parent: usize,
    name: OsString,
    node: Node,
}

/// The path of a directory that was made.
fn path_of(made: &[Made], mut number: usize) -> Vec<u8> {
    let mut names = Vec::new();
    while number > 0 {
        names.push(made[number].name.as_bytes());
        number = made[number].parent;
    }
    names.reverse();
    names.join(&b'/')
}

struct Job<'a, S> {
    volume: &'a Volume<S>,
    root: BorrowedFd<'a>,
    shown: &'a Path,
    limit: u64,
    image_size: u64,
    owners: bool,
    devices: bool,
    reporter: &'a Reporter,
    made: Vec<Made>,
    /// First names of files that have several, with the directories that they are in.
    links: HashMap<(u32, u64, u32), (usize, OsString)>,
    summary: ExtractSummary,
    buffer: Vec<u8>,
}

impl<S: Source<Error = io::Error>> Job<'_, S> {
    fn shown(&self, path: &[u8]) -> PathBuf {
        self.shown.join(OsStr::from_bytes(path))
    }

    fn failed(&self, action: &'static str, path: &[u8], error: impl Into<io::Error>) -> Error {
        Error::io(action, self.shown(path), error)
    }

    /// Makes everything. The directories still lack their attributes: with them, nothing could be put into some.
    fn files(&mut self) -> Result<(), Error> {
        let root = *self.volume.root();
        self.made.push(Made { parent: 0, name: OsString::new(), node: root });
        // The walk sees to it that no directory comes twice.
        let walk = self.volume.walk(&root).map_err(|error| unreadable(Path::new("/"), error))?;
        // The directories on the way to where the walk is.
        let mut way = vec![0];
        let mut open: Option<(usize, OwnedFd)> = None;
        for entry in walk {
            let entry = entry.map_err(|error| unreadable(Path::new("/"), error))?;
            way.truncate(entry.depth + 1);
            let parent = way.last().copied().unwrap_or(0);
            if open.as_ref().is_none_or(|(there, _)| *there != parent) {
                let path = path_of(&self.made, parent);
                let fd = open_beneath(self.root, &path).map_err(|error| self.failed("open", &path, error))?;
                open = Some((parent, fd));
            }
            let Some((_, directory)) = &open else { continue };
            if entry.node.is_directory() {
                way.push(self.made.len());
            }
            self.make(directory.as_fd(), parent, &entry)?;
            self.summary.entries += 1;
            self.reporter.report(Progress {
                phase: Phase::Writing,
                files: self.summary.entries,
                files_total: 0,
                bytes: self.summary.bytes,
                bytes_total: 0,
            })?;
        }
        Ok(())
    }

    /// Makes one thing in a directory, which is also given by its number.
    fn make(&mut self, directory: BorrowedFd<'_>, parent: usize, entry: &WalkEntry) -> Result<(), Error> {
        let (name, path, node) = (entry.name(), entry.path.as_os_str().as_bytes(), &entry.node);
        if node.is_directory() {
            fs::mkdirat(directory, name, Mode::RWXU)
                .map_err(|e| self.failed("make the directory", path, e))?;
            self.made.push(Made { parent, name: name.to_owned(), node: *node });
            return Ok(());
        }
        let key = (node.serial.unwrap_or(0), node.size, node.extent);
        let several = node.links > 1 && (node.serial.is_some_and(|serial| serial != 0) || node.size > 0);
        if several {
            if let Some((parent, first)) = self.links.get(&key) {
                return self.link(*parent, first, directory, name, path);
            }
            self.links.insert(key, (parent, name.to_owned()));
        }
        match node.kind {
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(|error| self.failed("make", path, error))?;
                self.fill(&file, path, node)?;
                self.attributes(file.as_fd(), path, node)?;
            }
            Kind::Symlink => {
                let mut buffer = [0; crate::format::SYMLINK_MAX];
                let target = self.volume.read_link(node, &mut buffer);
                let target = target.map_err(|error| unreadable(&self.shown(path), error))?;
                fs::symlinkat(OsStr::from_bytes(target), directory, name)
                    .map_err(|error| self.failed("make the symbolic link", path, error))?;
                self.attributes_at(directory, name, path, node)?;
            }
            Kind::Fifo | Kind::CharacterDevice | Kind::BlockDevice | Kind::Socket => {
                let kind = match node.kind {
                    Kind::Fifo => FileType::Fifo,
                    Kind::Socket => FileType::Socket,
                    _ if !self.devices => {
                        self.summary
                            .warnings
                            .push(Warning { path: self.shown(path), kind: WarningKind::DeviceWithoutRoot });
                        return Ok(());
                    }
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                let device = fs::makedev(node.device.0, node.device.1);
                fs::mknodat(directory, name, kind, Mode::RUSR | Mode::WUSR, device)
                    .map_err(|error| self.failed("make", path, error))?;
                self.attributes_at(directory, name, path, node)?;
                let mode = Mode::from_raw_mode(node.mode & 0o7777);
                fs::chmodat(directory, name, mode, AtFlags::empty())
                    .map_err(|error| self.failed("set the permissions of", path, error))?;
            }
            Kind::Directory => {}
        }
        Ok(())
    }

    /// Gives a file another name.
    fn link(
        &self,
        parent: usize,
        first: &OsStr,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
    ) -> Result<(), Error> {
        let failed = |error| self.failed("make the link", path, error);
        let other = open_beneath(self.root, &path_of(&self.made, parent)).map_err(failed)?;
        fs::linkat(other, first, directory, name, AtFlags::empty()).map_err(failed)
    }

    /// Writes the contents of a file.
    fn fill(&mut self, file: &OwnedFd, path: &[u8], node: &Node) -> Result<(), Error> {
        let bytes = self.summary.bytes.saturating_add(node.size);
        if bytes > self.limit {
            return Err(Error::Bomb { limit: self.limit, size: self.image_size });
        }
        self.summary.bytes = bytes;
        fs::ftruncate(file, node.size).map_err(|error| self.failed("write", path, error))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        let mut copy = || {
            while at < node.size {
                let length = self.volume.read_file(node, at, &mut buffer);
                let length = length.map_err(|error| unreadable(&self.shown(path), error))?;
                write_data(file, at, &buffer[..length]).map_err(|error| self.failed("write", path, error))?;
                at += length as u64;
            }
            Ok(())
        };
        let result = copy();
        self.buffer = buffer;
        result
    }

    /// Sets the owner, the permissions and the time of an open file, in this order: a change of the owner takes
    /// permissions away.
    fn attributes(&mut self, file: BorrowedFd<'_>, path: &[u8], node: &Node) -> Result<(), Error> {
        if self.owners {
            let (user, group) = owner(node);
            fs::fchown(file, user, group).map_err(|error| self.failed("set the owner of", path, error))?;
        }
        let mut mode = node.mode & 0o7777;
        if !self.owners {
            // Who these bits would give power over would be another.
            mode &= 0o1777;
        }
        fs::fchmod(file, Mode::from_raw_mode(mode))
            .map_err(|error| self.failed("set the permissions of", path, error))?;
        if let Some(times) = times(node.time) {
            fs::futimens(file, &times).map_err(|error| self.failed("set the time of", path, error))?;
        }
        Ok(())
    }

    /// The same by name, for what cannot be opened, without the permissions.
    fn attributes_at(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        node: &Node,
    ) -> Result<(), Error> {
        if self.owners {
            let (user, group) = owner(node);
            fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("set the owner of", path, error))?;
        }
        if let Some(times) = times(node.time) {
            fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("set the time of", path, error))?;
        }
        Ok(())
    }

    /// Gives the directories their attributes, the innermost first.
    fn directories(&mut self) -> Result<(), Error> {
        for number in (0..self.made.len()).rev() {
            let path = path_of(&self.made, number);
            let directory =
                open_beneath(self.root, &path).map_err(|error| self.failed("open", &path, error))?;
            let node = self.made[number].node;
            self.attributes(directory.as_fd(), &path, &node)?;
        }
        Ok(())
    }
}

/// Writes bytes at an offset, but leaves holes for zeros.
fn write_data(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
    let mut at = 0;
    for run in bytes.chunks(HOLE).collect::<Vec<_>>().chunk_by(|a, b| is_hole(a) == is_hole(b)) {
        let length: usize = run.iter().map(|part| part.len()).sum();
        if !is_hole(run[0]) {
            let mut part = &bytes[at..at + length];
            let mut place = offset + at as u64;
            while !part.is_empty() {
                match rustix::io::pwrite(file, part, place) {
                    Ok(written) => (part, place) = (&part[written..], place + written as u64),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        at += length;
    }
    Ok(())
}

fn is_hole(bytes: &[u8]) -> bool {
    bytes.len() == HOLE && bytes.iter().all(|&byte| byte == 0)
}

fn owner(node: &Node) -> (Option<Uid>, Option<Gid>) {
    // The system calls take -1 for "do not change".
    let valid = |number: &u32| *number != u32::MAX;
    (Some(node.uid).filter(valid).map(Uid::from_raw), Some(node.gid).filter(valid).map(Gid::from_raw))
}

fn times(time: Option<Timestamp>) -> Option<Timestamps> {
    let Timestamp { seconds, nanoseconds } = time?;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Some(Timestamps { last_access: time, last_modification: time })
}

pub(crate) fn unreadable(path: &Path, error: ReadError<io::Error>) -> Error {
    Error::io("read", path, io::Error::from(error))
}
