//! `nabla iso verify`.

use super::image;
use crate::output;
use anyhow::Context;
use clap::Args;
use nabla_iso::{
    Verification,
    reader::{Naming, ReadError, Source, Volume},
};
use serde::Serialize;
use std::{os::unix::ffi::OsStrExt, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  nabla iso verify rootfs.iso
  nabla iso verify rootfs.iso --json

Checks that all directories and path tables can be read and agree, that everything is inside of the image, that \
nothing overlaps, and that no name is there twice, and says what is odd. Contents of files are not read.

Exit status: 0; 1 when something is wrong; 125 when there is no image or it could not be read.";

/// Arguments of `nabla iso verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// The image.
    image: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(rename = "type")]
    kind: &'static str,
    version: u32,
    image: String,
    names: &'static str,
    directories: u64,
    files: u64,
    others: u64,
    file_bytes: u64,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    path: String,
    message: String,
}

fn names(naming: Naming) -> &'static str {
    match naming {
        Naming::RockRidge => "rock-ridge",
        Naming::Joliet => "joliet",
        Naming::Plain => "iso9660",
    }
}

/// Checks an image.
pub fn main(args: &VerifyArgs) -> anyhow::Result<u8> {
    let file = image::open_file(&args.image)?;
    let is_empty = file.size() == 0;
    let (found, names) = match Volume::open(file) {
        Ok(volume) => (volume.verify(), names(volume.naming())),
        // So broken that there is nothing else to look at.
        Err(error @ ReadError::Broken { .. }) if !is_empty => {
            let message = format!("{:#}", anyhow::Error::new(error));
            let mut found = Verification::default();
            found.problems.push(nabla_iso::Problem { path: "/".into(), message });
            (found, "unknown")
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read '{}'", args.image.display()));
        }
    };
    let status = u8::from(!found.problems.is_empty());
    let image = args.image.display().to_string();
    let problems: Vec<Problem> = found
        .problems
        .iter()
        .map(|problem| Problem {
            path: if args.json {
                problem.path.display().to_string()
            } else {
                output::shown(problem.path.as_os_str().as_bytes())
            },
            message: problem.message.clone(),
        })
        .collect();
    let (directories, files, others) = (found.directories, found.files, found.others);
    if args.json {
        output::print_json(&Report {
            kind: "nabla.iso.verification",
            version: 1,
            image,
            names,
            directories,
            files,
            others,
            file_bytes: found.bytes,
            problems,
        })?;
        return Ok(status);
    }
    let mut text = String::new();
    for Problem { path, message } in &problems {
        text += &output::one_line(&format!("{image}: {path}: {message}"));
        text.push('\n');
    }
    if problems.is_empty() {
        let line =
            format!("{image}: good ({names}): {directories} directories, {files} files, {others} others");
        text += &output::one_line(&line);
        text.push('\n');
    }
    output::print(text.as_bytes())?;
    Ok(status)
}
