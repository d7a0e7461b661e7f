//! `nabla iso diff`.

use super::image::{self, Stdout, kind};
use crate::output::{self, shown};
use anyhow::{Context, ensure};
use clap::Args;
use nabla_iso::reader::{ImageFile, Kind, Node, Volume};
use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat},
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

const EXAMPLES: &str = "\
Examples:
  nabla iso diff rootfs.iso rootfs
  # only names, kinds and contents
  nabla iso diff rootfs.iso rootfs --ignore mode,owner,time

Of a directory that only one of them has, nothing else is said.

Exit status: 0 when they are the same, 1 when they differ, 125 when something could not be read.";

/// Arguments of `nabla iso diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// The image.
    image: PathBuf,

    /// The directory.
    directory: PathBuf,

    /// What may differ.
    #[arg(long, value_delimiter = ',', value_enum)]
    ignore: Vec<Ignored>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Ignored {
    Mode,
    Owner,
    Time,
}

#[derive(Debug, Serialize)]
struct Difference {
    path: String,
    /// What differs, or in which of the two the path is.
    what: &'static str,
    image: Option<String>,
    directory: Option<String>,
}

/// Compares.
pub fn main(args: &DiffArgs) -> anyhow::Result<u8> {
    let volume = image::open(&args.image)?;
    let failed = || format!("cannot read '{}'", args.directory.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = fs::open(&args.directory, flags, Mode::empty()).with_context(failed)?;
    let stat = fs::fstat(&here).with_context(failed)?;
    let mut comparison = Comparison {
        args,
        volume: &volume,
        stdout: Stdout::new(),
        differences: 0,
        here,
        open: Vec::new(),
        path: Vec::new(),
        buffers: [vec![0; 128 << 10], vec![0; 128 << 10]],
    };
    if args.json {
        comparison.stdout.write(b"{\"type\":\"nabla.iso.diff\",\"version\":1,\"differences\":[")?;
    }
    comparison.run(&stat)?;
    let Comparison { mut stdout, differences, .. } = comparison;
    if args.json {
        stdout.write(b"\n]}\n")?;
    }
    stdout.finish()?;
    Ok(u8::from(differences > 0))
}

/// A directory that is being compared.
struct Open {
    /// Names in the directory of the host that were not met in the image; nothing where there is no such directory, which
    /// has been told.
    names: Option<BTreeSet<OsString>>,
    /// Device and inode of the one above.
    above: (u64, u64),
    /// How long its path is.
    path: usize,
}

/// Both trees are gone through at once, with one descriptor and without keeping paths of entries: whole paths of deep
/// trees can be much larger than the image.
struct Comparison<'a> {
    args: &'a DiffArgs,
    volume: &'a Volume<ImageFile>,
    stdout: Stdout,
    differences: u64,
    /// The directory of the host where the comparison is.
    here: OwnedFd,
    open: Vec<Open>,
    /// The path of what is being compared.
    path: Vec<u8>,
    buffers: [Vec<u8>; 2],
}

impl Comparison<'_> {
    fn run(&mut self, root: &Stat) -> anyhow::Result<()> {
        let failed = || format!("cannot read '{}'", self.args.image.display());
        let node = *self.volume.root();
        let walk = self.volume.walk(&node).with_context(failed)?;
        self.compare(OsStr::new("."), &node, root)?;
        self.enter((0, 0))?;
        for entry in walk {
            let entry = entry.with_context(|| format!("cannot read '{}'", self.args.image.display()))?;
            while self.open.len() > entry.depth + 1 {
                self.leave()?;
            }
            let Some(above) = self.open.last_mut() else { break };
            let Some(names) = &mut above.names else {
                // Told with the directory that it is in.
                if entry.node.is_directory() {
                    self.open.push(Open { names: None, above: (0, 0), path: self.path.len() });
                }
                continue;
            };
            let is_there = names.remove(&entry.name);
            self.path.push(b'/');
            self.path.extend_from_slice(entry.name.as_bytes());
            let mut is_directory = false;
            if is_there {
                let stat = fs::statat(&self.here, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
                let stat = stat.with_context(|| self.place())?;
                is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                self.compare(&entry.name, &entry.node, &stat)?;
            } else {
                self.add("only in the image", None, None)?;
            }
            if !entry.node.is_directory() {
                self.path.truncate(self.path.len() - entry.name.len() - 1);
            } else if is_directory {
                let above = fs::fstat(&self.here).with_context(|| self.place())?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = fs::openat(&self.here, &entry.name, flags, Mode::empty());
                self.here = below.with_context(|| self.place())?;
                self.enter((above.st_dev, above.st_ino))?;
            } else {
                self.open.push(Open { names: None, above: (0, 0), path: self.path.len() });
                self.path.truncate(self.path.len() - entry.name.len() - 1);
            }
        }
        while !self.open.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    /// Begins with the directory that is open.
    fn enter(&mut self, above: (u64, u64)) -> anyhow::Result<()> {
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(&self.here).with_context(|| self.place())? {
            let entry = entry.with_context(|| self.place())?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.insert(OsStr::from_bytes(name).to_owned());
            }
        }
        self.open.push(Open { names: Some(names), above, path: self.path.len() });
        Ok(())
    }

    /// Ends with a directory, and goes back to the one above.
    fn leave(&mut self) -> anyhow::Result<()> {
        let Some(Open { names: Some(names), above, path }) = self.open.pop() else { return Ok(()) };
        self.path.truncate(path);
        for name in names {
            self.path.push(b'/');
            self.path.extend_from_slice(name.as_bytes());
            self.add("only in the directory", None, None)?;
            self.path.truncate(path);
        }
        if self.open.is_empty() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let back = fs::openat(&self.here, "..", flags, Mode::empty()).with_context(|| self.place())?;
        let stat = fs::fstat(&back).with_context(|| self.place())?;
        ensure!((stat.st_dev, stat.st_ino) == above, "{}: it was moved meanwhile", self.place());
        self.here = back;
        let end = self.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        self.path.truncate(end);
        Ok(())
    }

    fn place(&self) -> String {
        let path = OsStr::from_bytes(self.path.strip_prefix(b"/").unwrap_or(&self.path));
        format!("cannot read '{}'", self.args.directory.join(path).display())
    }

    fn add(
        &mut self,
        what: &'static str,
        image: Option<String>,
        directory: Option<String>,
    ) -> anyhow::Result<()> {
        let path = if self.path.is_empty() { b"/" } else { &self.path[..] };
        let mut line = Vec::new();
        if self.args.json {
            let path = String::from_utf8_lossy(path).into_owned();
            line.extend_from_slice(if self.differences == 0 { b"\n" } else { b",\n" });
            let difference = Difference { path, what, image, directory };
            line.extend_from_slice(output::json(&difference)?.as_bytes());
        } else {
            let path = shown(path);
            let text = match (image, directory) {
                (Some(image), Some(directory)) => {
                    format!("{path}: {what}: {image} in the image, {directory} in the directory\n")
                }
                _ => format!("{path}: {what}\n"),
            };
            line.extend_from_slice(text.as_bytes());
        }
        self.differences += 1;
        self.stdout.write(&line).map(drop)
    }

    fn differ<T: PartialEq + ToString>(
        &mut self,
        what: &'static str,
        image: &T,
        directory: &T,
    ) -> anyhow::Result<()> {
        if image != directory {
            self.add(what, Some(image.to_string()), Some(directory.to_string()))?;
        }
        Ok(())
    }

    fn compare(&mut self, name: &OsStr, node: &Node, there: &Stat) -> anyhow::Result<()> {
        let kind_there = kind_of(there);
        if node.kind != kind_there {
            return self.differ("kind", &kind(node.kind), &kind(kind_there));
        }
        let ignores = |what| self.args.ignore.contains(&what);
        let (mode, owner, time) =
            (!ignores(Ignored::Mode), !ignores(Ignored::Owner), !ignores(Ignored::Time));
        if mode && node.kind != Kind::Symlink {
            let octal = |mode: u32| format!("{:04o}", mode & 0o7777);
            self.differ("mode", &octal(node.mode), &octal(there.st_mode))?;
        }
        if owner {
            let pair = |uid, gid| format!("{uid}:{gid}");
            self.differ("owner", &pair(node.uid, node.gid), &pair(there.st_uid, there.st_gid))?;
        }
        if time {
            let seconds = node.time.map_or_else(|| "none".to_owned(), |time| time.seconds.to_string());
            self.differ("time", &seconds, &there.st_mtime.to_string())?;
        }
        match node.kind {
            Kind::File => self.contents(name, node, there)?,
            Kind::Symlink => {
                let mut buffer = [0; 4096];
                let target = self.volume.read_link(node, &mut buffer).with_context(|| self.place())?;
                let other = fs::readlinkat(&self.here, name, Vec::new()).with_context(|| self.place())?;
                let target =
                    if self.args.json { String::from_utf8_lossy(target).into_owned() } else { shown(target) };
                let other = if self.args.json {
                    other.to_string_lossy().into_owned()
                } else {
                    shown(other.as_bytes())
                };
                self.differ("target", &target, &other)?;
            }
            Kind::CharacterDevice | Kind::BlockDevice => {
                let (major, minor) = (fs::major(there.st_rdev), fs::minor(there.st_rdev));
                let pair = |major, minor| format!("{major}:{minor}");
                self.differ("device", &pair(node.device.0, node.device.1), &pair(major, minor))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn contents(&mut self, name: &OsStr, node: &Node, there: &Stat) -> anyhow::Result<()> {
        let size = u64::try_from(there.st_size).unwrap_or(0);
        if node.size != size {
            return self.differ("size", &node.size, &size);
        }
        // It could have become a pipe meanwhile.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(&self.here, name, flags, Mode::empty()).with_context(|| self.place())?;
        let mut file = File::from(file);
        let mut contents = self.volume.open_node(node).with_context(|| self.place())?;
        let place = self.place();
        let [ours, theirs] = &mut self.buffers;
        loop {
            let length = contents.read(ours).with_context(|| place.clone())?;
            if length == 0 {
                return Ok(());
            }
            let same = match file.read_exact(&mut theirs[..length]) {
                Ok(()) => ours[..length] == theirs[..length],
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
                Err(error) => return Err(error).with_context(|| place),
            };
            if !same {
                return self.add("contents", None, None);
            }
        }
    }
}

fn kind_of(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::File,
    }
}
