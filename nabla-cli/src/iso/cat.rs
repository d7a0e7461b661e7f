//! `nabla iso cat`.

use super::image::{self, Stdout};
use anyhow::Context;
use clap::Args;
use std::{io::Read, os::unix::ffi::OsStrExt, path::PathBuf};

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
    let mut stdout = Stdout::new();
    let mut buffer = vec![0; 256 << 10];
    for path in &args.paths {
        let failed = || format!("cannot read '{}' of '{}'", path.display(), args.image.display());
        let mut file = volume.open_file(path.as_os_str().as_bytes()).with_context(failed)?;
        loop {
            let length = file.read(&mut buffer).with_context(failed)?;
            if length == 0 {
                break;
            }
            if !stdout.write(&buffer[..length])? {
                return Ok(0);
            }
        }
    }
    stdout.finish()?;
    Ok(0)
}
