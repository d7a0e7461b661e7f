//! Says what goes into an image.

use crate::{
    error::Error,
    format::Timestamp,
    plan::{
        Label, Plan,
        layout::{Settings, plan},
    },
    progress::{Progress, Reporter},
    source::{
        entry::{Entry, add_directory},
        filter::{Excludes, Overrides},
        layer::Layer,
        spool::Spool,
        tree::{Metadata, Tree},
        walk::Walk,
    },
    tar::Input,
};
use std::{
    fmt,
    fs::File,
    io::Read,
    num::NonZero,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

/// The default limit of threads: more do not make it faster.
const MOST_THREADS: usize = 8;

/// Describes an image: where its files come from, in which order, and what is changed about them.
///
/// Sources are laid over each other in the order in which they were added: directories are merged, and of other files
/// with the same path the last one stays. Sources themselves are never changed.
///
/// ```
/// # fn main() -> Result<(), nabla_iso::Error> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let (rootfs, image) = (directory.path().join("rootfs"), directory.path().join("rootfs.iso"));
/// # std::fs::create_dir(&rootfs).unwrap();
/// use nabla_iso::{Entry, ImageBuilder};
///
/// let plan = ImageBuilder::new()
///     .directory(&rootfs)
///     .entry("/etc/hosts", Entry::bytes(*b"127.0.0.1 localhost\n"))
///     .exclude("*.pyc")
///     .plan()?;
/// assert_eq!(plan.entries(), 2);
/// plan.write_file(&image)?;
/// assert_eq!(std::fs::metadata(&image).unwrap().len(), plan.size());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct ImageBuilder {
    sources: Vec<Source>,
    excludes: Vec<String>,
    overrides: Overrides,
    skip: Vec<PathBuf>,
    one_file_system: bool,
    refuse_sockets: bool,
    joliet: bool,
    relocate: bool,
    deduplicate: bool,
    volume_id: String,
    threads: Option<NonZero<usize>>,
    sync: bool,
    reporter: Reporter,
}

enum Source {
    Directory(PathBuf, PathBuf),
    TarFile(PathBuf),
    Tar(String, Box<dyn Read + Send>),
    Entry(PathBuf, Entry),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path, place) => write!(f, "Directory({path:?}, {place:?})"),
            Self::TarFile(path) => write!(f, "TarFile({path:?})"),
            Self::Tar(name, _) => write!(f, "Tar({name:?})"),
            Self::Entry(path, entry) => write!(f, "Entry({path:?}, {entry:?})"),
        }
    }
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// An image with nothing but a root directory.
    pub fn new() -> Self {
        Self {
            sources: Vec::new(),
            excludes: Vec::new(),
            overrides: Overrides::default(),
            skip: Vec::new(),
            one_file_system: false,
            refuse_sockets: false,
            joliet: false,
            relocate: true,
            deduplicate: false,
            volume_id: "NABLA".to_owned(),
            threads: None,
            sync: false,
            reporter: Reporter::default(),
        }
    }

    /// Adds a directory of the host with everything in it, as the root.
    pub fn directory(self, path: impl Into<PathBuf>) -> Self {
        self.directory_at(path, "/")
    }

    /// Adds a directory of the host as the directory `place` of the image.
    pub fn directory_at(mut self, path: impl Into<PathBuf>, place: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::Directory(path.into(), place.into()));
        self
    }

    /// Adds a tar file, as a layer of a container image: whiteouts remove what is below it. It must not be compressed. Its
    /// bytes are taken from it when the image is written.
    pub fn tar_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::TarFile(path.into()));
        self
    }

    /// Adds a tar stream, as [`Self::tar_file`]. `name` is what errors call it. The contents of its files are kept in an
    /// unnamed temporary file until the plan is dropped.
    pub fn tar(mut self, name: impl Into<String>, stream: impl Read + Send + 'static) -> Self {
        self.sources.push(Source::Tar(name.into(), Box::new(stream)));
        self
    }

    /// Adds something at a path of the image. Directories on the way that are missing are made.
    pub fn entry(mut self, path: impl Into<PathBuf>, entry: Entry) -> Self {
        self.sources.push(Source::Entry(path.into(), entry));
        self
    }

    /// Leaves files of directories and tar streams out, whose name (a pattern without a slash) or whose path from the
    /// source's root matches, directories with everything in them. `*` and `?` do not match slashes, `**` does;
    /// `[a-z]` is a set, `{a,b}` a choice.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excludes.push(pattern.into());
        self
    }

    /// Leaves one file of the host out of the directories that are added, by what it is and not by what it is called:
    /// the image, if it is among its own sources. A file that does not exist does no harm.
    pub fn skip(mut self, path: impl Into<PathBuf>) -> Self {
        self.skip.push(path.into());
        self
    }

    /// Gives all files of directories and tar streams to this user and group.
    pub const fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.overrides.uid, self.overrides.gid) = (Some(uid), Some(gid));
        self
    }

    /// Gives all files of directories and tar streams that are no directories or symbolic links these permissions, the lower
    /// twelve bits of `st_mode`.
    pub const fn file_mode(mut self, mode: u32) -> Self {
        self.overrides.file_mode = Some(mode & 0o7777);
        self
    }

    /// The same for directories.
    pub const fn directory_mode(mut self, mode: u32) -> Self {
        self.overrides.directory_mode = Some(mode & 0o7777);
        self
    }

    /// Gives everything this time of the last modification.
    pub const fn time(mut self, time: Timestamp) -> Self {
        self.overrides.time = Some(time);
        self
    }

    /// Makes later times this one, as the variable `SOURCE_DATE_EPOCH` wants it. (It is not looked at here.)
    pub const fn latest_time(mut self, time: Timestamp) -> Self {
        self.overrides.latest = Some(time);
        self
    }

    /// Leaves directories empty that are on another file system than the one that was added.
    pub const fn one_file_system(mut self, yes: bool) -> Self {
        self.one_file_system = yes;
        self
    }

    /// Makes sockets errors. Otherwise they are left out, with a [warning](Plan::warnings).
    pub const fn refuse_sockets(mut self, yes: bool) -> Self {
        self.refuse_sockets = yes;
        self
    }

    /// Adds the directories once more for systems that know Joliet and not Rock Ridge.
    pub const fn joliet(mut self, yes: bool) -> Self {
        self.joliet = yes;
        self
    }

    /// Whether directories below the eighth level are recorded elsewhere, as ECMA-119 wants it and Rock Ridge hides
    /// it. Without, the image is read by everybody who is known, too. Default: yes.
    pub const fn relocate(mut self, yes: bool) -> Self {
        self.relocate = yes;
        self
    }

    /// Finds files with the same contents and stores these once. All files of a size that another one has are read for
    /// that.
    pub const fn deduplicate(mut self, yes: bool) -> Self {
        self.deduplicate = yes;
        self
    }

    /// The volume's name: 1 to 32 printable ASCII characters. Default: `NABLA`.
    pub fn volume_id(mut self, name: impl Into<String>) -> Self {
        self.volume_id = name.into();
        self
    }

    /// How many threads walk, compare and write. The image does not depend on it. Default: the processors that this program
    /// may use, 8 at most.
    pub const fn threads(mut self, threads: NonZero<usize>) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Whether a written image must have reached the disk before it gets its name. Default: no.
    pub const fn sync(mut self, yes: bool) -> Self {
        self.sync = yes;
        self
    }

    /// Calls `callback` with the progress, from any thread. If it returns [`ControlFlow::Break`], the work ends with
    /// [`Error::Cancelled`].
    pub fn progress(
        mut self,
        callback: impl Fn(Progress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        self.reporter = Reporter::new(callback);
        self
    }

    /// Looks at all sources and gives every byte its place.
    ///
    /// Only names and attributes are read, unless equal files are to be found, and streams.
    ///
    /// # Errors
    ///
    /// A source cannot be read, an entry cannot be added, a setting is wrong, or the image would be too large.
    pub fn plan(self) -> Result<Plan, Error> {
        let volume_id = self.volume_id.as_bytes();
        if volume_id.is_empty() || volume_id.len() > 32 || !volume_id.iter().all(|b| matches!(b, b' '..=b'~'))
        {
            return Err(Error::VolumeId { name: self.volume_id });
        }
        let mut excludes = Excludes::default();
        for pattern in &self.excludes {
            excludes.add(pattern)?;
        }
        let threads = self.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let threads = if self.threads.is_some() { threads } else { threads.min(MOST_THREADS) };
        let skip: Vec<(u64, u64)> = self
            .skip
            .iter()
            .filter_map(|path| std::fs::symlink_metadata(path).ok())
            .map(|stat| (stat.dev(), stat.ino()))
            .collect();
        let overrides = self.overrides;
        let time = overrides.time.or(overrides.latest).unwrap_or_default();
        let reporter = self.reporter;
        let walk = Walk {
            excludes: &excludes,
            overrides: &overrides,
            one_file_system: self.one_file_system,
            refuse_sockets: self.refuse_sockets,
            skip: &skip,
            threads,
            reporter: &reporter,
        };
        let mut tree = Tree::new(Metadata::implied(0o755, time));
        let mut spool = None;
        for source in self.sources {
            add(source, &mut tree, &mut spool, &walk, time)?;
            tree.layer = tree.layer.checked_add(1).ok_or(Error::TooMany)?;
        }
        let settings = Settings {
            label: Label { id: self.volume_id, time: overrides.time.map(|time| time.seconds) },
            joliet: self.joliet,
            relocate: self.relocate,
            deduplicate: self.deduplicate,
            threads,
            sync: self.sync,
        };
        plan(tree, settings, reporter)
    }
}

/// Lays a source over what is there.
fn add(
    source: Source,
    tree: &mut Tree,
    spool: &mut Option<Spool>,
    walk: &Walk<'_>,
    time: Timestamp,
) -> Result<(), Error> {
    let layer = |name: String, file: Option<u32>| Layer {
        name,
        excludes: walk.excludes,
        overrides: walk.overrides,
        time,
        file,
        reporter: walk.reporter,
    };
    match source {
        Source::Directory(path, place) => {
            let inode = add_directory(tree, &place, &Metadata::implied(0o755, time), time)?;
            walk.run(tree, &path, inode)
        }
        Source::Entry(path, entry) => entry.add(tree, spool, &path, time),
        Source::Tar(name, stream) => layer(name, None).add(tree, spool, Input::stream(stream)),
        Source::TarFile(path) => {
            let (input, file) = open_tar(tree, &path)?;
            layer(format!("'{}'", path.display()), file).add(tree, spool, input)
        }
    }
}

/// Opens a tar file. If it is one from which bytes can be taken later, it stays open among the sources.
fn open_tar(tree: &mut Tree, path: &Path) -> Result<(Input, Option<u32>), Error> {
    let failed = |error| Error::io("open", path, error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::Unsupported {
            path: path.to_owned(),
            why: "a tar file is wanted, and it is a directory",
        });
    }
    if !metadata.is_file() {
        return Ok((Input::stream(Box::new(file)), None));
    }
    let own = file.try_clone().map_err(failed)?;
    let number = u32::try_from(tree.sources.files.len()).map_err(|_| Error::TooMany)?;
    tree.sources.files.push((path.to_owned(), own));
    Ok((Input::file(file, metadata.len()), Some(number)))
}
