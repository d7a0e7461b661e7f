//! Unpacks images.

use crate::{
    error::{Error, Warning, WarningKind},
    format::Timestamp,
    host::{
        cursor::Cursor,
        partial::{directory_of, free_name, remove_stale, remove_tree},
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
    ffi::OsStr,
    io::{self, Read},
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
/// What a directory takes on most file systems, and a symbolic link whose target does not fit into its inode.
const DIRECTORY_SIZE: u64 = 4096;
/// Bytes of a target from which on that is so.
const INLINE_LINK: usize = 60;

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

    /// Fails before more than this many bytes are taken on the disk: those of files, 4096 for each directory, and 4096 for
    /// each symbolic link with a target of 60 bytes or more. Default: 16 times the image's size, and 64 MiB.
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
        let failed = |error: io::Error| Error::io("open", &partial.path, error);
        let mut job = Job {
            volume,
            cursor: Cursor::new(partial.fd.try_clone().map_err(failed)?),
            shown: target,
            path: Vec::new(),
            limit: self.limit.unwrap_or_else(|| size.saturating_mul(TIMES).saturating_add(SPARE)),
            taken: 0,
            image_size: size,
            owners: self.owners.unwrap_or(is_root),
            devices: is_root,
            reporter: &self.reporter,
            open: Vec::new(),
            links: HashMap::new(),
            staging: None,
            summary: ExtractSummary::default(),
            buffer: vec![0; BUFFER],
        };
        job.run()?;
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
        remove_stale(directory_of(target), name);
        Self::beside(target)
    }

    /// One beside `target`, under a name that is free.
    fn beside(target: &Path) -> Result<Self, Error> {
        let (parent, name) = (directory_of(target), target.file_name().unwrap_or_default());
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
            let _ = remove_tree(&self.path);
        }
    }
}

/// A directory that is being filled.
struct Open {
    /// What it is to be like at the end.
    node: Node,
    /// How long the path of the directory above is.
    above: usize,
}

struct Job<'a, S> {
    volume: &'a Volume<S>,
    /// The directory that is being filled.
    cursor: Cursor,
    shown: &'a Path,
    /// The path of what is being made, from the root.
    path: Vec<u8>,
    limit: u64,
    /// Bytes of the limit that are used up.
    taken: u64,
    image_size: u64,
    owners: bool,
    devices: bool,
    reporter: &'a Reporter,
    /// The directories on the way, without the root.
    open: Vec<Open>,
    /// Files that have several names, by what makes them the same; they are in `staging` under these numbers.
    links: HashMap<(u32, u64, u32), usize>,
    /// A directory with another name of each of them, so that none has to be looked for by its path.
    staging: Option<Partial>,
    summary: ExtractSummary,
    buffer: Vec<u8>,
}

impl<S: Source<Error = io::Error>> Job<'_, S> {
    fn shown(&self) -> PathBuf {
        self.shown.join(OsStr::from_bytes(&self.path))
    }

    fn failed(&self, action: &'static str, error: impl Into<io::Error>) -> Error {
        Error::io(action, self.shown(), error)
    }

    fn unreadable(&self, error: ReadError<io::Error>) -> Error {
        self.failed("read", error)
    }

    /// Makes everything. A directory gets its attributes when everything is in it: with them, nothing could be put into
    /// some.
    fn run(&mut self) -> Result<(), Error> {
        let root = *self.volume.root();
        // The walk sees to it that no directory comes twice.
        let walk = self.volume.walk(&root).map_err(|error| self.unreadable(error))?;
        for entry in walk {
            let entry = entry.map_err(|error| self.unreadable(error))?;
            while self.cursor.depth() > entry.depth {
                self.leave()?;
            }
            let above = self.path.len();
            if above > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(entry.name.as_bytes());
            self.make(&entry)?;
            self.summary.entries += 1;
            self.report()?;
            if entry.node.is_directory() {
                self.open.push(Open { node: entry.node, above });
            } else {
                self.path.truncate(above);
            }
        }
        while self.cursor.depth() > 0 {
            self.leave()?;
        }
        let root_fd = self.cursor.here().try_clone_to_owned().map_err(|error| self.failed("open", error))?;
        self.attributes(root_fd.as_fd(), &root)
    }

    fn report(&self) -> Result<(), Error> {
        self.reporter.report(Progress {
            phase: Phase::Writing,
            files: self.summary.entries,
            files_total: 0,
            bytes: self.summary.bytes,
            bytes_total: self.image_size,
        })
    }

    /// Counts what something takes on a disk.
    fn take(&mut self, bytes: u64) -> Result<(), Error> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.limit {
            return Err(Error::Bomb { limit: self.limit, size: self.image_size });
        }
        Ok(())
    }

    /// Goes back to the directory above, and gives the one that is left its attributes.
    fn leave(&mut self) -> Result<(), Error> {
        let done = self.cursor.leave().map_err(|error| self.failed("leave", error))?;
        let Some(Open { node, above }) = self.open.pop() else { return Ok(()) };
        self.attributes(done.as_fd(), &node)?;
        self.path.truncate(above);
        Ok(())
    }

    /// Makes one thing, and goes into it if it is a directory.
    fn make(&mut self, entry: &WalkEntry) -> Result<(), Error> {
        let (name, node) = (&*entry.name, &entry.node);
        if node.is_directory() {
            self.take(DIRECTORY_SIZE)?;
            fs::mkdirat(self.cursor.here(), name, Mode::RWXU)
                .and_then(|()| self.cursor.enter(name))
                .map_err(|error| self.failed("make the directory", error))?;
            return Ok(());
        }
        let key = (node.serial.unwrap_or(0), node.size, node.extent);
        let several = node.links > 1 && (node.serial.is_some_and(|serial| serial != 0) || node.size > 0);
        if several && let Some(number) = self.links.get(&key) {
            return self.link(*number, name);
        }
        match node.kind {
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = fs::openat(self.cursor.here(), name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(|error| self.failed("make", error))?;
                self.fill(&file, node)?;
                self.attributes(file.as_fd(), node)?;
            }
            Kind::Symlink => {
                let mut buffer = [0; crate::format::SYMLINK_MAX];
                let target = self.volume.read_link(node, &mut buffer);
                let target = target.map_err(|error| self.unreadable(error))?;
                if target.len() >= INLINE_LINK {
                    self.take(DIRECTORY_SIZE)?;
                }
                fs::symlinkat(OsStr::from_bytes(target), self.cursor.here(), name)
                    .map_err(|error| self.failed("make the symbolic link", error))?;
                self.attributes_at(name, node)?;
            }
            Kind::Fifo | Kind::CharacterDevice | Kind::BlockDevice | Kind::Socket => {
                let kind = match node.kind {
                    Kind::Fifo => FileType::Fifo,
                    Kind::Socket => FileType::Socket,
                    _ if !self.devices => {
                        let warning = Warning { path: self.shown(), kind: WarningKind::DeviceWithoutRoot };
                        self.summary.warnings.push(warning);
                        return Ok(());
                    }
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                let device = fs::makedev(node.device.0, node.device.1);
                fs::mknodat(self.cursor.here(), name, kind, Mode::RUSR | Mode::WUSR, device)
                    .map_err(|error| self.failed("make", error))?;
                self.attributes_at(name, node)?;
                let mode = Mode::from_raw_mode(node.mode & 0o7777);
                fs::chmodat(self.cursor.here(), name, mode, AtFlags::empty())
                    .map_err(|error| self.failed("set the permissions of", error))?;
            }
            Kind::Directory => {}
        }
        if several { self.stage(key, name) } else { Ok(()) }
    }

    /// Keeps another name of a file that has several.
    fn stage(&mut self, key: (u32, u64, u32), name: &OsStr) -> Result<(), Error> {
        if self.staging.is_none() {
            self.staging = Some(Partial::beside(self.shown)?);
        }
        let Some(staging) = &self.staging else { return Ok(()) };
        let number = self.links.len();
        fs::linkat(self.cursor.here(), name, &staging.fd, number.to_string(), AtFlags::empty())
            .map_err(|error| self.failed("make a link to", error))?;
        self.links.insert(key, number);
        Ok(())
    }

    /// Gives a file another name.
    fn link(&self, number: usize, name: &OsStr) -> Result<(), Error> {
        let Some(staging) = &self.staging else { return Ok(()) };
        fs::linkat(&staging.fd, number.to_string(), self.cursor.here(), name, AtFlags::empty())
            .map_err(|error| self.failed("make the link", error))
    }

    /// Writes the contents of a file.
    fn fill(&mut self, file: &OwnedFd, node: &Node) -> Result<(), Error> {
        self.take(node.size)?;
        fs::ftruncate(file, node.size).map_err(|error| self.failed("write", error))?;
        let before = self.summary.bytes;
        let mut reader = self.volume.open_node(node).map_err(|error| self.unreadable(error))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(data) = reader.skip_holes() {
            let (at, length) =
                (reader.position(), buffer.len().min(usize::try_from(data).unwrap_or(usize::MAX)));
            let part = &mut buffer[..length];
            reader.read_exact(part).map_err(|error| self.failed("read", error))?;
            write_data(file, at, part).map_err(|error| self.failed("write", error))?;
            self.summary.bytes = before + reader.position();
            self.report()?;
        }
        self.buffer = buffer;
        self.summary.bytes = before + node.size;
        Ok(())
    }

    /// Sets the owner, the permissions and the time of an open file, in this order: a change of the owner takes
    /// permissions away.
    fn attributes(&mut self, file: BorrowedFd<'_>, node: &Node) -> Result<(), Error> {
        if self.owners {
            let (user, group) = owner(node);
            fs::fchown(file, user, group).map_err(|error| self.failed("set the owner of", error))?;
        }
        let mut mode = node.mode & 0o7777;
        if !self.owners {
            // Who these bits would give power over would be another.
            mode &= 0o1777;
        }
        fs::fchmod(file, Mode::from_raw_mode(mode))
            .map_err(|error| self.failed("set the permissions of", error))?;
        if let Some(times) = times(node.time) {
            fs::futimens(file, &times).map_err(|error| self.failed("set the time of", error))?;
        }
        Ok(())
    }

    /// The same by name, for what cannot be opened, without the permissions.
    fn attributes_at(&mut self, name: &OsStr, node: &Node) -> Result<(), Error> {
        if self.owners {
            let (user, group) = owner(node);
            fs::chownat(self.cursor.here(), name, user, group, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("set the owner of", error))?;
        }
        if let Some(times) = times(node.time) {
            fs::utimensat(self.cursor.here(), name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.failed("set the time of", error))?;
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
