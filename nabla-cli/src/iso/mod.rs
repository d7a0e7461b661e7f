//! `nabla iso`: makes and reads images of file systems.

mod build;

use clap::{Args, Subcommand};

/// Arguments of `nabla iso`.
#[derive(Debug, Args)]
pub struct IsoArgs {
    #[command(subcommand)]
    command: IsoCommand,
}

#[derive(Debug, Subcommand)]
enum IsoCommand {
    /// Make an image of directories and tar files.
    Build(Box<build::BuildArgs>),
}

/// Does what the verb says.
pub fn main(args: &IsoArgs) -> anyhow::Result<u8> {
    match &args.command {
        IsoCommand::Build(args) => build::main(args),
    }
}
