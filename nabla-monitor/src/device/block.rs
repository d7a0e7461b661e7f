//! Block devices: files and block devices of the host.

use super::{Access, DeviceError, DeviceProperties, DeviceSource, OpenDevice};
use nabla_core::{Attachment, ByteSize, DeviceKind, block_size_is_valid};
use rustix::{
    fs::{FlockOperation, OFlags},
    io::Errno,
};
use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Bytes of a block of a disk unless set: 512.
pub const DEFAULT_BLOCK_SIZE: u16 = 512;

/// A block device of a guest: a file or a block device of the host, read and written in place.
///
/// Nothing is opened before the guest starts.
///
/// ```
/// use nabla_monitor::BlockDevice;
///
/// let block = BlockDevice::new("rootfs.iso").read_only().block_size(2048);
/// # let _ = block;
/// ```
#[derive(Debug)]
pub struct BlockDevice {
    source: Source,
    read_only: bool,
    block_size: Option<u32>,
    lock: bool,
}

#[derive(Debug)]
enum Source {
    Path(PathBuf),
    Descriptor(OwnedFd),
}

impl BlockDevice {
    /// The file or block device at `path`, to be read and written. A block device is opened exclusively (`O_EXCL`), so not
    /// while it is mounted.
    ///
    /// ```
    /// let device = nabla_monitor::BlockDevice::new("/dev/vg0/guest");
    /// ```
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::Path(path.into()), read_only: false, block_size: None, lock: true }
    }

    /// An open file or block device. Whether it can be written is decided by how it was opened; `read_only` on
    /// top of it only changes how it is locked.
    ///
    /// ```
    /// use nabla_monitor::BlockDevice;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("disk.img");
    /// # std::fs::write(&path, [0; 512])?;
    /// let file = std::fs::File::open(path)?; // for reading only, so the guest can only read
    /// let device = BlockDevice::from_fd(file.into());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn from_fd(descriptor: OwnedFd) -> Self {
        Self { source: Source::Descriptor(descriptor), read_only: false, block_size: None, lock: true }
    }

    /// Opens it for reading only. The guest's writes then fail.
    ///
    /// ```
    /// let device = nabla_monitor::BlockDevice::new("rootfs.iso").read_only();
    /// ```
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Bytes of a block: a power of two from 512 to 32768. [`DEFAULT_BLOCK_SIZE`] unless set.
    ///
    /// ```
    /// let device = nabla_monitor::BlockDevice::new("rootfs.iso").block_size(2048);
    /// ```
    #[must_use]
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = Some(bytes);
        self
    }

    /// Does without the lock. By default a disk that is written is locked (`flock`) against every other guest and
    /// one that is read against writers, as long as the guest runs.
    ///
    /// ```
    /// // A file system for clusters, which does its own locking.
    /// let device = nabla_monitor::BlockDevice::new("shared.img").unlocked();
    /// ```
    #[must_use]
    pub fn unlocked(mut self) -> Self {
        self.lock = false;
        self
    }

    fn name(&self) -> BlockName {
        match &self.source {
            Source::Path(path) => BlockName(Some(path.clone())),
            Source::Descriptor(_) => BlockName(None),
        }
    }
}

impl DeviceSource for BlockDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Block
    }

    fn open(self: Box<Self>) -> Result<OpenDevice, DeviceError> {
        Ok((*self).open_block()?)
    }
}

impl BlockDevice {
    fn open_block(self) -> Result<OpenDevice, BlockError> {
        let name = self.name();
        let fail = |kind| BlockError { disk: name.clone(), kind };
        let requested = self.block_size.unwrap_or(DEFAULT_BLOCK_SIZE.into());
        let block_size = u16::try_from(requested)
            .ok()
            .filter(|&size| block_size_is_valid(size.into()))
            .ok_or_else(|| fail(BlockErrorKind::BlockSize { block_size: requested }))?;
        let descriptor = match self.source {
            Source::Path(path) => open_path(&path, self.read_only).map_err(fail)?,
            Source::Descriptor(descriptor) => descriptor,
        };
        let flags = rustix::fs::fcntl_getfl(&descriptor).unwrap_or(OFlags::empty());
        if flags.contains(OFlags::APPEND) {
            return Err(fail(BlockErrorKind::Append));
        }
        let read_only = flags & OFlags::ACCMODE == OFlags::RDONLY;
        let capacity = capacity(descriptor.as_fd()).map_err(fail)?;
        let unit = u64::from(block_size);
        if capacity < unit {
            return Err(fail(BlockErrorKind::TooSmall { capacity, block_size }));
        }
        if !capacity.is_multiple_of(unit) {
            return Err(fail(BlockErrorKind::Unaligned { capacity, block_size }));
        }
        if self.lock {
            lock(descriptor.as_fd(), self.read_only).map_err(fail)?;
        }
        let properties =
            DeviceProperties::Block(BlockInfo { path: name.0.clone(), capacity, block_size, read_only });
        Ok(OpenDevice { descriptor, properties })
    }
}

/// A block device that a guest has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockInfo {
    /// The path of the file or block device, where it was given by path.
    pub path: Option<PathBuf>,
    /// Its size in bytes.
    pub capacity: u64,
    /// Bytes of a block.
    pub block_size: u16,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

impl BlockInfo {
    pub(super) fn access(&self) -> Access {
        Access::Blocks { block_size: self.block_size, capacity: self.capacity }
    }

    pub(super) fn attachment(&self, descriptor: i32) -> Attachment {
        Attachment::Block { capacity: self.capacity, block_size: self.block_size, descriptor }
    }
}

impl fmt::Display for BlockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block, {} bytes in blocks of {}", self.capacity, self.block_size)
    }
}

impl<T: Into<PathBuf>> From<T> for BlockDevice {
    fn from(path: T) -> Self {
        Self::new(path)
    }
}

fn open_path(path: &Path, read_only: bool) -> Result<OwnedFd, BlockErrorKind> {
    use rustix::fs::{FileType, Mode, stat};
    // Without NONBLOCK, a fifo would block until its other end is opened.
    let mut flags =
        OFlags::CLOEXEC | OFlags::NONBLOCK | if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    // Of a block device, EXCL claims it against file systems, swap, volume managers, and others who claim it.
    let is_block = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    if !read_only && stat(path).is_ok_and(is_block) {
        flags |= OFlags::EXCL;
    }
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        if flags.contains(OFlags::EXCL) && errno == Errno::BUSY {
            return BlockErrorKind::Claimed;
        }
        let writing =
            !read_only && matches!(errno, Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY);
        let source = io::Error::from(errno);
        if writing { BlockErrorKind::OpenForWriting { source } } else { BlockErrorKind::Open { source } }
    })
}

fn capacity(descriptor: BorrowedFd<'_>) -> Result<u64, BlockErrorKind> {
    use rustix::fs::FileType;
    let stat = rustix::fs::fstat(descriptor).map_err(|e| BlockErrorKind::Capacity { source: e.into() })?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => {}
        FileType::Directory => return Err(BlockErrorKind::NotADisk { what: "a directory" }),
        FileType::CharacterDevice => return Err(BlockErrorKind::NotADisk { what: "a character device" }),
        FileType::Fifo => return Err(BlockErrorKind::NotADisk { what: "a fifo" }),
        FileType::Socket => return Err(BlockErrorKind::NotADisk { what: "a socket" }),
        _ => return Err(BlockErrorKind::NotADisk { what: "something else" }),
    }
    rustix::fs::seek(descriptor, rustix::fs::SeekFrom::End(0))
        .map_err(|e| BlockErrorKind::Capacity { source: e.into() })
}

fn lock(descriptor: BorrowedFd<'_>, shared: bool) -> Result<(), BlockErrorKind> {
    let operation =
        if shared { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
    match rustix::fs::flock(descriptor, operation) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(BlockErrorKind::Locked { shared }),
        Err(errno) => Err(BlockErrorKind::Lock { source: errno.into() }),
    }
}

/// A disk in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BlockName(Option<PathBuf>);

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => write!(f, "disk '{}'", path.display()),
            None => f.write_str("the disk given as a descriptor"),
        }
    }
}

/// Why a disk cannot be attached.
#[derive(Debug)]
pub struct BlockError {
    disk: BlockName,
    /// What is wrong.
    pub kind: BlockErrorKind,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.disk, self.kind)
    }
}

impl std::error::Error for BlockError {
    /// That of the [kind](Self::kind), which is in the message already.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

impl BlockError {
    /// The disk's path, where it was given by path.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.disk.0.as_deref()
    }
}

/// See [`BlockError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlockErrorKind {
    /// It cannot be opened.
    #[error("cannot be opened")]
    Open {
        /// The system's reason.
        source: io::Error,
    },
    /// It cannot be opened for writing.
    #[error("cannot be opened for writing; attach it read-only if the guest only reads it")]
    OpenForWriting {
        /// The system's reason.
        source: io::Error,
    },
    /// It is a block device that the host uses itself.
    #[error(
        "is mounted or otherwise in use by this host, which would not notice what the guest writes; unmount it, or attach it read-only"
    )]
    Claimed,
    /// It is no file and no block device.
    #[error("is {what}, and must be a regular file or a block device")]
    NotADisk {
        /// What it is.
        what: &'static str,
    },
    /// Every write would go to its end.
    #[error("was opened for appending (O_APPEND), so every write would make it grow")]
    Append,
    /// Its size cannot be determined.
    #[error("its capacity cannot be determined")]
    Capacity {
        /// The system's reason.
        source: io::Error,
    },
    /// The block size is not one that a guest can have.
    #[error("block size {block_size} is not a power of two from 512 to 32768")]
    BlockSize {
        /// What was asked for.
        block_size: u32,
    },
    /// It does not have a single block.
    #[error("it has {}, and must have at least 1 block of {block_size} bytes", ByteSize::bytes(*.capacity))]
    TooSmall {
        /// Its size in bytes.
        capacity: u64,
        /// Bytes of a block.
        block_size: u16,
    },
    /// It is no whole number of blocks.
    #[error(
        "its size of {capacity} bytes is not a multiple of the block size {block_size}; pad it (truncate -s %{block_size} FILE) or choose another block size"
    )]
    Unaligned {
        /// Its size in bytes.
        capacity: u64,
        /// Bytes of a block.
        block_size: u16,
    },
    /// Another guest has it.
    #[error("{}", if *.shared {
        "is being written by another guest or program (it is locked)"
    } else {
        "is in use by another guest or program (it is locked); only read-only disks can be shared"
    })]
    Locked {
        /// Whether it was to be read only.
        shared: bool,
    },
    /// The lock cannot be taken for another reason.
    #[error("cannot be locked")]
    Lock {
        /// The system's reason.
        source: io::Error,
    },
}
