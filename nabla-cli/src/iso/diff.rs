//! `nabla iso diff`.

use super::image::{self, kind};
use crate::output;
use anyhow::Context;
use clap::Args;
use nabla_iso::reader::{ImageFile, Kind, Node, Volume};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "\
Examples:
  nabla iso diff rootfs.iso rootfs
  # only names, kinds and contents
  nabla iso diff rootfs.iso rootfs --ignore mode,owner,time

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

#[derive(Debug, Serialize)]
struct Report {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    differences: Vec<Difference>,
}

/// Compares.
pub fn main(args: &DiffArgs) -> anyhow::Result<u8> {
    let volume = image::open(&args.image)?;
    let shown = || format!("cannot read '{}'", args.image.display());
    let mut nodes = BTreeMap::new();
    nodes.insert(PathBuf::new(), *volume.root());
    for entry in volume.walk(volume.root()).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        nodes.insert(entry.path, entry.node);
    }
    let mut comparison = Comparison { args, volume: &volume, differences: Vec::new() };
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let place = args.directory.join(&path);
        let failed = || format!("cannot read '{}'", place.display());
        let metadata =
            if path.as_os_str().is_empty() { fs::metadata(&place) } else { fs::symlink_metadata(&place) };
        let metadata = metadata.with_context(failed)?;
        match nodes.remove(&path) {
            Some(node) => comparison.compare(&path, &node, &place, &metadata)?,
            None => comparison.add(&path, "only in the directory", None, None),
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&place).with_context(failed)? {
                pending.push(path.join(entry.with_context(failed)?.file_name()));
            }
        }
    }
    for path in nodes.keys() {
        comparison.add(path, "only in the image", None, None);
    }
    let mut differences = comparison.differences;
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    let status = u8::from(!differences.is_empty());
    if args.json {
        output::print_json(&Report { kind: "nabla.iso.diff", version: 1, differences })?;
    } else {
        let mut text = String::new();
        for Difference { path, what, image, directory } in &differences {
            let line = match (image, directory) {
                (Some(image), Some(directory)) => {
                    format!("{path}: {what}: {image} in the image, {directory} in the directory")
                }
                _ => format!("{path}: {what}"),
            };
            text += &output::one_line(&line);
            text.push('\n');
        }
        output::print(text.as_bytes())?;
    }
    Ok(status)
}

struct Comparison<'a> {
    args: &'a DiffArgs,
    volume: &'a Volume<ImageFile>,
    differences: Vec<Difference>,
}

impl Comparison<'_> {
    fn add(&mut self, path: &Path, what: &'static str, image: Option<String>, directory: Option<String>) {
        let path = Path::new("/").join(path).display().to_string();
        self.differences.push(Difference { path, what, image, directory });
    }

    fn differ<T: PartialEq + ToString>(&mut self, path: &Path, what: &'static str, image: &T, directory: &T) {
        if image != directory {
            self.add(path, what, Some(image.to_string()), Some(directory.to_string()));
        }
    }

    fn compare(&mut self, path: &Path, node: &Node, place: &Path, there: &Metadata) -> anyhow::Result<()> {
        let kind_there = kind_of(there);
        if node.kind != kind_there {
            self.differ(path, "kind", &kind(node.kind), &kind(kind_there));
            return Ok(());
        }
        let ignores = |what| self.args.ignore.contains(&what);
        let (mode, owner, time) =
            (!ignores(Ignored::Mode), !ignores(Ignored::Owner), !ignores(Ignored::Time));
        if mode && node.kind != Kind::Symlink {
            let octal = |mode: u32| format!("{:04o}", mode & 0o7777);
            self.differ(path, "mode", &octal(node.mode), &octal(there.mode()));
        }
        if owner {
            let pair = |uid, gid| format!("{uid}:{gid}");
            self.differ(path, "owner", &pair(node.uid, node.gid), &pair(there.uid(), there.gid()));
        }
        if time {
            let seconds = node.time.map_or_else(|| "none".to_owned(), |time| time.seconds.to_string());
            self.differ(path, "time", &seconds, &there.mtime().to_string());
        }
        match node.kind {
            Kind::File => self.contents(path, node, place, there)?,
            Kind::Symlink => {
                let mut buffer = [0; 4096];
                let target = self.volume.read_link(node, &mut buffer)?;
                let other = fs::read_link(place)?;
                if target != other.as_os_str().as_bytes() {
                    let target = String::from_utf8_lossy(target).into_owned();
                    self.differ(path, "target", &target, &other.display().to_string());
                }
            }
            Kind::CharacterDevice | Kind::BlockDevice => {
                let (major, minor) = (rustix::fs::major(there.rdev()), rustix::fs::minor(there.rdev()));
                self.differ(
                    path,
                    "device",
                    &format!("{}:{}", node.device.0, node.device.1),
                    &format!("{major}:{minor}"),
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn contents(&mut self, path: &Path, node: &Node, place: &Path, there: &Metadata) -> anyhow::Result<()> {
        if node.size != there.len() {
            self.differ(path, "size", &node.size, &there.len());
            return Ok(());
        }
        let failed = || format!("cannot read '{}'", place.display());
        let mut file = File::open(place).with_context(failed)?;
        let (mut ours, mut theirs) = (vec![0; 128 << 10], vec![0; 128 << 10]);
        let mut at = 0;
        loop {
            let length = self.volume.read_file(node, at, &mut ours)?;
            if length == 0 {
                return Ok(());
            }
            let same = match file.read_exact(&mut theirs[..length]) {
                Ok(()) => ours[..length] == theirs[..length],
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
                Err(error) => return Err(error).with_context(failed),
            };
            if !same {
                self.add(path, "contents", None, None);
                return Ok(());
            }
            at += length as u64;
        }
    }
}

fn kind_of(metadata: &Metadata) -> Kind {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Symlink
    } else if kind.is_char_device() {
        Kind::CharacterDevice
    } else if kind.is_block_device() {
        Kind::BlockDevice
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        Kind::File
    }
}
