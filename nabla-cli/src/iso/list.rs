//! `nabla iso ls`.

use super::image::{self, Stdout, kind};
use crate::output::{self, shown};
use anyhow::{Context, ensure};
use clap::Args;
use nabla_iso::reader::{ImageFile, Kind, Node, Volume};
use serde::Serialize;
use std::{fmt::Write as _, os::unix::ffi::OsStrExt, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  nabla iso ls rootfs.iso
  nabla iso ls -l rootfs.iso /etc
  # everything
  nabla iso ls -R rootfs.iso
  nabla iso ls -R --json rootfs.iso | jq -r '.entries[] | select(.kind == \"symlink\") | .path'

Times are UTC. In names, control characters, bytes that are not UTF-8, and backslashes are escaped. Paths of over 4095 bytes \
are left out, which is an error at the end.

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

/// What comes before the entries.
#[derive(Debug, Serialize)]
struct Listing {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    image: String,
    volume_id: String,
}

/// Lists.
pub fn main(args: &ListArgs) -> anyhow::Result<u8> {
    let volume = image::open(&args.image)?;
    let wanted = args.path.as_os_str().as_bytes();
    let shown = || format!("cannot list '{}' of '{}'", args.path.display(), args.image.display());
    let start = volume.lookup_link(wanted).with_context(shown)?;
    let mut output = Output { args, volume: &volume, stdout: Stdout::new(), entries: 0 };
    if !output.begin()? {
        return Ok(0);
    }
    let mut too_long = 0_u64;
    if !start.is_directory() {
        output.add(wanted, &start)?;
    } else if args.recursive {
        let mut walk = volume.walk(&start).with_context(shown)?;
        while let Some(entry) = walk.next() {
            let node = entry.with_context(shown)?.node;
            let path = walk.path().as_os_str().as_bytes();
            if path.len() > image::PATH_MAX {
                too_long += 1;
            } else if !output.add(path, &node)? {
                return Ok(0);
            }
        }
    } else {
        for entry in volume.read_dir(&start).with_context(shown)? {
            let entry = entry.with_context(shown)?;
            if !output.add(entry.name(), entry.node())? {
                return Ok(0);
            }
        }
    }
    output.finish()?;
    ensure!(too_long == 0, "{too_long} files with paths of over {} bytes are not listed", image::PATH_MAX);
    Ok(0)
}

struct Output<'a> {
    args: &'a ListArgs,
    volume: &'a Volume<ImageFile>,
    stdout: Stdout,
    entries: u64,
}

impl Output<'_> {
    /// Prints what comes before the entries. Entries are printed as they come: there may be more than memory holds.
    fn begin(&mut self) -> anyhow::Result<bool> {
        if !self.args.json {
            return Ok(true);
        }
        let mut text = output::json(&Listing {
            kind: "nabla.iso.listing",
            version: 1,
            image: self.args.image.display().to_string(),
            volume_id: String::from_utf8_lossy(self.volume.descriptor().volume_name()).into_owned(),
        })?;
        // The object goes on with the entries.
        text.pop();
        text += ",\"entries\":[";
        self.stdout.write(text.as_bytes())
    }

    /// Prints an entry. False when nobody reads any more.
    fn add(&mut self, path: &[u8], node: &Node) -> anyhow::Result<bool> {
        let mut buffer = [0; 4096];
        let target = match node.kind {
            Kind::Symlink => Some(self.volume.read_link(node, &mut buffer)?),
            _ => None,
        };
        let mut line = Vec::new();
        if self.args.json {
            line.extend_from_slice(if self.entries == 0 { b"\n" } else { b",\n" });
            let entry = Entry {
                path: String::from_utf8_lossy(path).into_owned(),
                kind: kind(node.kind),
                mode: format!("{:04o}", node.mode & 0o7777),
                links: node.links,
                uid: node.uid,
                gid: node.gid,
                size: node.size,
                time: node.time.map(|time| time.seconds),
                target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
                device: is_device(node.kind).then_some([node.device.0, node.device.1]),
            };
            line.extend_from_slice(output::json(&entry)?.as_bytes());
        } else {
            if self.args.long {
                line.extend_from_slice(details(node).as_bytes());
            }
            line.extend_from_slice(shown(path).as_bytes());
            if let Some(target) = target.filter(|_| self.args.long) {
                line.extend_from_slice(b" -> ");
                line.extend_from_slice(shown(target).as_bytes());
            }
            line.push(b'\n');
        }
        self.entries += 1;
        self.stdout.write(&line)
    }

    fn finish(mut self) -> anyhow::Result<()> {
        if self.args.json {
            self.stdout.write(b"\n]}\n")?;
        }
        self.stdout.finish().map(drop)
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
