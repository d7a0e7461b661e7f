//! `nabla iso`: makes and reads images of file systems.

mod build;
mod cat;
mod diff;
mod extract;
mod image;
mod list;
mod verify;

use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  # a disk of a directory, and a guest that mounts it
  nabla iso build rootfs -o rootfs.iso
  nabla run app.nabla --disk rootfs.iso,ro
  nabla iso ls -l rootfs.iso /etc
  nabla iso cat rootfs.iso /etc/hosts
  nabla iso extract rootfs.iso copy
  nabla iso diff rootfs.iso rootfs

Exit status: 0; 125 when something failed; 'verify' and 'diff' exit with 1 when something is wrong or different.";

/// Arguments of `nabla iso`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct IsoArgs {
    #[command(subcommand)]
    command: IsoCommand,
}

#[derive(Debug, Subcommand)]
enum IsoCommand {
    /// Make an image of directories and tar files.
    Build(Box<build::BuildArgs>),
    /// List what is in an image.
    Ls(list::ListArgs),
    /// Print files of an image.
    Cat(cat::CatArgs),
    /// Unpack an image.
    Extract(extract::ExtractArgs),
    /// Check the structure of an image.
    Verify(verify::VerifyArgs),
    /// Compare an image with a directory.
    Diff(diff::DiffArgs),
}

/// Does what the verb says.
pub fn main(args: &IsoArgs) -> anyhow::Result<u8> {
    match &args.command {
        IsoCommand::Build(args) => build::main(args),
        IsoCommand::Ls(args) => list::main(args),
        IsoCommand::Cat(args) => cat::main(args),
        IsoCommand::Extract(args) => extract::main(args),
        IsoCommand::Verify(args) => verify::main(args),
        IsoCommand::Diff(args) => diff::main(args),
    }
}
