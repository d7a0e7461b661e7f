//! `nabla iso ls`.

use super::image::{self, kind};
use crate::output;
use anyhow::Context;
use clap::Args;
use nabla_iso::reader::{ImageFile, Kind, Node, Volume};
use serde::Serialize;
use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "\
Examples:
  nabla iso ls rootfs.iso
  nabla iso ls -l rootfs.iso /etc
  # everything
  nabla iso ls -R rootfs.iso
  nabla iso ls -R --json rootfs.iso | jq -r '.entries[] | select(.kind == \"symlink\") | .path'

Times are UTC. On a terminal, control characters in names are escaped.

Exit status: 0, or 125 when something could not be read.";

/// Arguments of `nabla iso ls`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// The image.
    image: PathBuf,

    /// A directory or a file in it.
    #[arg(default_value = "/")]
    path: PathBuf,

    /// Show permissions, links, owners, sizes and times.
    #[arg(short)]
    long: bool,

    /// List directories below, too.
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// An entry as JSON has it.
#[derive(Debug, Serialize)]
struct Entry {
    path: String,
    kind: &'static str,
    mode: String,
    links: u32,
    uid: u32,
    gid: u32,
    size: u64,
    /// Seconds since 1970.
    time: Option<i64>,
    target: Option<String>,
    device: Option<[u32; 2]>,
}

#[derive(Debug, Serialize)]
struct Listing {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    image: String,
    volume_id: String,
    entries: Vec<Entry>,
}

/// Lists.
pub fn main(args: &ListArgs) -> anyhow::Result<u8> {
    let volume = image::open(&args.image)?;
    let wanted = args.path.as_os_str().as_bytes();
    let shown = || format!("cannot list '{}' of '{}'", args.path.display(), args.image.display());
    let start = volume.lookup_link(wanted).with_context(shown)?;
    let mut output = Output::new(args, &volume);
    if !start.is_directory() {
        output.add(&args.path, &start)?;
    } else if args.recursive {
        for entry in volume.walk(&start).with_context(shown)? {
            let entry = entry.with_context(shown)?;
            if !output.add(&entry.path, &entry.node)? {
                return Ok(0);
            }
        }
    } else {
        for entry in volume.read_dir(&start).with_context(shown)? {
            let entry = entry.with_context(shown)?;
            if !output.add(Path::new(OsStr::from_bytes(entry.name())), entry.node())? {
                return Ok(0);
            }
        }
    }
    output.finish()
}

struct Output<'a> {
    args: &'a ListArgs,
    volume: &'a Volume<ImageFile>,
    stdout: io::BufWriter<io::StdoutLock<'static>>,
    escape: bool,
    entries: Vec<Entry>,
}

impl<'a> Output<'a> {
    fn new(args: &'a ListArgs, volume: &'a Volume<ImageFile>) -> Self {
        let stdout = io::stdout();
        let escape = stdout.is_terminal();
        Self { args, volume, stdout: io::BufWriter::new(stdout.lock()), escape, entries: Vec::new() }
    }

    /// Prints an entry, or keeps it for JSON. False when the output has no reader any more.
    fn add(&mut self, path: &Path, node: &Node) -> anyhow::Result<bool> {
        let mut buffer = [0; 4096];
        let target = match node.kind {
            Kind::Symlink => Some(self.volume.read_link(node, &mut buffer)?),
            _ => None,
        };
        if self.args.json {
            self.entries.push(Entry {
                path: path.display().to_string(),
                kind: kind(node.kind),
                mode: format!("{:04o}", node.mode & 0o7777),
                links: node.links,
                uid: node.uid,
                gid: node.gid,
                size: node.size,
                time: node.time.map(|time| time.seconds),
                target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
                device: is_device(node.kind).then_some([node.device.0, node.device.1]),
            });
            return Ok(true);
        }
        let mut line = Vec::new();
        if self.args.long {
            line.extend_from_slice(details(node).as_bytes());
        }
        line.extend_from_slice(path.as_os_str().as_bytes());
        if let Some(target) = target.filter(|_| self.args.long) {
            line.extend_from_slice(b" -> ");
            line.extend_from_slice(target);
        }
        if self.escape {
            line = output::one_line(&String::from_utf8_lossy(&line)).into_bytes();
        }
        line.push(b'\n');
        self.written(|stdout| stdout.write_all(&line))
    }

    fn finish(mut self) -> anyhow::Result<u8> {
        if self.args.json {
            output::print_json(&Listing {
                kind: "nabla.iso.listing",
                version: 1,
                image: self.args.image.display().to_string(),
                volume_id: String::from_utf8_lossy(self.volume.descriptor().volume_name()).into_owned(),
                entries: self.entries,
            })?;
        } else {
            self.written(Write::flush)?;
        }
        Ok(0)
    }

    fn written(
        &mut self,
        write: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
    ) -> anyhow::Result<bool> {
        match write(&mut self.stdout) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot write to standard output"),
        }
    }
}

fn is_device(kind: Kind) -> bool {
    matches!(kind, Kind::CharacterDevice | Kind::BlockDevice)
}

/// What `ls -l` shows before a name.
fn details(node: &Node) -> String {
    let mut text = String::new();
    text.push(match node.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::CharacterDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    });
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = node.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (node.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    let size = if is_device(node.kind) {
        format!("{}, {}", node.device.0, node.device.1)
    } else {
        node.size.to_string()
    };
    let time = node.time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let _ = write!(text, " {:>3} {:>5} {:>5} {size:>11} {time:<20} ", node.links, node.uid, node.gid);
    text
}
