//! `nabla iso cat`.

use super::image;
use anyhow::Context;
use clap::Args;
use std::{
    io::{self, ErrorKind, Write},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

const EXAMPLES: &str = "\
Examples:
  nabla iso cat rootfs.iso /etc/hosts
  nabla iso cat rootfs.iso bin/app > app

Symbolic links are followed within the image.

Exit status: 0, or 125 when something could not be read.";

/// Arguments of `nabla iso cat`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CatArgs {
    /// The image.
    image: PathBuf,

    /// Paths of files in it.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Prints files one after the other.
pub fn main(args: &CatArgs) -> anyhow::Result<u8> {
    let volume = image::open(&args.image)?;
    let mut stdout = io::stdout().lock();
    let mut buffer = vec![0; 256 << 10];
    for path in &args.paths {
        let shown = || format!("cannot read '{}' of '{}'", path.display(), args.image.display());
        let node = volume.lookup(path.as_os_str().as_bytes()).with_context(shown)?;
        let mut at = 0;
        loop {
            let length = volume.read_file(&node, at, &mut buffer).with_context(shown)?;
            if length == 0 {
                break;
            }
            match stdout.write_all(&buffer[..length]) {
                // The reader has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(0),
                result => result.context("cannot write to standard output")?,
            }
            at += length as u64;
        }
    }
    match stdout.flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(0),
    }
}
